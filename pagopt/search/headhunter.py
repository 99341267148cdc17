"""HeadHunter: greedy selection of attention heads (paper, Algorithm 1).

Ahn et al., "Where and How to Perturb: On the Design of Perturbation Guidance in Diffusion and Flow Models",
NeurIPS 2025, https://arxiv.org/abs/2506.10978.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pagopt.errors import StudyError
from pagopt.heads import Head
from pagopt.recipe import Recipe
from pagopt.results import Estimate, Round

__all__ = ["Evaluate", "HeadHunter"]

Evaluate = Callable[[Sequence[Recipe]], NDArray[np.float64]]
"""Scores recipes on the search tasks: shape ``(n_recipes, n_tasks)``, higher is better."""


@dataclass(frozen=True)
class HeadHunter:
    """In every round, try each remaining head together with those selected so far, and keep the best.

    Args:
        rounds: R of the paper, at least 1.
        heads_per_round: k of the paper, at least 1.

    Raises:
        StudyError: If a number is below 1.
    """

    rounds: int = 5
    heads_per_round: int = 3

    def __post_init__(self) -> None:
        for name in ("rounds", "heads_per_round"):
            if getattr(self, name) < 1:
                raise StudyError(f"{name} must be at least 1, not {getattr(self, name)}")

    def candidates(self, pool: int) -> int:
        """Number of recipes scored over ``pool`` heads, the selections after each round included."""
        return sum(pool - r * self.heads_per_round + 1 for r in range(self.rounds))

    def run(
        self,
        evaluate: Evaluate,
        pool: Sequence[Head],
        recipe: Recipe,
        on_round: Callable[[Round], None] | None = None,
    ) -> tuple[Recipe, list[Round]]:
        """Search.

        Args:
            evaluate: Scores a batch of recipes on the search tasks.
            pool: The heads to choose from.
            recipe: Gives everything but the heads: target, strength, scale, CFG, interval.
            on_round: Called at the end of every round.

        Returns:
            The recipe with the ``rounds * heads_per_round`` selected heads, and the trace of the rounds. As in the
            paper there is no early stop. Ties go to the earlier head.

        Raises:
            StudyError: If the pool is too small.
        """
        remaining = sorted(set(pool))
        needed = self.rounds * self.heads_per_round
        if len(remaining) < needed:
            raise StudyError(
                f"{self.rounds} rounds of {self.heads_per_round} heads need {needed} heads to choose from, "
                f"but there are {len(remaining)}; lower rounds or heads_per_round, or widen heads"
            )
        selected: list[Head] = []
        rounds: list[Round] = []
        for number in range(1, self.rounds + 1):
            table = evaluate([recipe.replace(heads=(*selected, head)) for head in remaining])
            means = table.mean(axis=1)
            best = [remaining[i] for i in np.argsort(-means, kind="stable")[: self.heads_per_round]]
            base = tuple(str(head) for head in sorted(selected))
            selected += best
            done = Round(
                number=number,
                base=base,
                scores={str(head): Estimate.of(row) for head, row in zip(remaining, table, strict=True)},
                chosen=tuple(str(head) for head in best),
                score=Estimate.of(evaluate([recipe.replace(heads=tuple(selected))])[0]),
            )
            remaining = [head for head in remaining if head not in best]
            rounds.append(done)
            if on_round is not None:
                on_round(done)
        return recipe.replace(heads=tuple(selected)), rounds
