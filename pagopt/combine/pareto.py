"""Pareto: fronts of recipes that nothing beats by all rewards at once.

Non-dominated sorting: Deb, Pratap, Agarwal, Meyarivan, "A fast and elitist multiobjective genetic algorithm:
NSGA-II", IEEE Transactions on Evolutionary Computation 6 (2002), doi 10.1109/4235.996017. Inside a front the weighted
sum of z-scores decides, not NSGA-II's crowding distance: that keeps a population spread out, and would here choose
the extremes first. The weighted sum is highest on the first front, so the very best recipe is that of ``sum``; it is
from the second on that the two orders differ.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from pagopt.combine.combination import Combination
from pagopt.combine.scores import Array, Scores, row_means
from pagopt.errors import RewardError

__all__ = ["Pareto", "fronts"]


class Pareto(Combination):
    """By the number of the front, and inside a front by the weighted sum of z-scores.

    Fronts are those of the recipes' means. The sign of a weight says which direction is better.
    """

    name: ClassVar[str] = "pareto"

    def values(self, scores: Scores) -> Array:
        """The weighted sum of z-scores."""
        return scores.weighted_sum(scores.terms)

    def fronts(self, scores: Scores) -> NDArray[np.intp]:
        """The front of every recipe, shape ``(n_recipes,)``, from 0."""
        return fronts(np.stack([term.sign * scores.mean(term) for term in scores.terms], axis=1))

    def order(self, scores: Scores) -> NDArray[np.intp]:
        """Front by front."""
        return np.lexsort((-row_means(self.values(scores)), self.fronts(scores)))


def fronts(points: Array) -> NDArray[np.intp]:
    """Non-dominated sorting.

    Args:
        points: Shape ``(n, k)``, finite, higher is better. Takes memory for n * n truth values.

    Returns:
        The number of the front of each, shape ``(n,)``: 0 for those that nothing dominates, 1 for those that only the
        first front dominates, and so on. A point dominates another that is nowhere higher and somewhere lower; equal
        points share a front.

    Raises:
        RewardError: For another shape, or numbers that are not finite.
    """
    points = np.asarray(points, dtype=np.float64)
    if points.ndim != 2 or not np.isfinite(points).all():
        raise RewardError(f"points to sort into fronts must be finite numbers of shape (n, k), not {points.shape}")
    nowhere_lower = np.ones((len(points), len(points)), dtype=bool)
    for column in points.T:
        nowhere_lower &= column[:, None] >= column[None, :]
    dominates = nowhere_lower & ~nowhere_lower.T
    above = dominates.sum(axis=0)
    number = np.full(len(points), -1, dtype=np.intp)
    front = 0
    while (number < 0).any():
        members = (above == 0) & (number < 0)
        number[members] = front
        above -= dominates[members].sum(axis=0)
        front += 1
    return number
