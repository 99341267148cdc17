"""One round of a race: which of some recipes are the best, for as few images as possible.

Successive halving (Karnin, Koren, Somekh, "Almost optimal exploration in multi-armed bandits", ICML 2013) bounds how
many go on from rung to rung; confidence bounds on paired differences (Maron and Moore, "The racing algorithm",
Artificial Intelligence Review 1997) let clearly worse ones go earlier, and hand what they leave to the close ones.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pagopt.errors import StudyError
from pagopt.recipe import Recipe
from pagopt.search.evidence import Belief, believe
from pagopt.search.interface import Evaluate, ranked

__all__ = ["FIRST", "Race", "Rung", "rungs"]

FIRST = 2
"""Tasks of the first rung: with one, nothing tells differences from noise."""

FAINT = 1 / 3
"""In a large pool every head has a small chance. One goes only below this part of what all have if nothing is known."""


@dataclass(frozen=True)
class Rung:
    """One stage of a race.

    Attributes:
        candidates: How many take part.
        tasks: How many tasks each of them has seen when it is over.
    """

    candidates: int
    tasks: int


def rungs(candidates: int, tasks: int, best: int, budget: int, seen: int = 0, first: int = FIRST) -> list[Rung]:
    """The stages that are left of a race, with as many candidates in each as the budget allows.

    The tasks double from rung to rung, and the candidates shrink by one factor.

    Args:
        candidates: How many are in the race.
        tasks: Tasks there are.
        best: How many are to be chosen; never fewer than one more go on.
        budget: Images that may be drawn.
        seen: Tasks that all of them have seen.
        first: Tasks of the first rung.
    """
    counts = [seen]
    while counts[-1] < tasks:
        counts.append(min(tasks, 2 * counts[-1] or first))
    fewest = min(candidates, best + 1)

    def plan(shrink: float) -> list[Rung]:
        stages = range(bool(seen), len(counts) - 1 + bool(seen))
        sizes = [max(fewest, math.ceil(candidates * shrink**stage - 1e-9)) for stage in stages]
        return [Rung(size, count) for size, count in zip(sizes, counts[1:], strict=True)]

    def cost(stages: Sequence[Rung]) -> int:
        return sum(stage.candidates * (stage.tasks - before) for stage, before in zip(stages, counts, strict=False))

    low, high = 0.0, 1.0
    if cost(plan(high)) <= budget:
        return plan(high)
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if cost(plan(middle)) <= budget else (low, middle)
    planned = plan(low)
    while planned and cost(planned) > budget:  # even the fewest candidates cannot see every task
        planned.pop()
    return planned


class Race:
    """One round: which of these recipes are the best?

    Args:
        evaluate: Scores them.
        recipes: The candidates.
        order: The tasks in the order in which they are drawn.
        best: How many are to be chosen.
        earlier: What was believed of the candidates before; see :func:`~pagopt.search.evidence.believe`.

    Attributes:
        table: Scores so far, ``(n_recipes, n_tasks)``, NaN where there is none.
        belief: What they say.
    """

    belief: Belief

    def __init__(
        self,
        evaluate: Evaluate,
        recipes: Sequence[Recipe],
        order: Sequence[int],
        best: int,
        earlier: Belief | None = None,
    ) -> None:
        self.evaluate = evaluate
        self.recipes = list(recipes)
        self.order = list(order)
        self.best = best
        self.earlier = earlier
        self.table = np.full((len(self.recipes), len(self.order)), np.nan)

    @property
    def seen(self) -> NDArray[np.int_]:
        """How many tasks each candidate has seen."""
        seen: NDArray[np.int_] = np.count_nonzero(~np.isnan(self.table), axis=1)
        return seen

    @property
    def images(self) -> int:
        """Images so far."""
        return int(self.seen.sum())

    def run(self, budget: int, confidence: float, first: int = FIRST) -> NDArray[np.intp]:
        """Draw until the best are found or the budget is used up; returns their positions, best first.

        Raises:
            StudyError: If the budget does not pay for the first rung.
        """
        alive, seen = np.arange(len(self.recipes)), 0
        hopeless = min(1 - confidence, FAINT * self.best / len(self.recipes))
        while seen < len(self.order) and (not seen or len(alive) > self.best):
            stages = rungs(len(alive), len(self.order), self.best, budget - self.images, seen, first)
            if not stages:
                break
            if seen:
                alive = alive[np.argsort(-self.belief.mean[alive], kind="stable")[: stages[0].candidates]]
            tasks = self.order[seen : stages[0].tasks]
            ranking = ranked(self.evaluate([self.recipes[i] for i in alive], tasks), len(alive), len(tasks))
            self.table[np.ix_(alive, np.array(tasks))] = ranking.values
            seen = stages[0].tasks
            self.belief = believe(self.table[:, self.order[:seen]], self.earlier)
            alive = alive[self.belief.chances(self.best)[alive] >= hopeless]
        if not seen:
            need = len(self.recipes) * min(first, len(self.order))
            raise StudyError(
                f"a race of {len(self.recipes)} heads draws {need} images before the first of them can go, and the "
                f"budget has {budget} left for it. Raise the budget, or choose from fewer heads or rounds."
            )
        return self.belief.order()[: self.best]
