"""What the transformer returns under guidance, against explicit maps: every target, path, family and kind of batch."""

from __future__ import annotations

import copy

import pytest
import torch
from explicit import HAVE_ZEROS, TARGETS, error
from reference import guided_prediction, predict
from tiny_families import BLOCKS, GRID, HEADS, TEXT, inputs, normal
from under_guidance import predict_under_guidance

from pagopt.recipe import Recipe

pytestmark = pytest.mark.usefixtures("precise")

FAMILIES = ("flux", "flux2", "qwen", "chroma", "zimage")


def check(variant, transformer, recipes, arguments, grid=GRID):
    found, guidance, arguments = predict_under_guidance(variant, transformer, recipes, arguments)
    plain = predict(transformer, [None] * len(recipes), arguments, grid)
    expected = guided_prediction(transformer, recipes, arguments, grid)
    assert error(plain, expected) > 1e-3  # there is something to find
    assert error(found, expected) < 1e-10
    for row, recipe in enumerate(recipes):
        if recipe.is_plain:
            assert error(found[row], plain[row]) < 1e-10
    return guidance


def three(target, options, path, variant):
    """A plain row between two that begin in a double and in the last block, with a strength for each head."""
    last, most = BLOCKS[variant] - 1, HEADS[variant] - 1
    common = {"target": target, "target_options": options, "path": path}
    return [
        Recipe(f"L1.H0 L1.H{most} L{last}.H0", strength=(0.7, 1.0, 0.3), scale=2.0, **common),
        Recipe(scale=0),
        Recipe(f"L{last}.H{most} L{last - 1}.H0", strength=0.9, scale=1.2, **common),
    ]


@pytest.mark.parametrize("kind", TARGETS)
@pytest.mark.parametrize("variant", FAMILIES)
def test_every_target(transformers, variant, kind):
    check(variant, transformers[variant], three(*TARGETS[kind], "straight", variant), inputs(variant, 3))


@pytest.mark.parametrize("kind", TARGETS)
@pytest.mark.parametrize("variant", FAMILIES)
def test_on_the_sphere(transformers, variant, kind):
    check(variant, transformers[variant], three(*TARGETS[kind], "fisher_rao", variant), inputs(variant, 3))


@pytest.mark.parametrize("kind", [kind for kind in TARGETS if kind not in HAVE_ZEROS])
@pytest.mark.parametrize("variant", FAMILIES)
def test_between_logarithms(transformers, variant, kind):
    check(variant, transformers[variant], three(*TARGETS[kind], "log_linear", variant), inputs(variant, 3))


def mixed(rows, variant):
    """A recipe of its own for every row; together they use all targets, all paths and all blocks."""
    kinds = list(TARGETS.items())
    recipes = []
    for row in range(rows):
        kind, (target, options) = kinds[(4 * row + 3) % len(kinds)]
        path = ("straight", "fisher_rao", "log_linear")[row % (2 if kind in HAVE_ZEROS else 3)]
        heads = f"L{row % BLOCKS[variant]}.H{row % HEADS[variant]} L{BLOCKS[variant] - 1}.H{HEADS[variant] - 1}"
        recipes.append(
            Recipe(
                " ".join(dict.fromkeys(heads.split())),
                strength=0.4 + 0.07 * row,
                target=target,
                target_options=options,
                path=path,
                scale=1.0 + row / 4,
            )
        )
    return recipes


@pytest.mark.parametrize("rows", [1, 3, 8])
@pytest.mark.parametrize("variant", ["flux", "flux_schnell", "flux2", "flux2_klein", "qwen", "chroma", "zimage"])
def test_rows_of_any_number(transformers, variant, rows):
    """Three rows are as many as text tokens, and eight as many as tokens: tables of positions are no batches."""
    text = 2 if rows == 8 else TEXT
    arguments = inputs(variant, rows, text=text, masked=rows != 8)
    check(variant, transformers[variant], mixed(rows, variant), arguments)


@pytest.mark.parametrize("kind", TARGETS)
def test_padding_anywhere(transformers, kind):
    """Qwen-Image: padding in the middle of the text and at its begin, and a row with none."""
    arguments = inputs("qwen", 3, text=4)
    mask = torch.tensor([[1, 0, 1, 0], [0, 1, 1, 1], [1, 1, 1, 1]])
    target, options = TARGETS[kind]
    recipes = [
        Recipe("L0.H1 L2.H0", strength=0.8, target=target, target_options=options, scale=scale)
        for scale in (1.0, 2.0, 3.0)
    ]
    check("qwen", transformers["qwen"], recipes, arguments | {"encoder_hidden_states_mask": mask})


CHROMA_MASKS = {
    # diffusers adds these to the logits: nothing is hidden, but what has less is looked at less.
    "soft": torch.tensor([[1, 0, 1, 0], [0, 1, 1, 1], [1, 1, 1, 1]]).double(),
    "fractions": torch.tensor([[1, 0.3, 2, 0], [0, 0.5, 1, 1], [-1, 1, 1, 1]]).double(),
    "hard": torch.tensor([[1, 0, 1, 0], [0, 1, 1, 1], [1, 1, 1, 1]]).bool(),
}


@pytest.mark.parametrize("path", ["straight", "fisher_rao"])
@pytest.mark.parametrize("kind", TARGETS)
@pytest.mark.parametrize("mask", CHROMA_MASKS)
def test_masks_of_chroma(transformers, mask, kind, path):
    arguments = inputs("chroma", 3, text=4)
    seen = torch.nn.functional.pad(CHROMA_MASKS[mask], (0, GRID[0] * GRID[1]), value=1)
    target, options = TARGETS[kind]
    recipes = [
        Recipe("L0.H1 L3.H0", strength=0.8, target=target, target_options=options, path=path, scale=scale)
        for scale in (1.0, 2.0, 3.0)
    ]
    check("chroma", transformers["chroma"], recipes, arguments | {"attention_mask": seen})


def test_what_the_padding_holds_does_not_matter(transformers):
    recipes = [Recipe("L0.H1 L2.H0", target="uniform"), Recipe("L1.H1", target="mean_query")]
    arguments = inputs("qwen", 2, text=4)
    arguments["encoder_hidden_states_mask"] = torch.tensor([[1, 1, 0, 0], [1, 0, 0, 0]])
    found = predict_under_guidance("qwen", transformers["qwen"], recipes, arguments)[0]
    arguments["encoder_hidden_states"] = arguments["encoder_hidden_states"].clone()
    arguments["encoder_hidden_states"][0, 2:] = 7.0
    arguments["encoder_hidden_states"][1, 1:] = -5.0
    again = predict_under_guidance("qwen", transformers["qwen"], recipes, arguments)[0]
    assert error(again, found) < 1e-12


@pytest.mark.parametrize("variant", ["flux", "flux2", "qwen"])
def test_fused_projections(transformers, variant):
    transformer = copy.deepcopy(transformers[variant])
    recipes, arguments = mixed(3, variant), inputs(variant, 3)
    before = predict_under_guidance(variant, transformer, recipes, arguments)[0]
    with torch.no_grad():
        transformer.fuse_qkv_projections()
    if variant != "qwen":  # its processor does not use what was fused
        for block in transformer.transformer_blocks:
            for name in ("to_q", "to_k", "to_v", "add_q_proj", "add_k_proj", "add_v_proj"):
                getattr(block.attn, name).weight.data.fill_(torch.nan)
    assert error(predict_under_guidance(variant, transformer, recipes, arguments)[0], before) < 1e-12


@pytest.mark.parametrize("variant", FAMILIES)
def test_block_evaluations(transformers, variant):
    """L + (L - l) with the first perturbed block l, in double and in single blocks."""
    blocks = BLOCKS[variant]
    for first in range(blocks):
        recipe = Recipe(f"L{first}.H0 L{blocks - 1}.H1", scale=1.5, target="temperature")
        _, guidance, _ = predict_under_guidance(variant, transformers[variant], recipe, inputs(variant, 1))
        assert guidance.block_evaluations == blocks + (blocks - first)
    recipes = [Recipe("L1.H0"), Recipe(f"L{blocks - 1}.H0"), Recipe(scale=0)]
    _, guidance, _ = predict_under_guidance(variant, transformers[variant], recipes, inputs(variant, 3))
    assert guidance.block_evaluations == 3 * blocks + (blocks - 1) + 1


@pytest.mark.parametrize("variant", FAMILIES)
def test_equal_rows_are_computed_once(transformers, variant):
    """Candidates of one task: their plain rows are one, and the result is the same."""
    blocks, rows = BLOCKS[variant], 4
    one = inputs(variant, 1, seed=2)
    many = {
        name: value.repeat(rows, *(1,) * (value.ndim - 1))
        if isinstance(value, torch.Tensor) and not name.endswith("_ids")
        else value
        for name, value in one.items()
    }
    many["img_shapes"] = one.get("img_shapes", []) * rows
    arguments = {name: value for name, value in many.items() if name in one}
    recipes = mixed(rows, variant)
    guidance = check(variant, transformers[variant], recipes, arguments)
    firsts = [min(head.block for head in recipe.heads) for recipe in recipes]
    assert guidance.block_evaluations == blocks + sum(blocks - first for first in firsts)


@pytest.mark.parametrize("variant", ["flux", "qwen", "chroma", "zimage"])
def test_controlnet_residuals_fork_at_the_input(transformers, variant):
    """They are added between the blocks, so the copies must be there from the start. Still exact."""
    blocks = BLOCKS[variant]
    if variant == "zimage":  # to all tokens: 32 of the image, and 64 of the longest caption
        shape, places = (3, 96, transformers[variant].dim), [0, blocks - 1]
    else:
        shape, places = (3, GRID[0] * GRID[1], transformers[variant].inner_dim), [0, 1]
    arguments = inputs(variant, 3)
    residuals = {place: normal(*shape, seed=40 + i) for i, place in enumerate(places)}
    arguments["controlnet_block_samples"] = residuals if variant == "zimage" else list(residuals.values())
    if variant in ("flux", "chroma"):
        arguments["controlnet_single_block_samples"] = [normal(*shape, seed=42)]
    recipes = [Recipe(f"L{blocks - 1}.H0", scale=2.0), Recipe("L1.H1", target="blur"), Recipe(scale=0)]
    guidance = check(variant, transformers[variant], recipes, arguments)
    assert guidance.block_evaluations == 5 * blocks
