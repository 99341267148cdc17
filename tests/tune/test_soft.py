"""Strengths for each head: soft selection, what is kept of it, and the greedy answer as its first trial."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from pagopt.errors import StudyError, UnknownName
from pagopt.heads import Head, expand_heads
from pagopt.recipe import Recipe, load_recipe
from pagopt.tuning import Space, Tuning, tune
from pagopt.tuning.parameter import Parameter
from pagopt.tuning.start import first_points
from tests.tune.conftest import TRAINER

Make = Callable[..., Tuning]
FOUND = tuple(expand_heads("L7.H2 L4.H3"))
SOFT = {"low": 0, "high": 1, "per_head": True, "of": "L4.H0-3", "at_most": 2}


def space(recipe: Recipe | None = None, **strength: Any) -> Space:
    given = {**SOFT, **strength}
    given = {name: value for name, value in given.items() if value is not None}
    return Space({"strength": given}, recipe or Recipe(heads=FOUND, scale=2.0), FOUND, 12)


def drawn(made: Space, strengths: Mapping[str, float]) -> dict[str, float]:
    """Draw these strengths, 0.1 for other heads; what the recipe has."""

    def ask(name: str, parameter: Parameter) -> float:
        return strengths.get(name.partition(" ")[2], 0.1)

    recipe = made.draw(ask).recipe
    return {str(head): u for head, u in zip(recipe.heads, recipe.strengths, strict=True)}


def test_the_strongest_heads_are_kept() -> None:
    made = space()
    assert [str(head) for head in made.heads] == ["L7.H2", "L4.H3", "L4.H0", "L4.H1", "L4.H2"]
    assert drawn(made, {"L4.H1": 0.9, "L7.H2": 0.3}) == {"L4.H1": 0.9, "L7.H2": 0.3}
    assert drawn(made, {}) == {"L7.H2": 0.1, "L4.H3": 0.1}, "of equal ones the first"
    assert len(drawn(space(at_most=None), {"L4.H1": 0.0})) == 4, "all but the one of strength 0"


def test_heads_of_strength_0_do_not_belong_to_the_recipe() -> None:
    made = space(at_most=4)
    assert set(drawn(made, {"L7.H2": 0.0, "L4.H3": 0.0, "L4.H0": 0.0})) == {"L4.H1", "L4.H2"}
    zero = made.draw(lambda name, parameter: 0.0).recipe
    assert zero.heads == ()
    assert zero.is_plain
    only = Space({"strength": {"low": 0, "high": 1, "per_head": True}}, Recipe(heads=FOUND), FOUND, 12)
    assert drawn(only, {"L7.H2": 0.0}) == {"L4.H3": 0.1}, "the recipe's own heads, too"


def test_the_greedy_answer_comes_first() -> None:
    points, left = first_points(space())
    assert left == {}
    assert points["as it was"].recipe == Recipe(heads=FOUND, scale=2.0)
    assert points["as it was"].values == {
        "strength L7.H2": 1.0, "strength L4.H3": 1.0,
        "strength L4.H0": 0.0, "strength L4.H1": 0.0, "strength L4.H2": 0.0,
    }  # fmt: skip
    assert points["u = 0.5"].recipe == Recipe(heads=FOUND, strength=0.5, scale=2.0)
    assert points["no guidance"].recipe.is_plain
    raised, _ = first_points(space(low=0.2))
    assert raised["as it was"].recipe == Recipe(heads=FOUND, scale=2.0)
    assert raised["as it was"].values["strength L4.H0"] == 0.2
    _, left = first_points(space(at_most=1))
    assert left["as it was"] == "it has more heads than the 1 that the space keeps at most"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"per_head": None}, "add per_head: true"),
        ({"at_most": 0}, "at least 1, not 0"),
        ({"at_most": True}, "at least 1, not True"),
        ({"at_most": 6}, "at_most is 6, and there are 5 heads"),
        ({"of": "L4.H*"}, r"write its heads out, such as 'L8-11.H0-5'"),
        ({"of": ""}, "names no heads"),
        ({"low": 0.2, "at_most": None}, "all 5 heads would always be perturbed"),
    ],
)
def test_refuses(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(StudyError, match=message):
        space(**changes)


def test_it_does_not_go_together_with_leading() -> None:
    with pytest.raises(StudyError, match="leading does so, too"):
        Space({"strength": SOFT, "leading": [1, 2]}, Recipe(heads=FOUND), FOUND, 12)


@pytest.mark.parametrize("sampler", ["gp", "tpe"])
def test_a_tuning_over_all_heads_of_two_layers(sampler: str, make: Make, tmp_path: Path) -> None:
    strength = {"low": 0, "high": 1, "per_head": True, "of": "L0-2.H0-1", "at_most": 2}
    options = {"n_startup_trials": 4}
    tuning = make(space={"strength": strength}, sampler=sampler, sampler_options=options, pruner="none", rungs=None)
    tuned = tune(tuning, "tiny", tmp_path / "run", trainer=TRAINER)
    assert [row.label for row in tuned.trials[:3]] == ["no guidance", "u = 0.5", "as it was"]
    assert {row.state for row in tuned.trials} == {"complete"}
    heads: set[Head] = set()
    for row in tuned.trials:
        recipe = Recipe.from_dict(row.recipe)
        assert len(row.parameters) == 6
        assert len(recipe.heads) <= 2
        assert all(u > 0 for u in recipe.strengths if recipe.heads)
        heads |= set(recipe.heads)
    assert len(heads) > 2, "or this says nothing"
    assert load_recipe(tmp_path / "run" / "recipe.json")[0] == tuned.recipe


def test_heads_that_the_model_does_not_have(make: Make, tmp_path: Path) -> None:
    tuning = make(space={"strength": {"low": 0, "high": 1, "per_head": True, "of": "L9.H0", "at_most": 1}})
    with pytest.raises(UnknownName, match=r"unknown head 'L9.H0'"):
        tune(tuning, "tiny", tmp_path / "run", trainer=TRAINER)
