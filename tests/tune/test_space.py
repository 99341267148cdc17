"""Spaces: what they hold, what they make, and what they refuse. No model, no Optuna."""

from __future__ import annotations

from typing import Any

import pytest

from pagopt.errors import PagoptError, StudyError, UnknownName
from pagopt.heads import expand_heads
from pagopt.recipe import Recipe
from pagopt.tuning.parameter import Parameter, Value
from pagopt.tuning.space import Space
from pagopt.tuning.start import first_points

ORDER = tuple(expand_heads("L7.H2 L4.H3 L3.H1"))


def space(given: Any, recipe: Recipe | None = None, order: Any = ORDER, steps: int = 12) -> Space:
    return Space(given, recipe or Recipe(heads=ORDER, strength=1.0, scale=2.0, cfg=1.0), order, steps)


def lowest(name: str, parameter: Parameter) -> Value:
    return parameter.values[0] if parameter.values else parameter.low


def last(name: str, parameter: Parameter) -> Value:
    return parameter.values[-1] if parameter.values else parameter.high


def test_what_does_not_vary_stays() -> None:
    point = space({"strength": [0.2, 0.8]}).draw(last)
    assert point.values == {"strength": 0.8}
    assert point.recipe == Recipe(heads=ORDER, strength=0.8, scale=2.0, cfg=1.0)
    assert point.steps == 12


def test_values_with_a_step_are_without_rounding_errors() -> None:
    """Optuna gives 0.4 + 2 * 0.1, which is 0.6000000000000001 and guides one step of 20 more than 0.6."""
    for low, step, high in (
        (0.4, 0.1, 1.0),
        (0.05, 0.05, 0.95),
        (0.0, 1 / 3, 1.0),
        (1e-7, 1e-8, 3e-7),
        (0.5, 25.0, 900.0),
    ):
        drawn = space({"scale": {"low": low, "high": high, "step": step}})
        count = round((high - low) / step)
        for k in range(count + 1):
            point = drawn.draw(lambda name, parameter, k=k: parameter.low + k * parameter.step)
            assert point.values["scale"] == pytest.approx(low + k * step, rel=1e-10)
            assert len(repr(point.values["scale"])) <= 16
    stops = space({"stop": {"low": 0.4, "high": 1, "step": 0.1}}, steps=20)
    assert stops.draw(lambda name, parameter: 0.4 + 2 * 0.1).recipe.interval == (0.0, 0.6)


def test_a_recipe_with_rounding_errors_is_still_a_point_of_the_space() -> None:
    recipe = Recipe(heads=ORDER, strength=0.1 + 0.2, scale=2.0, cfg=1.0)
    drawn = space({"strength": {"low": 0.1, "high": 1.0, "step": 0.1}}, recipe)
    assert first_points(drawn)[0]["as it was"].values == {"strength": 0.3}


def test_a_fixed_value_wins_over_the_recipes() -> None:
    assert space({"scale": 3.5, "strength": [0, 1]}).draw(last).recipe.scale == 3.5


def test_every_parameter_reaches_the_recipe() -> None:
    given = {
        "target": ["identity", "uniform"], "steps": [4, 8], "leading": [1, 2], "strength": [0, 0.5],
        "scale": {"low": 1, "high": 4, "log": True}, "cfg": {"choices": [1, 1.5]},
        "start": [0, 0.2], "stop": {"low": 0.5, "high": 0.9, "step": 0.1},
    }  # fmt: skip
    point = space(given).draw(last)
    assert point.recipe == Recipe(
        heads=ORDER[:2], strength=0.5, target="uniform", scale=4.0, cfg=1.5, interval=(0.2, 0.9)
    )
    assert point.steps == 8
    assert list(point.values) == ["target", "steps", "leading", "strength", "scale", "cfg", "start", "stop"]


def test_leading_heads_are_the_first_that_were_found() -> None:
    made = space({"leading": [1, 3]})
    assert made.draw(lowest).recipe.heads == (ORDER[0],)
    with pytest.raises(StudyError, match="does not say in which order its heads were found"):
        space({"leading": [1, 3]}, order=None)
    with pytest.raises(StudyError, match="goes from 1 to 4, and leading can be from 1 to 3"):
        space({"leading": [1, 4]})


def test_a_strength_for_each_head_that_takes_part() -> None:
    made = space({"leading": [1, 2], "strength": {"low": 0.1, "high": 0.9, "per_head": True}})
    asked: list[str] = []

    def ask(name: str, parameter: Parameter) -> Value:
        asked.append(name)
        return 2 if name == "leading" else {"strength L7.H2": 0.3, "strength L4.H3": 0.7}[name]

    recipe = made.draw(ask).recipe
    assert asked == ["leading", "strength L7.H2", "strength L4.H3"]
    assert dict(zip(map(str, recipe.heads), recipe.strengths, strict=True)) == {"L7.H2": 0.3, "L4.H3": 0.7}


def test_an_option_of_a_target_is_drawn_with_that_target_only() -> None:
    made = space({"target": ["identity", "blur"], "blur.sigma": [1, 4]})
    assert made.draw(lowest).values == {"target": "identity"}
    point = made.draw(last)
    assert point.values == {"target": "blur", "blur.sigma": 4.0}
    assert point.recipe.target_options == (("sigma", 4.0),)


def test_an_option_of_the_recipes_own_target_needs_no_choice() -> None:
    blurred = Recipe(heads=ORDER, target="blur", scale=2.0)
    assert space({"blur.sigma": [1, 4]}, blurred).draw(last).recipe.target_options == (("sigma", 4.0),)


def test_a_condition_on_another_choice() -> None:
    given = {
        "target": ["identity", "temperature"],
        "path": {"choices": ["straight", "fisher_rao"], "when": {"target": ["identity"]}},
    }
    made = space(given)
    assert made.draw(lowest).values == {"target": "identity", "path": "straight"}
    assert made.draw(last).values == {"target": "temperature"}
    with pytest.raises(StudyError, match="applies when target is 'blur', which the space never draws"):
        space({**given, "path": {"choices": ["straight", "fisher_rao"], "when": {"target": "blur"}}})
    with pytest.raises(StudyError, match="it can ask for the choices drawn before scale only: target"):
        space({"target": ["identity", "blur"], "scale": {"low": 1, "high": 2, "when": {"strength": 1}}})


def test_the_first_points() -> None:
    points, left = first_points(space({"strength": [0, 1], "scale": {"low": 0.5, "high": 8, "log": True}}))
    assert {name: point.values for name, point in points.items()} == {
        "no guidance": {"strength": 0.0, "scale": 2.0},
        "u = 0.5": {"strength": 0.5, "scale": 2.0},
        "as it was": {"strength": 1.0, "scale": 2.0},
    }
    assert points["no guidance"].recipe.is_plain
    assert left == {}


def test_what_the_space_does_not_hold_is_left_out_with_a_reason() -> None:
    points, left = first_points(space({"strength": [0.1, 1], "scale": [3, 8]}))
    assert points == {}
    assert left["as it was"] == "scale is 2, and the space has 3 to 8"
    points, left = first_points(space({"scale": [0, 8]}))
    assert points["no guidance"].values == {"scale": 0.0}
    assert "u = 0.5" in left, "the strength does not vary"


def test_own_strengths_of_heads_need_a_strength_for_each() -> None:
    mixed = Recipe(heads=ORDER, strength=[0.2, 0.4, 0.6], scale=2.0)
    assert "different strengths" in first_points(space({"strength": [0, 1]}, mixed))[1]["as it was"]
    points, _ = first_points(space({"strength": {"low": 0, "high": 1, "per_head": True}}, mixed))
    assert points["as it was"].recipe == mixed
    assert points["u = 0.5"].recipe.strength == 0.5


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "space is empty"),
        ({"strength": 0.5}, "nothing varies"),
        ({"strength": [0.5, 0.5]}, r"space.strength is empty: its low 0.5 must lie below its high 0.5"),
        ({"strength": [0, 1.5]}, "strength can be from 0 to 1"),
        ({"scale": [-1, 2]}, "scale can be from 0"),
        ({"cfg": [0.5, 2]}, "cfg can be from 1"),
        ({"scale": [1, 2, 3]}, r"write others as `scale: \{choices: \[1, 2, 3\]\}`"),
        ({"scale": {"low": 0, "high": 2, "log": True}}, "starts above 0"),
        ({"scale": {"low": 1, "high": 2, "step": 3}}, "step must lie above 0 and within the range"),
        ({"scale": {"low": 1}}, "give low and high"),
        ({"scale": {"low": 1, "high": "x"}}, "takes finite numbers, not 'x'"),
        ({"scale": {"low": 1, "high": 2, "per_head": True}}, "for strength only"),
        ({"steps": [4, 8.5]}, "whole numbers"),
        ({"cfg": {"choices": [2, 2]}}, "has a choice twice"),
        ({"start": [0, 0.5], "stop": [0.5, 1]}, "leave at least 1/12 between them"),
        (
            {"blur.sigma": [1, 4]},
            "space.blur.sigma is drawn only with target blur, which this space never has: it has target identity",
        ),
        ({"target": ["identity", "uniform"], "blur.sigma": 2.0}, "it has target identity or uniform. Leave blur.sigma"),
        (
            {
                "target": ["identity", "blur"],
                "path": {"choices": ["straight", "fisher_rao"], "when": {"target": "identity"}},
                "blur.sigma": {"low": 1, "high": 4, "when": {"path": "fisher_rao"}},
            },
            "drawn only with path fisher_rao and target blur, which this space never has",
        ),
        ({"target": ["uniform", "identity"], "path": ["straight", "log_linear"]}, "Say which targets a path is"),
    ],
)  # fmt: skip
def test_refuses(given: Any, message: str) -> None:
    with pytest.raises(StudyError, match=message):
        space(given)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("sclae", "Did you mean 'scale'"),
        ("blurr.sigma", "unknown perturbation target 'blurr'"),
        ("blur.sgima", "Did you mean 'sigma'"),
    ],
)
def test_an_unknown_parameter_names_the_nearest(name: str, message: str) -> None:
    with pytest.raises(UnknownName, match=message):
        space({name: [0, 1]})


def test_an_unknown_target_is_refused_before_anything_runs() -> None:
    with pytest.raises(PagoptError, match="unknown perturbation target 'identty'"):
        space({"target": ["identity", "identty"]})
