"""A budget in images or time, and what is done when it is used up: stop at the best recipe so far."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pagopt.combine import Ranking
from pagopt.errors import StudyError
from pagopt.recipe import Recipe
from pagopt.search.interface import Evaluate

__all__ = ["Allowance", "Budget", "Spent"]

UNITS = {"h": 3600.0, "m": 60.0, "min": 60.0, "s": 1.0}
TIME = re.compile(r"(?:\d+(?:\.\d+)?(?:h|min|m|s))+")
IMAGES = re.compile(r"(\d+)[- ]?images?")


@dataclass(frozen=True)
class Budget:
    """What a run may cost: a number of images or a time, and only one of them.

    Attributes:
        images: Images that the run looks at, the comparison at the end included.
        seconds: Time from the start of the run.
    """

    images: int | None = None
    seconds: float | None = None

    @classmethod
    def parse(cls, text: str) -> Budget:
        """From "500-images", "2h", "90m", "1h30m" or "45s".

        Raises:
            StudyError: If it is none of these, or nothing.
        """
        word = text.strip().lower()
        if match := IMAGES.fullmatch(word):
            budget = cls(images=int(match[1]))
        elif TIME.fullmatch(word):
            parts = re.findall(r"(\d+(?:\.\d+)?)(h|min|m|s)", word)
            budget = cls(seconds=sum(float(number) * UNITS[unit] for number, unit in parts))
        else:
            raise StudyError(f'budget is {text!r}: write a number of images as "500-images", a time as "2h" or "1h30m"')
        if not (budget.images or budget.seconds):
            raise StudyError(f"budget is {text!r}: that pays for nothing")
        return budget


class Spent(Exception):
    """The next images would go beyond the budget."""


@dataclass
class Allowance:
    """Stands between a search and its images, and stops it before it goes beyond the budget.

    Args:
        evaluate: Scores recipes.
        tasks: The number of search tasks.
        images: Images that may be asked for; ``None`` is any number.
        until: When it has to be over, by :func:`time.monotonic`; ``None`` is never.
        pace: Seconds an image takes, for ``until``.
        agree: Makes all processes take the first one's word, since their clocks differ.

    Attributes:
        asked: Images asked for so far, those that the store had included.
    """

    evaluate: Evaluate
    tasks: int
    images: int | None = None
    until: float | None = None
    pace: float = 0.0
    agree: Callable[[bool], bool] = bool
    asked: int = field(default=0, init=False)

    def __call__(self, recipes: Sequence[Recipe], tasks: Sequence[int] | None = None) -> Ranking | NDArray[np.float64]:
        """Score recipes, if that is paid for.

        Raises:
            Spent: If it is not; nothing was drawn.
        """
        wanted = len(recipes) * (self.tasks if tasks is None else len(tasks))
        if self.images is not None and self.asked + wanted > self.images:
            raise Spent
        late = self.until is not None and time.monotonic() + wanted * self.pace > self.until
        if self.until is not None and self.agree(late):
            raise Spent
        self.asked += wanted
        return self.evaluate(recipes, tasks)
