"""A budget in images or time, and what is done when it is used up: stop at the best recipe so far."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pagopt.combine import Ranking
from pagopt.errors import StudyError
from pagopt.heads import Head
from pagopt.recipe import Recipe
from pagopt.results import Round
from pagopt.search.candidates import selection
from pagopt.search.interface import Evaluate, Found, OnRound, Search
from pagopt.search.racing import Racing

__all__ = ["Allowance", "Budget", "Spending", "Spent", "search_within"]

UNITS = {"h": 3600.0, "m": 60.0, "min": 60.0, "s": 1.0}
TIME = re.compile(r"(?:\d+(?:\.\d+)?(?:h|min|m|s))+")
IMAGES = re.compile(r"(\d+)[- ]?images?")
PACED = 8
"""Images that have to be drawn before they say how long one takes."""


HINT = "Raise it, or leave out cfg_scales, compare_layers or held-out prompts."


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

    def left(self, fixed: int) -> int | None:
        """Images that are left for the search.

        Args:
            fixed: Those of everything but the search.

        Returns:
            ``None`` where they are not limited.

        Raises:
            StudyError: If none are.
        """
        if self.images is not None and self.images <= fixed:
            raise StudyError(
                f"the comparison of this study takes {fixed} images alone, and its budget is {self.images}. {HINT}"
            )
        return None if self.images is None else self.images - fixed


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
        asked: Images asked for so far, those that the store had included; one with half the steps is half an image.
    """

    evaluate: Evaluate
    tasks: int
    images: int | None = None
    until: float | None = None
    pace: float = 0.0
    agree: Callable[[bool], bool] = bool
    asked: int = field(default=0, init=False)

    def __call__(
        self, recipes: Sequence[Recipe], tasks: Sequence[int] | None = None, part: float = 1.0
    ) -> Ranking | NDArray[np.float64]:
        """Score recipes, if that is paid for.

        Raises:
            Spent: If it is not; nothing was drawn.
        """
        wanted = math.ceil(part * len(recipes) * (self.tasks if tasks is None else len(tasks)))
        self.pays_for(wanted)
        self.asked += wanted
        return self.evaluate(recipes, tasks) if part == 1 else self.evaluate(recipes, tasks, part)

    def pays_for(self, images: int) -> None:
        """Make sure that so many further images are paid for, before the first of them is asked for.

        Raises:
            Spent: If they are not.
        """
        if self.images is not None and self.asked + images > self.images:
            raise Spent
        late = self.until is not None and time.monotonic() + images * self.pace > self.until
        if self.until is not None and self.agree(late):
            raise Spent


@dataclass(frozen=True)
class Spending:
    """What else a budget has to pay for.

    Attributes:
        fixed: Images of everything but the search.
        reserved: Those of them that come after it.
        drawn: Images that were drawn since ``start``; they tell how long one takes.
        start: When the run began, by :func:`time.monotonic`.
        agree: Makes all processes take the first one's word.
    """

    fixed: int
    reserved: int
    drawn: int
    start: float
    agree: Callable[[Any], Any]


def search_within(
    budget: Budget,
    spending: Spending,
    searcher: Search,
    evaluate: Evaluate,
    pool: Sequence[Head],
    recipe: Recipe,
    tasks: int,
    on_round: OnRound,
) -> Found:
    """Search, and stop at the best recipe so far when the budget is used up.

    Raises:
        StudyError: If the budget does not pay for a first round.
    """
    images, until, pace = budget.left(spending.fixed), None, 0.0
    if budget.seconds is not None:
        if spending.drawn >= PACED:  # else the store had them, and the clock alone says when it is over
            pace = spending.agree((time.monotonic() - spending.start) / spending.drawn)
        until = spending.start + budget.seconds - spending.reserved * pace
        left = spending.agree(until - time.monotonic())
        images = int(left / pace) if pace else None
        if images is not None and images < 1:
            raise StudyError(
                f"the comparison of this study takes {spending.fixed * pace:.0f} s alone, and its budget is "
                f"{budget.seconds:.0f} s. {HINT} What is drawn is kept."
            )
    if isinstance(searcher, Racing) and images is not None:
        searcher = replace(searcher, budget=images)
    rounds: list[Round] = []

    def keep(done: Round) -> None:
        rounds.append(done)
        on_round(done)

    allowance = Allowance(evaluate, tasks, images, until, pace, spending.agree)
    try:
        return searcher.run(allowance, pool, recipe, tasks, keep)
    except Spent:
        if rounds:
            return recipe.replace(heads=selection(rounds[-1])), rounds
    has = f"its {budget.seconds:.0f} s are over" if images is None else f"has {images}"
    raise StudyError(
        f"the budget does not pay for the first round of the search: the search would take up to "
        f"{searcher.images(pool, tasks)} images, and {has}. Raise the budget, take search: racing, or "
        "choose fewer heads, rounds or prompts. What is drawn is kept."
    )
