"""What a combination decides on: a table for each reward, and the unguided images that give each its scale."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pagopt.combine.limits import Bound, Limit, Tolerance
from pagopt.errors import RewardError

__all__ = ["Array", "Scores", "Term", "scale_of"]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Term:
    """One reward of an objective, as a combination sees it.

    Attributes:
        label: Its short name.
        weight: Negative where lower is better, never 0.
        limits: What its mean has to keep to, by kind ("at_least", "at_most").
        tolerance: Up to which difference recipes count as equal on it; ``None`` if none was asked for.
    """

    label: str
    weight: float = 1.0
    limits: Mapping[str, Bound] = field(default_factory=dict)
    tolerance: Tolerance | None = None

    @property
    def sign(self) -> float:
        """1 where higher is better, else -1."""
        return 1.0 if self.weight > 0 else -1.0


class Scores:
    """The scores of some recipes on some tasks by several rewards.

    Args:
        terms: The rewards.
        tables: For every label the scores, shape ``(n_recipes, n_tasks)``.
        baseline: For every label the scores of unguided images, shape ``(n,)``; they give each reward its scale.

    Attributes:
        tables: As float64, checked.
        recipes: n_recipes.

    Raises:
        RewardError: If a table is missing, not finite or of another shape.
    """

    def __init__(
        self, terms: Sequence[Term], tables: Mapping[str, ArrayLike], baseline: Mapping[str, ArrayLike] | None = None
    ) -> None:
        self.terms = tuple(terms)
        self.tables = {term.label: checked(tables, term.label, 2, "images") for term in self.terms}
        shapes = {table.shape for table in self.tables.values()}
        if len(shapes) > 1:
            raise RewardError(f"the tables of the rewards differ in shape: {sorted(shapes)}")
        self.recipes: int = shapes.pop()[0]
        self._baseline = baseline or {}
        self._scales: dict[str, tuple[float, float]] = {}

    def mean(self, term: Term) -> Array:
        """The mean of every recipe, shape ``(n_recipes,)``, in the reward's own unit."""
        return row_means(self.tables[term.label])

    def scale(self, term: Term) -> tuple[float, float]:
        """Mean and standard deviation of the unguided images; see :func:`scale_of`."""
        if term.label not in self._scales:
            self._scales[term.label] = scale_of(self._baseline, term.label)
        return self._scales[term.label]

    def z(self, term: Term) -> Array:
        """Standard deviations above the unguided mean, shape ``(n_recipes, n_tasks)``."""
        mean, deviation = self.scale(term)
        return (self.tables[term.label] - mean) / deviation

    def weighted_sum(self, terms: Sequence[Term]) -> Array:
        """One reward times its weight, in its own unit; several as the weighted sum of their z-scores."""
        if len(terms) == 1:
            return terms[0].weight * self.tables[terms[0].label]
        total = np.zeros(self.tables[terms[0].label].shape)
        for term in terms:
            mean, deviation = self.scale(term)
            total += term.weight * (self.tables[term.label] - mean) / deviation
        return total

    def limits(self) -> list[Limit]:
        """The limits of all rewards in the rewards' own units."""
        return limits_of(self.terms, self._baseline)


def limits_of(
    terms: Sequence[Term], baseline: Mapping[str, ArrayLike], means: Mapping[str, float] | None = None
) -> list[Limit]:
    """The limits in the rewards' own units.

    Args:
        terms: The rewards.
        baseline: For every label the scores of the search's unguided images.
        means: The unguided means on other tasks, if the limits are for them; a standard deviation stays what it was in
            the search.

    Raises:
        RewardError: If a limit is measured against unguided images that there are none of, or that have no spread, or
            if nothing can keep to both limits of a reward.
    """
    made = []
    for term in terms:
        for kind, bound in term.limits.items():
            value = bound.number
            if bound.relative:
                known = checked(baseline, term.label, 1, "unguided images")
                value = float(row_means(known[None])[0]) if means is None else means[term.label]
                if bound.number != 0:
                    value += bound.number * scale_of(baseline, term.label)[1]
            made.append(Limit(term.label, kind, bound.rule, value))
        both = {limit.kind: limit for limit in made if limit.reward == term.label}
        # On other tasks the unguided images may well lie beyond a fixed number, and the search is over.
        if means is None and len(both) == 2 and both["at_least"].value > both["at_most"].value:
            raise RewardError(
                f"no recipe can meet both {both['at_least'].text} and {both['at_most'].text}: at_most must not be "
                "below at_least",
                reward=term.label,
            )
    return made


def scale_of(baseline: Mapping[str, ArrayLike], label: str) -> tuple[float, float]:
    """Mean and standard deviation (ddof 1) of a reward over the unguided images.

    Raises:
        RewardError: With fewer than two images, or where the reward gives all of them one score: it then has no scale.
    """
    scores = checked(baseline, label, 1, "unguided images")
    if scores.size < 2:
        raise RewardError(
            f"several rewards can be combined only with a scale for each, and {scores.size} unguided image gives none. "
            "Use at least 2 prompts or seeds, or a single reward.",
            reward=label,
        )
    mean, deviation = float(scores.mean()), float(scores.std(ddof=1))
    if deviation <= 1e-7 * float(np.abs(scores).max()):  # float32 cannot tell these apart
        raise RewardError(
            f"reward {label!r} gives all {scores.size} unguided images the score {mean:.6g}, so it has "
            "no scale to be combined with. Use more varied prompts, or leave it out.",
            reward=label,
        )
    return mean, deviation


def row_means(table: Array) -> Array:
    """Means of rows; a row has the same mean in any table, to the last bit, so that limits are sharp."""
    means: Array = np.ascontiguousarray(table).mean(axis=1)
    return means


def checked(tables: Mapping[str, ArrayLike], label: str, ndim: int, what: str) -> Array:
    """One of the tables as float64.

    Raises:
        RewardError: If it is missing, no table, not finite, or has another number of axes.
    """
    if label not in tables:
        raise RewardError(f"there are no scores of reward {label!r} for the {what}", reward=label)
    try:
        array = np.asarray(tables[label], dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise RewardError(f"the scores of {label!r} for the {what} are no table of numbers: {error}") from error
    if array.ndim != ndim:
        raise RewardError(
            f"the scores of {label!r} for the {what} have shape {array.shape}, not {ndim} axes", reward=label
        )
    if not np.isfinite(array).all():
        raise RewardError(f"the scores of {label!r} for the {what} are not all finite", reward=label)
    return array
