"""Every target and path on Stable Diffusion 3 and 3.5, against explicit maps and against diffusers' own PAG."""

from __future__ import annotations

import copy

import diffusers
import pytest
import torch
from explicit_reference import predict, sample
from peft import LoraConfig
from tiny_sd3 import SIZE, noise, run

from pagopt.errors import GuidanceError
from pagopt.guide import guided
from pagopt.models import fingerprint
from pagopt.recipe import Recipe
from tests.families.explicit import HAVE_ZEROS, TARGETS, error
from tests.quantised import QUANTISERS

PROMPTS = ["red apple", "b", "ink, cat"]


def encoded(pipe, prompts):
    embeds, negative, pooled, negative_pooled = pipe.encode_prompt(
        prompts, None, None, max_sequence_length=2, do_classifier_free_guidance=True
    )
    return (embeds, pooled), (negative, negative_pooled)


def check(pipe, plans, g, size=(SIZE, SIZE)):
    prompts = (PROMPTS * 3)[: len(plans)]
    latents = noise(len(plans))[..., : size[0], : size[1]]
    with guided(pipe, plans):
        got = run(pipe, prompts, steps=2, g=g, latents=latents, height=2 * size[0], width=2 * size[1])
    want = sample(pipe, plans, 2, g, latents, *encoded(pipe, prompts))
    assert error(got, want) < 1e-10


@pytest.mark.parametrize("path", ["straight", "fisher_rao", "log_linear"])
@pytest.mark.parametrize("kind", TARGETS)
@pytest.mark.parametrize("variant", ["sd3", "qk_norm"])
def test_every_target_and_path(pipelines, variant, kind, path):
    if path == "log_linear" and kind in HAVE_ZEROS:
        return
    target, options = TARGETS[kind]
    common = {"target": target, "target_options": options, "path": path}
    plans = [
        Recipe("L0.H1 L2.H0", strength=(0.7, 1.0), **common),
        Recipe(),
        Recipe("L1.H0 L1.H2", strength=0.4, scale=1.5, interval=(0.5, 1.0), **common),
    ]
    check(pipelines[variant], plans, g=2.0)


@pytest.mark.parametrize("rows", [1, 3, 8])
@pytest.mark.parametrize("g", [1.0, 3.0])
def test_a_target_of_its_own_in_every_row(pipelines, rows, g):
    """On both sites of a dual block, and on an image that is no square."""
    kinds = list(TARGETS.values())
    plans = [
        Recipe("L0.H1 L1.attn2.H2 L1.H0", strength=0.3 + row / 12, target=target, target_options=options)
        for row, (target, options) in enumerate(kinds[(3 * row) % len(kinds)] for row in range(rows))
        if options != {"over": "text"}
    ]
    check(pipelines["dual"], plans, g, size=(SIZE, SIZE // 2))


def test_a_mean_over_text_where_there_is_none(pipelines):
    recipe = Recipe("L0.attn2.H0", target="mean_query", target_options={"over": "text"})
    with pytest.raises(GuidanceError, match="sees image tokens alone"), guided(pipelines["dual"], recipe):
        run(pipelines["dual"], ["a"])


@pytest.mark.parametrize("layer", [0, 1, 2])
@pytest.mark.parametrize("g", [0.0, 4.0])
def test_image_to_image_is_the_pag_of_diffusers(pipe, layer, g):
    """The whole pipeline against ``StableDiffusion3PAGPipeline`` with the same layer."""
    # Its processor leaves the normalisation of Q and K out, so this holds for weights without, as in 3-medium.
    parts = {k: part for k, part in pipe.components.items() if k not in ("image_encoder", "feature_extractor")}
    pag = diffusers.StableDiffusion3PAGPipeline(**parts, pag_applied_layers=[f"blocks.{layer}"])
    pag.set_progress_bar_config(disable=True)
    theirs = run(pag, PROMPTS, steps=3, g=g, pag_scale=2.5)
    recipe = Recipe(f"L{layer}.H0-2", target="image_to_image", scale=2.5)
    with guided(pipe, recipe):
        ours = run(pipe, PROMPTS, steps=3, g=g)
    assert error(ours, theirs) < 1e-10
    assert error(ours, run(pipe, PROMPTS, steps=3, g=g)) > 1e-3


def test_equal_rows_are_drawn_once_until_guidance_parts_them(pipe):
    """Four candidates on two tasks, with CFG: what they share is computed once, and nothing changes."""
    plans = [
        Recipe("L1.H0", interval=(0.5, 1.0)),
        Recipe("L2.H1", interval=(0.5, 1.0)),
        Recipe("L0.H0", interval=(0.5, 1.0)),
        Recipe("L1.H2", interval=(0.5, 1.0)),
    ]
    prompts, latents = ["cat", "cat", "house", "house"], noise(2).repeat_interleave(2, dim=0)
    with guided(pipe, plans) as guidance:
        got = run(pipe, prompts, steps=4, g=2.0, latents=latents)
    assert error(got, sample(pipe, plans, 4, 2.0, latents, *encoded(pipe, prompts))) < 1e-10
    # Two tasks x two branches in two plain steps and in the first guided one, all eight rows after that.
    copies = sum(3 - layer for layer in (1, 2, 0, 1))
    assert guidance.block_evaluations == 3 * (4 * 3) + copies + (8 * 3 + copies)
    with guided(pipe, plans):  # and once more, from the start
        assert torch.equal(run(pipe, prompts, steps=4, g=2.0, latents=latents), got)


def test_lora(pipe):
    """Adapters on the very projections that are read and moved."""
    own = copy.deepcopy(pipe)
    own.transformer.add_adapter(
        LoraConfig(r=2, target_modules=["to_q", "to_v", "add_v_proj", "to_out.0", "to_add_out"])
    )
    torch.manual_seed(1)
    for name, parameter in own.transformer.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    own.transformer.double()
    plans = [Recipe("L1.H0 L2.H1", strength=0.6), Recipe("L0.H1", target="temperature")]
    check(own, plans, g=2.0)
    assert error(run(own, ["cat"]), run(pipe, ["cat"])) > 1e-3


@pytest.mark.filterwarnings("ignore:MatMul8bitLt")
@pytest.mark.parametrize("layers", QUANTISERS)
def test_quantised_layers(pipe, layers):
    own = copy.deepcopy(pipe)
    own.transformer.float()
    before = fingerprint(own)
    QUANTISERS[layers](own.transformer)
    assert fingerprint(own) not in (before, fingerprint(pipe))
    recipe = Recipe("L1.H0 L2.H1", strength=0.6, scale=2.0)
    (embeds, pooled), _ = encoded(own, PROMPTS)
    run(pipe, PROMPTS, steps=2)  # leaves a schedule behind
    own.scheduler, own._num_timesteps, own._guidance_scale = pipe.scheduler, pipe._num_timesteps, pipe._guidance_scale
    timestep = own.scheduler.timesteps[:1]
    inputs = noise(3).float(), embeds.float(), pooled.float()
    with torch.no_grad(), guided(own, recipe):
        got = own.transformer(*inputs, timestep.expand(3), return_dict=False)[0]
    plain, perturbed = (
        predict(own.transformer, [plan] * 3, inputs[0], timestep, *inputs[1:]) for plan in (None, recipe)
    )
    assert error(perturbed, plain) > 1e-3
    assert error(got, plain + 2.0 * (plain - perturbed)) < 1e-4


@pytest.mark.parametrize("path", ["straight", "fisher_rao", "log_linear"])
@pytest.mark.parametrize("kind", TARGETS)
@pytest.mark.parametrize("variant", ["sd3", "qk_norm"])
def test_autocast(pipelines, variant, kind, path):
    """As with ``--trainer.precision bf16-mixed``: attention in bfloat16, what the transformer was given in float32."""
    if path == "log_linear" and kind in HAVE_ZEROS:
        return
    target, options = TARGETS[kind]
    pipe = copy.deepcopy(pipelines[variant]).to(dtype=torch.float32)
    plans = [Recipe(), Recipe("L0.H1 L2.H0", strength=0.7, target=target, target_options=options, path=path)]
    latents = noise(2).float()
    with guided(pipe, plans):
        exact = run(pipe, PROMPTS[:2], steps=2, latents=latents)
    with torch.autocast("cpu", torch.bfloat16), guided(pipe, plans):
        rounded = run(pipe, PROMPTS[:2], steps=2, latents=latents)
    # A row's maximum jumps where two logits round to the same.
    assert 0 < error(rounded, exact) < (0.2 if kind == "row_maximum" else 0.05)
