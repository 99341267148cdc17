"""Recipes in order, with the numbers that the order comes from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

__all__ = ["Ranking"]


@dataclass(frozen=True)
class Ranking:
    """How some recipes stand.

    Attributes:
        values: One number an image, shape ``(n_recipes, n_tasks)``, higher is better.
        order: Positions of the recipes, best first, shape ``(n_recipes,)``.
        additive: Whether the order is that of the means of ``values``. If so, differences of two rows say which recipe
            is better; if not, they say so for one part of the objective only.
        parts: For several rewards each one's scores by label, in its own unit, shape ``(n_recipes, n_tasks)``.
    """

    values: NDArray[np.float64]
    order: NDArray[np.intp]
    additive: bool = True
    parts: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)

    @classmethod
    def by_mean(cls, values: NDArray[np.float64]) -> Ranking:
        """Recipes in the order of their means; ties go to the earlier one."""
        return cls(values, np.argsort(-values.mean(axis=1), kind="stable"))
