"""Lexicographic: the first reward decides, and the next one only where the first makes no difference.

"No difference" is a tolerance below the best, as in Zhang, Jia, Wang, Wu, "Targeted hyperparameter optimization with
lexicographic preferences over multiple objectives", ICLR 2023, https://openreview.net/forum?id=0Ij9_q567Ma: the best
recipe is the best by the last reward among those within the tolerance of the best by the one before, and so on up to
the first. Being tied in pairs would not give an order (a = b and b = c, but a > c); the distance to the best does.
The second recipe is the best of what is left, and so on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from pagopt.combine.combination import Combination
from pagopt.combine.scores import Array, Scores, Term
from pagopt.errors import RewardError

__all__ = ["Lexicographic", "standard_error"]


class Lexicographic(Combination):
    """The rewards in the order of the list, each but the last with a ``tolerance`` (default 0: exact ties only)."""

    name: ClassVar[str] = "lexicographic"
    fields: ClassVar[frozenset[str]] = frozenset({"tolerance"})

    def check(self, terms: Sequence[Term]) -> None:
        """The list's order counts, so weights are 1 or -1, and a tolerance of the last reward would do nothing."""
        super().check(terms)
        for term in terms:
            if abs(term.weight) != 1:
                raise RewardError(
                    f"in a lexicographic order the place in the list counts, and the weight {term.weight:g} of "
                    f"{term.label!r} would do nothing: leave it out, or write -1 where lower is better",
                    reward=term.label,
                )
        if terms[-1].tolerance:
            raise RewardError(
                f"nothing comes after {terms[-1].label!r}, the last reward of a lexicographic order, so its tolerance "
                "would do nothing: leave it out",
                reward=terms[-1].label,
            )

    def values(self, scores: Scores) -> Array:
        """Those of the first reward, in its own unit (times -1 where lower is better)."""
        return scores.weighted_sum(scores.terms[:1])

    def order(self, scores: Scores) -> NDArray[np.intp]:
        """The best, then the best of the others, and so on."""
        columns = [term.sign * scores.mean(term) for term in scores.terms]
        slacks = [slack(scores, term) for term in scores.terms[:-1]]
        remaining, ordered = np.arange(scores.recipes), np.empty(scores.recipes, dtype=np.intp)
        for place in range(scores.recipes):
            tied = remaining
            for column, width in zip(columns, slacks, strict=False):
                tied = tied[column[tied] >= column[tied].max() - width]
            # Exact ties by the last reward fall back on the first ones, so that nothing beats what dominates it.
            keys = [-column[tied] for column in (columns[-1], *columns[:-1])]
            ordered[place] = tied[np.lexsort(keys[::-1])[0]]
            remaining = remaining[remaining != ordered[place]]
        return ordered


def slack(scores: Scores, term: Term) -> float:
    """The tolerance of a term in the reward's own unit."""
    if term.tolerance is None:
        return 0.0
    unit = 1.0
    if term.tolerance.unit == "sd":
        unit = scores.scale(term)[1]
    elif term.tolerance.unit == "se":
        unit = standard_error(scores.tables[term.label], term.label)
    return term.tolerance.number * unit


def standard_error(table: Array, label: str = "") -> float:
    """The standard error of the difference of two rows' means, one number for the whole table.

    The tasks are paired: what all recipes have in common on a task is taken out, as in the two-way analysis of
    variance. It is the median over the recipes that counts, so that the few that spoil their images, some worse than
    others, do not make it large. For two recipes it is the standard error of their paired difference. One number for
    all, because an own one for each pair would let a worse recipe pass for its greater noise.

    Args:
        table: Shape ``(n_recipes, n_tasks)``.
        label: The reward, for the message.

    Raises:
        RewardError: With a single task.
    """
    recipes, tasks = table.shape
    if tasks < 2:
        raise RewardError(
            f"a tolerance in standard errors needs at least 2 tasks, and there are {tasks}; use more prompts or "
            "seeds, or a tolerance in the reward's own unit",
            reward=label or None,
        )
    if recipes < 2:
        return 0.0
    left = table - table.mean(axis=0) - table.mean(axis=1, keepdims=True) + table.mean()
    variances = (left**2).sum(axis=1) / (tasks - 1) * recipes / (recipes - 1)
    return float(np.sqrt(2 * np.median(variances) / tasks))
