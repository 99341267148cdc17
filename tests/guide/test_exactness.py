"""The guided prediction is what the paper's equations say, and a plain one is the stock pipeline's, bit for bit."""

from __future__ import annotations

import io

import pytest
import torch
from explicit_reference import sample
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_sd3 import noise, run

from pagopt.guide import guided
from pagopt.models import family_of
from pagopt.recipe import Recipe
from tests.families.explicit import HAVE_ZEROS, TARGETS

PROMPTS = ["red apple", "b", "ink, cat"]
TOLERANCE = 1e-10


def encoded(pipe, prompts):
    embeds, negative, pooled, negative_pooled = pipe.encode_prompt(
        prompts, None, None, max_sequence_length=2, do_classifier_free_guidance=True
    )
    return (embeds, pooled), (negative, negative_pooled)


def relative_error(got, want):
    return ((got - want).norm() / want.norm()).item()


@st.composite
def recipes(draw, heads, steps):
    chosen = draw(st.lists(st.sampled_from(list(heads)), min_size=1, max_size=6, unique=True))
    strengths = st.one_of(st.sampled_from([0.25, 1.0]), st.floats(0.05, 1.0))
    start = draw(st.integers(0, steps - 1))
    stop = draw(st.integers(start + 1, steps))
    # Most recipes take the default; a mean over text is left out, because attn2 sees none.
    kind = draw(st.just("identity") | st.sampled_from([name for name in TARGETS if name != "mean_text"]))
    paths = ["straight", "fisher_rao", "log_linear"][: 2 if kind in HAVE_ZEROS else 3]
    target, options = TARGETS[kind]
    return Recipe(
        heads=chosen,
        target=target,
        target_options=options,
        path=draw(st.sampled_from(paths)),
        strength=[draw(strengths) for _ in chosen],
        scale=draw(st.floats(0.1, 5.0)),
        interval=(start / steps, stop / steps),
    )


@pytest.mark.parametrize("variant", ["sd3", "qk_norm", "dual"])
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_equals_explicit_maps_for_random_recipes(pipelines, variant, data):
    pipe, steps = pipelines[variant], 2
    heads = family_of(pipe).head_map(pipe.transformer)
    rows = data.draw(st.integers(1, 3))
    plans = [data.draw(recipes(heads, steps) | st.just(Recipe())) for _ in range(rows)]
    g = data.draw(st.sampled_from([1.0, 1.5, 7.0]))
    with guided(pipe, plans):
        got = run(pipe, PROMPTS[:rows], steps=steps, g=g)
    prompt, negative = encoded(pipe, PROMPTS[:rows])
    want = sample(pipe, plans, steps, g, noise(rows), prompt, negative)
    assert relative_error(got, want) < TOLERANCE


@pytest.mark.parametrize("g", [1.0, 3.0])
def test_equals_explicit_maps_at_every_head(any_pipe, g):
    heads = list(family_of(any_pipe).head_map(any_pipe.transformer))
    prompts = ["cat"] * len(heads)
    plans = [Recipe(head, strength=0.6, scale=2.0) for head in heads]
    with guided(any_pipe, plans):
        got = run(any_pipe, prompts, steps=1, g=g)
    prompt, negative = encoded(any_pipe, prompts)
    want = sample(any_pipe, plans, 1, g, noise(len(heads)), prompt, negative)
    plain = run(any_pipe, prompts, steps=1, g=g)
    for row, head in enumerate(heads):
        assert relative_error(got[row], want[row]) < TOLERANCE, head
        assert ((plain[row] - want[row]).norm() / want[row].norm()).item() > 1e-6, f"{head} has no effect here"


def test_a_batch_of_recipes_equals_each_row_alone(any_pipe):
    plans = [
        Recipe("L0.H1 L2.H0", strength=(0.3, 1.0), scale=2.0),
        Recipe("L2.H2", scale=4.0, interval=(0.3, 1.0)),
        Recipe(),
        Recipe("L1.H0-2", strength=0.5, interval=(0.0, 0.4)),
    ]
    prompts = ["red apple", "b", "ink, cat", ""]
    start = noise(4)
    with guided(any_pipe, plans):
        together = run(any_pipe, prompts, g=2.0, latents=start)
    for row, plan in enumerate(plans):
        with guided(any_pipe, plan):
            alone = run(any_pipe, prompts[row : row + 1], g=2.0, latents=start[row : row + 1])
        assert relative_error(together[row], alone[0]) < 1e-12


def test_rows_are_prompts_times_images_per_prompt(pipe):
    plans = [Recipe("L0.H0", scale=s) for s in (1.0, 2.0, 3.0, 4.0)]
    with guided(pipe, plans):
        got = run(pipe, ["a", "b"], g=2.0, num_images_per_prompt=2)
    prompt, negative = encoded(pipe, ["a", "a", "b", "b"])
    assert relative_error(got, sample(pipe, plans, 3, 2.0, noise(4), prompt, negative)) < TOLERANCE


PLAIN = {
    "no heads": Recipe(),
    "u = 0": Recipe("L0.H0 L2.H1", strength=0.0),
    "w = 0": Recipe("L0.H0 L2.H1", scale=0.0),
    "u = 0 each": Recipe("L0.H0 L2.H1", strength=(0.0, 0.0), interval=(0.0, 0.01)),
}


@pytest.mark.parametrize("plan", PLAIN.values(), ids=PLAIN.keys())
@pytest.mark.parametrize("g", [1.0, 3.0])
def test_plain_recipes_change_no_bit(any_pipe, plan, g):
    with guided(any_pipe, plan) as guidance:
        got = run(any_pipe, PROMPTS, g=g)
    assert torch.equal(got, run(any_pipe, PROMPTS, g=g))
    assert guidance.steps == 0


def png(image):
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def test_plain_recipes_change_no_byte_of_the_picture(pipe):
    expected = run(pipe, ["cat"], g=2.0, output_type="pil")[0]
    with guided(pipe, Recipe("L1.H1", scale=0.0)):
        assert png(run(pipe, ["cat"], g=2.0, output_type="pil")[0]) == png(expected)
    with guided(pipe, Recipe("L1.H1", scale=20.0)):
        assert png(run(pipe, ["cat"], g=2.0, output_type="pil")[0]) != png(expected)
