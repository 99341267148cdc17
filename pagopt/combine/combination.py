"""What every combination of rewards does."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from pagopt.combine.scores import Array, Scores, Term, row_means
from pagopt.errors import RewardError

__all__ = ["Combination"]


class Combination(ABC):
    """One way to turn the scores of several rewards into an order of recipes.

    All of them respect dominance: of two recipes, the one that is better by every reward on every task comes first.
    None depends on the order in which recipes are given, except for exact ties, which go to the earlier one.

    Attributes:
        name: As a study writes it.
        additive: Whether the order is that of the means of :meth:`values` over the tasks.
        fields: The fields of a term, besides its weight, that it reads: "at_least", "at_most", "tolerance".
    """

    name: ClassVar[str]
    additive: ClassVar[bool] = False
    fields: ClassVar[frozenset[str]] = frozenset()

    def check(self, terms: Sequence[Term]) -> None:
        """Called once, before anything is drawn.

        Raises:
            RewardError: If these terms cannot be combined in this way.
        """
        for term in terms:
            asked = [*term.limits, *(["tolerance"] if term.tolerance else [])]
            for field in asked:
                if field not in self.fields:
                    user = "lexicographic" if field == "tolerance" else "thresholds"
                    raise RewardError(
                        f"{field} of reward {term.label!r} means nothing in the combination {self.name!r}: "
                        f"write `combine: {user}`, or leave {field} out",
                        reward=term.label,
                    )
        if len(terms) < 2 and self.name != "sum":
            raise RewardError(
                f"`combine: {self.name}` needs at least two rewards, and there is only {terms[0].label!r}: add one, "
                "or leave combine out"
            )

    @abstractmethod
    def values(self, scores: Scores) -> Array:
        """One number an image, shape ``(n_recipes, n_tasks)``: what differences on paired tasks are taken of."""

    def order(self, scores: Scores) -> NDArray[np.intp]:
        """Positions of the recipes, best first, shape ``(n_recipes,)``; ties go to the earlier recipe."""
        return np.argsort(-row_means(self.values(scores)), kind="stable")
