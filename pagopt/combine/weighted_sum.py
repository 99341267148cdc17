"""The weighted sum of z-scores; one reward counts as it is."""

from __future__ import annotations

from typing import ClassVar

from pagopt.combine.combination import Combination
from pagopt.combine.scores import Array, Scores

__all__ = ["WeightedSum"]


class WeightedSum(Combination):
    """``sum_r weight_r * z_r``, where ``z_r`` is in standard deviations above the mean of the unguided images.

    A single reward counts as it is, times its weight. A loss by one reward is made up for by a gain of another.
    """

    name: ClassVar[str] = "sum"
    additive: ClassVar[bool] = True

    def values(self, scores: Scores) -> Array:
        """In the reward's own unit times its weight for one reward, else in weighted standard deviations."""
        return scores.weighted_sum(scores.terms)
