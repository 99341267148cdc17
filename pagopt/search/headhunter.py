"""HeadHunter: greedy selection of attention heads (paper, Algorithm 1).

Ahn et al., "Where and How to Perturb: On the Design of Perturbation Guidance in Diffusion and Flow Models",
NeurIPS 2025, https://arxiv.org/abs/2506.10978.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pagopt.heads import Head
from pagopt.recipe import Recipe
from pagopt.results import Estimate, Round
from pagopt.search.interface import (
    Evaluate,
    Found,
    OnRound,
    check_counts,
    check_enough,
    check_pool,
    count_of,
    estimates,
    pays_for,
    ranked,
)

__all__ = ["HeadHunter"]


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
        check_counts(self.rounds, self.heads_per_round)

    def images(self, pool: int | Sequence[Head], tasks: int) -> int:
        """Exactly what it asks for: every head of the pool in every round, and the selection after each."""
        heads = count_of(pool)
        check_enough(heads, self.rounds, self.heads_per_round)
        return tasks * sum(heads - r * self.heads_per_round + 1 for r in range(self.rounds))

    def run(
        self, evaluate: Evaluate, pool: Sequence[Head], recipe: Recipe, tasks: int, on_round: OnRound | None = None
    ) -> Found:
        """Search; see :meth:`pagopt.search.interface.Search.run`.

        Returns:
            The recipe with the ``rounds * heads_per_round`` selected heads, and the trace of the rounds. As in the
            paper there is no early stop. Ties go to the earlier head.
        """
        remaining = check_pool(pool, self.rounds, self.heads_per_round)
        selected: list[Head] = []
        rounds: list[Round] = []
        for number in range(1, self.rounds + 1):
            pays_for(evaluate, (len(remaining) + 1) * tasks)
            recipes = [recipe.replace(heads=(*selected, head)) for head in remaining]
            ranking = ranked(evaluate(recipes), len(recipes), tasks)
            best = [remaining[i] for i in ranking.order[: self.heads_per_round]]
            base = tuple(str(head) for head in sorted(selected))
            selected += best
            names = [str(head) for head in remaining]
            selection = ranked(evaluate([recipe.replace(heads=tuple(selected))]), 1, tasks)
            done = Round(
                number=number,
                base=base,
                scores=estimates(names, ranking.values),
                chosen=tuple(str(head) for head in best),
                score=Estimate.of(selection.values[0]),
                parts={label: estimates(names, table) for label, table in ranking.parts.items()},
                score_parts={label: Estimate.of(table[0]) for label, table in selection.parts.items()},
                order=() if ranking.additive else tuple(names[i] for i in ranking.order),
            )
            remaining = [head for head in remaining if head not in best]
            rounds.append(done)
            if on_round is not None:
                on_round(done)
        return recipe.replace(heads=tuple(selected)), rounds
