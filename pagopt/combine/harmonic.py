"""The harmonic mean: good by all rewards at once.

On positive numbers a harmonic mean stays near the smallest of them, so a gain by one reward cannot make up for a loss
by another. Raw scores will not do: many rewards go below 0, and the mean would follow the reward with the smallest
numbers, that is, the choice of units. So each score is first made a positive number without a unit: ``exp(z)``, with
``z`` in standard deviations above the mean of the unguided images. What counts is the logarithm of the weighted
harmonic mean of these,

    log(sum_r v_r / sum_r (v_r * exp(-z_r))) = -log(sum_r v_r exp(-z_r) / sum_r v_r)

with weights ``v_r``. It is in standard deviations again, 0 for the mean unguided image, and ``z`` where all rewards
give ``z``; it lies between the smallest ``z_r`` and their weighted mean. Quantiles of the unguided images (the normal
distribution function of ``z``) would be positive as well, but they are all next to 1 from three standard deviations
on, where guided images often are, and could not be told apart there.

As an aggregate of losses this is the tilted mean with parameter -1 of the utilities: Li, Beirami, Sanjabi, Smith,
"Tilted Empirical Risk Minimization", ICLR 2021, https://arxiv.org/abs/2007.01162. The paper of HeadHunter has a
harmonic mean of two raw scores among its objectives.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from pagopt.combine.combination import Combination
from pagopt.combine.scores import Array, Scores, Term
from pagopt.errors import RewardError

__all__ = ["Harmonic"]


class Harmonic(Combination):
    """Logarithm of the weighted harmonic mean of ``exp(z)``, image by image; see the module for why."""

    name: ClassVar[str] = "harmonic"
    additive: ClassVar[bool] = True

    def check(self, terms: Sequence[Term]) -> None:
        """Refuses negative weights, with which a harmonic mean is none."""
        super().check(terms)
        for term in terms:
            if term.weight < 0:
                raise RewardError(
                    f"a harmonic mean has no negative weights, and that of {term.label!r} is {term.weight:g}: use a "
                    "reward of the opposite sign, or `combine: sum`",
                    reward=term.label,
                )

    def values(self, scores: Scores) -> Array:
        """In standard deviations above the unguided mean."""
        total = np.log(sum(term.weight for term in scores.terms))
        losses = [np.log(term.weight) - scores.z(term) for term in scores.terms]
        value: Array = total - np.logaddexp.reduce(losses, axis=0)
        return value
