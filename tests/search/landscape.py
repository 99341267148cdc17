"""Scores made up of heads, pairs of heads, tasks and noise: a search's world without images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pagopt.heads import Head
from pagopt.recipe import Recipe


class World:
    """Head effects with standard deviation 1; a head's effect on a task varies by ``noise`` around it."""

    def __init__(
        self,
        seed: int,
        heads: int = 48,
        tasks: int = 16,
        noise: float = 1.5,
        pair: float = 0.2,
        heads_per_block: int = 6,
    ) -> None:
        chance = np.random.default_rng(seed)
        self.pool = [Head(i // heads_per_block, i % heads_per_block) for i in range(heads)]
        self.effect = dict(zip(self.pool, chance.normal(size=heads), strict=True))
        self.own = {head: chance.normal(scale=noise, size=tasks) for head in self.pool}
        self.task = chance.normal(scale=3, size=tasks) + 50
        self.pairs = {(a, b): chance.normal(scale=pair) for a in self.pool for b in self.pool if a < b}
        self.drawn: list[tuple[tuple[Head, ...], int]] = []
        self.looked: list[tuple[tuple[Head, ...], int, float]] = []
        self.honest = True

    def truth(self, heads: Sequence[Head]) -> float:
        """The expected score over all tasks that there could be, up to a constant."""
        return sum(self.effect[h] for h in heads) + sum(self.pairs[a, b] for a in heads for b in heads if a < b)

    def __call__(
        self, recipes: Sequence[Recipe], tasks: Sequence[int] | None = None, part: float = 1.0
    ) -> NDArray[np.float64]:
        columns = list(range(len(self.task))) if tasks is None else list(tasks)
        if part < 1:
            self.looked += [(recipe.heads, task, part) for recipe in recipes for task in columns]
            return self.look([recipe.heads for recipe in recipes], columns)
        self.drawn += [(recipe.heads, task) for recipe in recipes for task in columns]
        return np.array(
            [self.truth(r.heads) + self.task[columns] + sum(self.own[h] for h in r.heads)[columns] for r in recipes]
        )

    def look(self, heads: Sequence[Sequence[Head]], columns: Sequence[int]) -> NDArray[np.float64]:
        """What fewer steps show: on another scale, and blurred; or something else altogether."""
        sign = 1.0 if self.honest else -1.0
        return np.array(
            [0.3 * (sign * self.truth(row) + sum(self.own[h] for h in row)[list(columns)]) for row in heads]
        )
