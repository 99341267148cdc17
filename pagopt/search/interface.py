"""What every search does: ask for recipes to be scored on the search tasks, and return the best one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pagopt.combine import Ranking
from pagopt.errors import StudyError
from pagopt.heads import Head, parse_heads
from pagopt.recipe import Recipe
from pagopt.results import Estimate, Round

__all__ = [
    "Evaluate",
    "Found",
    "OnRound",
    "Search",
    "check_counts",
    "check_enough",
    "check_pool",
    "check_whole",
    "count_of",
    "estimates",
    "pays_for",
    "ranked",
]

Found: TypeAlias = "tuple[Recipe, list[Round]]"
OnRound: TypeAlias = "Callable[[Round], None]"


class Evaluate(Protocol):
    """Ranks recipes on the search tasks, or scores them."""

    def __call__(
        self, recipes: Sequence[Recipe], tasks: Sequence[int] | None = None, part: float = 1.0
    ) -> Ranking | NDArray[np.float64]:
        """Called with a batch of recipes; the more at once, the fuller the batches of images.

        Args:
            recipes: At least one.
            tasks: Positions of the search tasks to draw; ``None`` is all of them.
            part: The part of the inference steps to draw with, above 0. A function of one's own may leave this out,
                unless the search is asked for cheap looks.

        Returns:
            A ranking (:meth:`pagopt.reward.Objective.rank`), or scores of shape ``(n_recipes, n_tasks)``, higher is
            better, in the order of their means.
        """


class Search(Protocol):
    """One algorithm. Every process runs it alike, so it may draw random numbers from a seed only."""

    def images(self, pool: int | Sequence[Head], tasks: int) -> int:
        """Called before the search starts, and before anything is drawn: how many images it asks for at most.

        Args:
            pool: The heads to choose from, or their number.
            tasks: The number of search tasks.

        Raises:
            StudyError: If the pool or the tasks are too few, or the budget is too small.
        """

    def run(
        self, evaluate: Evaluate, pool: Sequence[Head], recipe: Recipe, tasks: int, on_round: OnRound | None = None
    ) -> Found:
        """Search.

        Args:
            evaluate: Ranks or scores a batch of recipes.
            pool: The heads to choose from; addresses as text are understood, see :func:`pagopt.heads.parse_heads`.
            recipe: Gives everything but the heads: target, strength, scale, CFG, interval.
            tasks: The number of search tasks.
            on_round: Called at the end of every round.

        Returns:
            The recipe that was found, and the trace of the rounds.

        Raises:
            StudyError: If the pool or the budget is too small, or ``evaluate`` gives no scores; see :func:`ranked`.
            RecipeError: If the pool is no heads.
        """


def ranked(scored: Ranking | ArrayLike, recipes: int, tasks: int) -> Ranking:
    """What was answered to the question for scores, checked: a ranking as it is, scores as a ranking by their means.

    Args:
        scored: What :class:`Evaluate` gave; nested lists are a table, too.
        recipes: How many were asked for.
        tasks: On how many tasks.

    Raises:
        StudyError: If it is no table of finite numbers for these recipes and tasks.
    """
    wanted = f"scores of {recipes} recipes on {tasks} tasks are a table of shape ({recipes}, {tasks}), a recipe a row"
    if isinstance(scored, Mapping):
        raise StudyError(
            f"{wanted}, but a mapping came, of {', '.join(map(repr, scored)) or 'nothing'}: give the table of one "
            "reward, or Objective.rank of them all"
        )
    try:
        values = np.asarray(scored.values if isinstance(scored, Ranking) else scored, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise StudyError(f"{wanted}, but a {type(scored).__name__} came that is no table: {error}") from error
    if values.shape != (recipes, tasks):
        came = f"one of shape {values.shape}" if values.ndim else f"a {type(scored).__name__}"
        raise StudyError(f"{wanted}, but {came} came: give every recipe's score on every task")
    if not np.isfinite(values).all():
        row, column = np.argwhere(~np.isfinite(values))[0]
        raise StudyError(
            f"{wanted} and finite, but {np.count_nonzero(~np.isfinite(values))} of them are not, the first "
            f"{values[row, column]} for recipe {row} on task {column}: give a low number to what could not be scored"
        )
    return scored if isinstance(scored, Ranking) else Ranking.by_mean(values)


def pays_for(evaluate: Evaluate, images: int) -> None:
    """Called before a round whose images are known and asked for in parts: a budget stops the search here, or pays.

    Args:
        evaluate: Where a budget stands between, it has a method of this name (:class:`pagopt.search.budget.Allowance`).
        images: Those of the whole round, at most.
    """
    ask = getattr(evaluate, "pays_for", None)
    if ask is not None:
        ask(images)


def estimates(names: Sequence[str], table: NDArray[np.float64]) -> dict[str, Estimate]:
    """Mean and standard error of every row, by name."""
    return {name: Estimate.of(row) for name, row in zip(names, table, strict=True)}


def check_counts(rounds: int, heads_per_round: int) -> None:
    """Refuse rounds without an end or without a choice.

    Raises:
        StudyError: If a number is below 1.
    """
    for name, value in (("rounds", rounds), ("heads_per_round", heads_per_round)):
        if value < 1:
            raise StudyError(f"{name} must be at least 1, not {value}")


def check_whole(name: str, value: object, least: int) -> None:
    """Refuse what is no count.

    Raises:
        StudyError: If it is no whole number, or below ``least``.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise StudyError(f"{name} must be a whole number of at least {least}, not {value!r}")


def count_of(pool: int | Sequence[Head]) -> int:
    """How many heads there are."""
    return pool if isinstance(pool, int) else len(pool)


def check_enough(heads: int, rounds: int, heads_per_round: int) -> None:
    """Refuse a pool that is too small for the rounds.

    Raises:
        StudyError: If it has fewer than ``rounds * heads_per_round`` heads.
    """
    needed = rounds * heads_per_round
    if heads < needed:
        raise StudyError(
            f"{rounds} rounds of {heads_per_round} heads need {needed} heads to choose from, "
            f"but there are {heads}; lower rounds or heads_per_round, or widen heads"
        )


def check_pool(pool: Sequence[Head], rounds: int, heads_per_round: int) -> list[Head]:
    """The pool in order, each head once; :func:`check_enough` says what is refused."""
    heads = list(parse_heads(pool))
    check_enough(len(heads), rounds, heads_per_round)
    return heads
