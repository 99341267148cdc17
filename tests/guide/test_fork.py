"""What guidance costs, counted from outside: rows that run through each block."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
import torch
from explicit_reference import predict
from tiny_sd3 import LAYERS, noise, run

from pagopt.guide import guided
from pagopt.recipe import Recipe


@contextmanager
def counted_rows(pipe):
    """Rows through each block, one list a transformer call; counted inside the blocks' own forward."""
    calls: list[list[int]] = []
    blocks = pipe.transformer.transformer_blocks
    originals = [block.forward for block in blocks]

    def counting(number, forward):
        def wrapped(hidden_states, *args, **kwargs):
            if number == 0:
                calls.append([])
            calls[-1].append(len(hidden_states))
            return forward(hidden_states, *args, **kwargs)

        return wrapped

    for number, block in enumerate(blocks):
        block.forward = counting(number, originals[number])
    try:
        yield calls
    finally:
        for block in blocks:
            del block.forward


@pytest.mark.parametrize("first", range(LAYERS))
@pytest.mark.parametrize("g", [1.0, 2.0])
def test_a_recipe_costs_the_blocks_from_its_first_perturbed_one(any_pipe, first, g):
    recipe = Recipe([f"L{first}.H1", "L2.H0"], strength=0.5)
    with counted_rows(any_pipe) as calls, guided(any_pipe, recipe) as guidance:
        run(any_pipe, ["cat"], steps=4, g=g)
    plain = 2 if g > 1 else 1
    assert calls == [[plain + (block >= first) for block in range(LAYERS)]] * 4
    assert guidance.block_evaluations == 4 * (plain * LAYERS + LAYERS - first)
    assert guidance.calls == guidance.steps == 4


def test_every_row_forks_at_its_own_block_in_its_own_interval(pipe):
    plans = [
        Recipe("L1.H0", interval=(0.0, 0.5)),
        Recipe("L0.H0 L2.H1"),
        Recipe(),
        Recipe("L2.H0 L0.H1", strength=(1.0, 0.0), interval=(0.5, 0.75)),  # strength 0 in block 0: starts in 2
    ]
    with counted_rows(pipe) as calls, guided(pipe, plans) as guidance:
        run(pipe, ["a", "b", "c", "d"], steps=4, g=2.0)
    assert calls == [[9, 10, 10], [9, 10, 10], [9, 9, 10], [9, 9, 9]]
    assert guidance.block_evaluations == sum(map(sum, calls))


def test_outside_the_interval_nothing_is_added(pipe):
    with counted_rows(pipe) as calls, guided(pipe, Recipe("L0.H0", interval=(0.25, 0.5))) as guidance:
        run(pipe, ["a"], steps=4)
    assert calls == [[1, 1, 1], [2, 2, 2], [1, 1, 1], [1, 1, 1]]
    assert (guidance.calls, guidance.steps) == (4, 1)


def test_plain_recipes_cost_nothing(pipe):
    with counted_rows(pipe) as calls, guided(pipe, [Recipe(), Recipe("L0.H0", scale=0.0)]):
        run(pipe, ["a", "b"], steps=2)
    assert calls == [[2, 2, 2]] * 2


def test_controlnet_residuals_fork_at_the_input(pipe):
    """The transformer adds them between its blocks, so the copies must be there from the start. Still exact."""
    plans = [Recipe("L2.H0", strength=0.5, scale=2.0), Recipe("L1.H1", scale=1.0)]
    prompt, _, pooled, _ = pipe.encode_prompt(
        ["a", "b"], None, None, max_sequence_length=2, do_classifier_free_guidance=True
    )
    tokens, width = 16, pipe.transformer.inner_dim
    torch.manual_seed(5)
    residuals = [torch.randn(2, tokens, width, dtype=torch.float64) for _ in range(2)]
    inputs = {
        "hidden_states": noise(2),
        "encoder_hidden_states": prompt,
        "pooled_projections": pooled,
        "block_controlnet_hidden_states": residuals,
    }
    run(pipe, ["a", "b"], steps=2)  # leaves a schedule and a guidance scale behind
    timestep = pipe.scheduler.timesteps[0].expand(2)
    with torch.no_grad(), counted_rows(pipe) as calls, guided(pipe, plans):
        got = pipe.transformer(**inputs, timestep=timestep).sample
    assert calls == [[4, 4, 4]]

    class WithResiduals(torch.nn.Module):
        def __init__(self, transformer):
            super().__init__()
            self.transformer = transformer
            self.transformer_blocks = transformer.transformer_blocks

        def forward(self, latents, embeds, pooled, timestep, return_dict):
            return self.transformer(latents, embeds, pooled, timestep, residuals, return_dict=return_dict)

    model = WithResiduals(pipe.transformer)
    plain = predict(model, [None, None], noise(2), timestep[:1], prompt, pooled)
    perturbed = predict(model, plans, noise(2), timestep[:1], prompt, pooled)
    scale = torch.tensor([2.0, 1.0]).view(2, 1, 1, 1)
    assert torch.allclose(got, plain + scale * (plain - perturbed), rtol=1e-10, atol=1e-12)
