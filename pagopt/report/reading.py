"""Reading a search's results: which method plays which part, means with standard errors, numbers in words."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pagopt.recipe import Recipe
from pagopt.results import Estimate, Method, PairedTest, Results

__all__ = [
    "Row",
    "counted",
    "decimals",
    "measured",
    "number",
    "objective_name",
    "p_text",
    "paired",
    "read_rows",
    "shown_test",
    "signed",
    "value_name",
]


@dataclass(frozen=True)
class Row:
    """A method of the comparison, ready to be shown.

    Attributes:
        name: Its name in the results.
        role: "none" (no guidance), "cfg", "layer" (another recipe) or "found"; decides its colour.
        recipe: What it does.
        strength: Strength u in words: "0.5", "0.2 to 1", or "" where no head is perturbed.
        objective: Of the held-out tasks.
        rewards: Of the held-out tasks, by reward.
        test: The found recipe against this method, if it was compared; see :func:`shown_test`.
    """

    name: str
    role: str
    recipe: Recipe
    strength: str
    objective: Estimate
    rewards: dict[str, Estimate]
    test: PairedTest | None


def read_rows(results: Results) -> list[Row]:
    """One row a method, in the order of the results."""
    tests = {test.against: test for test in results.tests}
    found = len(results.methods) - 1
    prompts = results.held_out_prompts
    return [
        _row(method, index == found, tests.get(method.name), prompts) for index, method in enumerate(results.methods)
    ]


def _row(method: Method, is_found: bool, test: PairedTest | None, prompts: Sequence[str]) -> Row:
    recipe = Recipe.from_dict(method.recipe)
    role = "layer"
    if is_found:
        role = "found"
    elif recipe.is_plain:
        role = "none" if recipe.cfg is None or recipe.cfg == 1 else "cfg"
    strength = ""
    if recipe.heads:
        low, high = min(recipe.strengths), max(recipe.strengths)
        strength = f"{low:.3g}" if low == high else f"{low:.3g} to {high:.3g}"
    return Row(
        name=method.name,
        role=role,
        recipe=recipe,
        strength=strength,
        objective=_estimate(method.objective, prompts),
        rewards={name: _estimate(values, prompts) for name, values in method.rewards.items()},
        test=shown_test(test, prompts) if test else None,
    )


def shown_test(test: PairedTest, prompts: Sequence[str]) -> PairedTest:
    """As it is shown: of a single task neither error nor p-value are known.

    Args:
        test: A test as results have it, where such an error is 0 and such a p-value 1.
        prompts: Those of the tasks.
    """
    return test if len(prompts) > 1 else replace(test, se=math.nan, p_value=math.nan)


def _estimate(values: Sequence[float], prompts: Sequence[str] | None) -> Estimate:
    """As it is shown: the error of a single task is not 0, it is unknown."""
    if not values:
        return Estimate(math.nan, math.nan)
    estimate = Estimate.of(values, prompts)
    return estimate if len(values) > 1 else Estimate(estimate.mean, math.nan)


def paired(after: Sequence[float], before: Sequence[float], prompts: Sequence[str] | None = None) -> Estimate:
    """Mean difference over the same tasks, with its standard error; over prompts, if these are given."""
    return _estimate([a - b for a, b in zip(after, before, strict=True)], prompts)


def objective_name(objective: Iterable[Mapping[str, Any]], combine: str = "sum") -> str:
    """The objective in a few characters.

    ``style:flat + 0.5 x clip``, ``harmonic mean of style:flat and clip``, ``style:flat where clip at least baseline``,
    ``style:flat (tolerance 1 se), then clip``, ``Pareto order of style:flat and clip``.
    """
    terms = list(objective)
    if combine == "thresholds":
        conditions = [
            f"{reward_name(item)} {kind.replace('_', ' ')} {_written(item[kind])}"
            for item in terms
            for kind in ("at_least", "at_most")
            if kind in item
        ]
        return f"{value_name(terms, combine)} where {' and '.join(conditions)}"
    if combine == "lexicographic":
        parts = [
            _weighted(item) + (f" (tolerance {_written(item['tolerance'])})" if "tolerance" in item else "")
            for item in terms
        ]
        return ", then ".join(parts)
    if combine == "pareto":
        return f"Pareto order of {_listed(map(_weighted, terms))}"
    return value_name(terms, combine)


def value_name(objective: Iterable[Mapping[str, Any]], combine: str = "sum") -> str:
    """What a picture's number is: of an order by several rewards the part that paired tests look at."""
    terms = list(objective)
    if combine == "harmonic":
        return f"harmonic mean of {_listed(map(_weighted, terms))}"
    if combine == "thresholds":
        terms = [item for item in terms if "at_least" not in item and "at_most" not in item]
    if combine == "lexicographic":
        terms = terms[:1]
    return " + ".join(map(_weighted, terms)) or "objective"


def _weighted(item: Mapping[str, Any]) -> str:
    weight = float(item.get("weight", 1.0))
    return reward_name(item) if weight == 1 else f"{weight:g} \N{MULTIPLICATION SIGN} {reward_name(item)}"


def _written(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:g}"


def _listed(words: Iterable[str]) -> str:
    *most, last = words
    return f"{', '.join(most)} and {last}" if most else last


def reward_name(item: Mapping[str, Any]) -> str:
    """A reward and its simple arguments: ``style:flat``. Of a path or an import path only the last part is left."""
    name = str(item.get("name", "reward")).rsplit("/", 1)[-1].rsplit(":", 1)[-1]
    values = [str(value) for value in dict(item.get("args") or {}).values() if isinstance(value, str | int | float)]
    return ":".join([name, *(value.rsplit("/", 1)[-1] for value in values)])


def counted(number: int, what: str) -> str:
    """``1 task``, ``1,368 heads``."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def decimals(errors: Iterable[float]) -> int:
    """Decimal places for values with these standard errors: one digit of the largest, two if it begins with a 1.

    At most 8, and 3 if there is no error to go by.
    """
    known = [error for error in errors if math.isfinite(error) and error > 0]
    if not known:
        return 3
    first = -math.floor(math.log10(max(known)))
    return min(8, max(0, first + int(max(known) * 10.0**first < 1.95)))


def number(value: float, places: int) -> str:
    """A number with a real minus sign; an en dash where there is none."""
    if not math.isfinite(value):
        return "\N{EN DASH}"
    text = f"{value:.{places}f}"
    if float(text) == 0:
        text = text.lstrip("-")
    return text.replace("-", "\N{MINUS SIGN}")


def signed(value: float, places: int) -> str:
    """Like :func:`number`, with a plus sign before what is above zero."""
    return f"+{number(value, places)}" if 0 < value < math.inf else number(value, places)


def measured(mean: float, se: float, places: int, sign: bool = False) -> str:
    """``0.21 ± 0.02``, without the error where there is none."""
    text = signed(mean, places) if sign else number(mean, places)
    return f"{text} \N{PLUS-MINUS SIGN} {number(se, places)}" if math.isfinite(se) else text


def p_text(p_value: float) -> str:
    """``p = 0.012``, ``p < 0.001``, or that there is none."""
    if not math.isfinite(p_value):
        return "no p-value"
    return "p < 0.001" if p_value < 0.001 else f"p = {p_value:.2f}" if p_value >= 0.1 else f"p = {p_value:.3f}"
