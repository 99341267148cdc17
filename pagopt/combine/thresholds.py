"""Thresholds: the best by one reward among the recipes that are good enough by others.

As the authors of HeadHunter rank heads (by CLIP score among those with PickScore >= 20 and aesthetic score >= 6).
Where a recipe fails, the rules of Deb, "An efficient constraint handling method for genetic algorithms", Computer
Methods in Applied Mechanics and Engineering 186 (2000), doi 10.1016/S0045-7825(99)00389-8, apply: whatever passes
comes before whatever fails, and what fails is ordered by how far it misses.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from pagopt.combine.combination import Combination
from pagopt.combine.scores import Array, Scores, Term, row_means
from pagopt.errors import RewardError

__all__ = ["Thresholds"]


class Thresholds(Combination):
    """Rewards with ``at_least`` or ``at_most`` are conditions on a recipe's mean; the others rank.

    Several that rank are summed as in :class:`~pagopt.combine.weighted_sum.WeightedSum`. A limit is a number in the
    reward's own unit, or measured against the unguided images of the same tasks.
    """

    name: ClassVar[str] = "thresholds"
    fields: ClassVar[frozenset[str]] = frozenset({"at_least", "at_most"})

    def check(self, terms: Sequence[Term]) -> None:
        """Needs a condition that can be met and a reward to rank by; a condition has no weight."""
        super().check(terms)
        conditions = [term for term in terms if term.limits]
        if not conditions:
            raise RewardError("`combine: thresholds` needs at_least (or at_most) on at least one of the rewards")
        if len(conditions) == len(terms):
            raise RewardError(
                "`combine: thresholds` needs a reward to rank by: leave at_least and at_most away from at least one"
            )
        for term in conditions:
            if term.weight != 1:
                raise RewardError(
                    f"reward {term.label!r} has a threshold and the weight {term.weight:g}, and a condition has no "
                    "weight: leave it out, and write at_most where lower is better",
                    reward=term.label,
                )
            least, most = term.limits.get("at_least"), term.limits.get("at_most")
            # Others can be compared only when the unguided images are known.
            if least and most and least.relative == most.relative and least.number > most.number:
                raise RewardError(
                    f"no recipe can meet both at_least {least.rule} and at_most {most.rule} of reward {term.label!r}: "
                    "at_most must not be below at_least",
                    reward=term.label,
                )

    def values(self, scores: Scores) -> Array:
        """What recipes that pass are ranked by; whether a recipe passes does not show in it."""
        return scores.weighted_sum([term for term in scores.terms if not term.limits])

    def misses(self, scores: Scores) -> Array:
        """How far every recipe misses, shape ``(n_recipes,)``; 0 for those that pass.

        Of one reward in its own unit; those of several are summed in standard deviations of the unguided images.
        """
        conditions = {term.label: term for term in scores.terms if term.limits}
        total = np.zeros(scores.recipes)
        for limit in scores.limits():
            term = conditions[limit.reward]
            unit = scores.scale(term)[1] if len(conditions) > 1 else 1.0
            total += np.array([limit.miss(mean) for mean in scores.mean(term).tolist()]) / unit
        return total

    def order(self, scores: Scores) -> NDArray[np.intp]:
        """Those that pass by their values, then the others by how far they miss."""
        return np.lexsort((-row_means(self.values(scores)), self.misses(scores)))
