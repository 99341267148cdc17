"""Scores that were asked for once are not asked for again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pagopt.combine import Ranking
from pagopt.recipe import Recipe
from pagopt.search.interface import Evaluate, pays_for, ranked

__all__ = ["Memory"]

Array = NDArray[np.float64]


@dataclass
class Row:
    """A recipe's scores, NaN where there is none; ``parts`` by reward."""

    values: Array
    parts: dict[str, Array] = field(default_factory=dict)


class Memory:
    """Ranks recipes as ``evaluate`` does, and asks it only for those (recipe, task) that are new.

    An order that is not that of the means depends on who is compared (:attr:`pagopt.combine.Ranking.additive`), so for
    such objectives all of a batch are asked for. A run's store has their images even then.

    Args:
        evaluate: Scores recipes.
        tasks: How many search tasks there are.

    Attributes:
        images: How many (recipe, task) were asked for.
        additive: Whether the objective's order is that of the means; ``None`` before the first call.
    """

    def __init__(self, evaluate: Evaluate, tasks: int) -> None:
        self.evaluate = evaluate
        self.tasks = tasks
        self.images = 0
        self.additive: bool | None = None
        self._rows: dict[str, Row] = {}

    def price(self, recipes: Sequence[Recipe]) -> int:
        """How many (recipe, task) would be asked for now, on all tasks; distinct recipes."""
        if not self.additive:
            return len(recipes) * self.tasks
        return sum(len(self._missing(recipe.key(), range(self.tasks))) for recipe in recipes)

    def pays_for(self, images: int) -> None:
        """See :func:`pagopt.search.interface.pays_for`."""
        pays_for(self.evaluate, images)

    def __call__(self, recipes: Sequence[Recipe], tasks: Sequence[int] | None = None, part: float = 1.0) -> Ranking:
        """As :class:`~pagopt.search.interface.Evaluate`; recipes of one batch are distinct."""
        if part != 1:
            return ranked(
                self.evaluate(recipes, tasks, part), len(recipes), self.tasks if tasks is None else len(tasks)
            )
        columns = list(range(self.tasks)) if tasks is None else list(tasks)
        if not self.additive:
            ranking = self._ask(recipes, columns)
            self.additive = ranking.additive
            return ranking
        keys = [recipe.key() for recipe in recipes]
        groups: dict[tuple[int, ...], list[Recipe]] = {}
        for key, recipe in zip(keys, recipes, strict=True):
            if missing := self._missing(key, columns):
                groups.setdefault(missing, []).append(recipe)
        for missing, new in groups.items():
            self._ask(new, missing)
        rows = [self._rows[key] for key in keys]
        ordered = Ranking.by_mean(np.array([row.values[columns] for row in rows]))
        parts = {label: np.array([row.parts[label][columns] for row in rows]) for label in rows[0].parts}
        return Ranking(ordered.values, ordered.order, True, parts)

    def _missing(self, key: str, columns: Sequence[int]) -> tuple[int, ...]:
        row = self._rows.get(key)
        return tuple(t for t in columns if row is None or np.isnan(row.values[t]))

    def _ask(self, recipes: Sequence[Recipe], columns: Sequence[int]) -> Ranking:
        whole = list(columns) == list(range(self.tasks))
        scored = self.evaluate(recipes) if whole else self.evaluate(recipes, columns)
        ranking = ranked(scored, len(recipes), len(columns))
        self.images += len(recipes) * len(columns)
        for i, recipe in enumerate(recipes):
            row = self._rows.setdefault(recipe.key(), Row(np.full(self.tasks, np.nan)))
            row.values[list(columns)] = ranking.values[i]
            for label, table in ranking.parts.items():
                part = row.parts.setdefault(label, np.full(self.tasks, np.nan))
                part[list(columns)] = table[i]
        return ranking
