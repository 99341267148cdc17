"""Trials through one number at a time: the objective, or any reward. What charts and importances look through."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pagopt.recipe import Recipe
from pagopt.report.reading import value_name
from pagopt.tuning.outcome import TrialRow, Tuned

__all__ = ["Lens", "is_log", "lenses", "recipe_words", "settings", "shown_value"]


@dataclass(frozen=True)
class Lens:
    """One number that every trial has.

    Attributes:
        tuned: The tuning.
        name: What it is called.
        label: Of the reward; empty for the objective.
    """

    tuned: Tuned
    name: str
    label: str = ""

    def of(self, row: TrialRow) -> dict[int, float]:
        """A trial's values by position of the task; empty where it has none."""
        return row.scores.get(self.label, {}) if self.label else row.objective

    def level(self, row: TrialRow) -> float:
        """The mean over all tasks; of a trial that saw some of them, by its difference to the result on those.

        The mean of what it saw would say more about how hard these tasks are. NaN where there is nothing.
        """
        best, own = self.of(self.tuned.trial(self.tuned.best[0])), self.of(row)
        if not own or not set(own) <= set(best):
            return math.nan
        gain = np.mean([value - best[task] for task, value in own.items()])
        return float(np.mean(list(best.values())) + gain)

    def levels(self, rows: Sequence[TrialRow]) -> list[tuple[TrialRow, float]]:
        """The trials that have one, with it."""
        found = [(row, self.level(row)) for row in rows]
        return [(row, level) for row, level in found if math.isfinite(level)]

    def reference(self, method: str) -> float:
        """The mean of "no guidance" or of the recipe "as it was" on the trials' tasks; NaN where it is not known."""
        if not self.label:
            return (self.tuned.baseline if method == "no guidance" else self.tuned.as_it_was).mean
        if self.label in self.tuned.references.get(method, {}):
            return self.tuned.references[method][self.label]
        own = next((self.of(row) for row in self.tuned.trials if row.label == method), {})
        return float(np.mean(list(own.values()))) if own else math.nan


def lenses(tuned: Tuned, combine: str = "sum") -> list[Lens]:
    """The objective, then every reward that is not the objective itself."""
    found = [Lens(tuned, value_name(tuned.objective, combine))]
    labels = dict.fromkeys(label for row in tuned.trials for label in row.scores)
    for label in labels:
        same = all(row.scores.get(label, row.objective) == row.objective for row in tuned.trials)
        if not same:
            found.append(Lens(tuned, label, label))
    return found


def is_log(tuned: Tuned, name: str) -> bool:
    """Whether the space looks at a parameter on a logarithmic scale."""
    given = tuned.settings.get("space", {}).get(name.partition(" ")[0])
    return isinstance(given, Mapping) and bool(given.get("log"))


def shown_value(value: Any) -> str:
    """A parameter's value in a few characters."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def recipe_words(recipe: Recipe) -> str:
    """A recipe in one line: ``L4.H3 L7.H2 u 0.88 w 0.645 g 1 steps 0 to 0.6 identity``."""
    if not recipe.heads:
        return f"no head g {recipe.cfg or 1:g}"
    low, high = min(recipe.strengths), max(recipe.strengths)
    strength = f"{low:.3g}" if low == high else f"{low:.3g} to {high:.3g}"
    start, stop = recipe.interval
    heads = " ".join(map(str, recipe.heads))
    scales = f"u {strength} w {recipe.scale:.3g} g {recipe.cfg or 1:g}"
    return f"{heads} {scales} steps {start:.3g} to {stop:.3g} {recipe.target}"


def settings(row: TrialRow) -> str:
    """The parameters of a trial in one line."""
    return ", ".join(f"{name} {shown_value(value)}" for name, value in row.parameters.items())
