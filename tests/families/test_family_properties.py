"""Random recipes on random batches, against explicit maps."""

from __future__ import annotations

import pytest
from explicit import HAVE_ZEROS, TARGETS, error
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from reference import guided_prediction
from tiny_families import BLOCKS, GRID, HEADS, inputs
from under_guidance import predict_under_guidance

from pagopt.recipe import Recipe


@st.composite
def recipes(draw, variant):
    """Any recipe that the model can have, plain ones too."""
    heads = [f"L{block}.H{head}" for block in range(BLOCKS[variant]) for head in range(HEADS[variant])]
    chosen = draw(st.lists(st.sampled_from(heads), max_size=4, unique=True))
    kind = draw(st.sampled_from(list(TARGETS)))
    paths = ("straight", "fisher_rao") if kind in HAVE_ZEROS else ("straight", "fisher_rao", "log_linear")
    target, options = TARGETS[kind]
    return Recipe(
        chosen,
        strength=draw(st.lists(st.sampled_from((0.0, 0.25, 0.6, 1.0)), min_size=len(chosen), max_size=len(chosen))),
        target=target,
        target_options=options,
        path=draw(st.sampled_from(paths)),
        scale=draw(st.sampled_from((0.0, 0.5, 3.0))),
    )


@pytest.mark.usefixtures("precise")
@pytest.mark.parametrize("variant", ["flux", "flux2", "qwen", "chroma", "zimage"])
@settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_recipes(transformers, variant, data):
    rows = data.draw(st.integers(1, 3), label="rows")
    given_recipes = [data.draw(recipes(variant), label="recipe") for _ in range(rows)]
    arguments = inputs(variant, rows, seed=data.draw(st.integers(0, 50), label="seed"))
    found, guidance, arguments = predict_under_guidance(variant, transformers[variant], given_recipes, arguments)
    assert error(found, guided_prediction(transformers[variant], given_recipes, arguments, GRID)) < 1e-10
    firsts = [
        min(head.block for head, strength in zip(recipe.heads, recipe.strengths, strict=True) if strength > 0)
        for recipe in given_recipes
        if not recipe.is_plain
    ]
    blocks = BLOCKS[variant]
    assert guidance.block_evaluations == rows * blocks + sum(blocks - first for first in firsts)
