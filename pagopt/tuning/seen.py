"""A trial that is to be drawn, and what is known of it so far."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pagopt.recipe import Recipe

__all__ = ["Asked", "Seen"]


@dataclass(frozen=True)
class Asked:
    """A trial that is to be drawn.

    Attributes:
        number: Of the trial in the study.
        recipe: What to draw it with.
        steps: Inference steps.
    """

    number: int
    recipe: Recipe
    steps: int


@dataclass
class Seen:
    """What is known of a trial so far.

    Attributes:
        scores: For every reward the scores by position of the task.
        objective: The objective by position of the task.
        cause: Why it failed; empty if it did not.
    """

    scores: dict[str, dict[int, float]] = field(default_factory=dict)
    objective: dict[int, float] = field(default_factory=dict)
    cause: str = ""

    def add(self, tasks: Sequence[int], scores: Mapping[str, NDArray[np.float64]], objective: NDArray[Any]) -> None:
        """Take in what some more tasks gave, in their order."""
        for label, values in scores.items():
            self.scores.setdefault(label, {}).update(zip(tasks, values.tolist(), strict=True))
        self.objective.update(zip(tasks, objective.tolist(), strict=True))

    @property
    def mean(self) -> float:
        """Of the objective, over its tasks in their own order."""
        return float(np.mean([self.objective[task] for task in sorted(self.objective)]))

    def means(self) -> dict[str, float]:
        """Of every reward."""
        return {label: float(np.mean([row[task] for task in sorted(row)])) for label, row in self.scores.items()}
