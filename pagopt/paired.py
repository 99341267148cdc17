"""Paired differences over tasks: how sure their mean is, and how likely by chance. No torch.

Pictures of one prompt are alike, so a prompt, not a picture, is what is drawn again: every function takes the prompt of
each task and works on the means of prompts. Every prompt counts the same, however many tasks it has; where all have
equally many, the mean of these means is the mean over tasks. A single prompt is drawn by its tasks.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from pagopt.errors import PagoptError

__all__ = ["SAME", "Alternative", "group_means", "holm", "p_values", "paired_p", "standard_error"]

Alternative = Literal["two-sided", "greater"]

SAME = 1e-12
"""Numbers that differ by less than this part of the largest are the same, but for rounding."""


def group_means(values: ArrayLike, groups: Sequence[Hashable]) -> NDArray[np.float64]:
    """The mean of each group, in the order in which they first occur; of a single group its values as they are.

    Raises:
        PagoptError: If there are fewer than 2 values, or not as many groups.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or array.size < 2:
        raise PagoptError(f"a comparison takes at least 2 tasks, not an array of shape {array.shape}")
    if len(groups) != array.size:
        raise PagoptError(f"{array.size} values and {len(groups)} prompts: it takes one prompt for each value")
    order = {group: number for number, group in enumerate(dict.fromkeys(groups))}
    numbers = np.array([order[group] for group in groups])
    return array if len(order) == 1 else np.bincount(numbers, weights=array) / np.bincount(numbers)


def standard_error(values: ArrayLike, groups: Sequence[Hashable]) -> float:
    """Of the mean, over prompts; :func:`group_means` says what is refused."""
    means = group_means(values, groups)
    return float(means.std(ddof=1) / np.sqrt(means.size))


def paired_p(gains: ArrayLike, groups: Sequence[Hashable], alternative: Alternative = "two-sided") -> float:
    """The p-value of the paired t-test over prompts.

    Args:
        gains: Differences, one for each task.
        groups: The prompt of each task.
        alternative: See :func:`p_values`.

    Raises:
        PagoptError: As :func:`group_means` does.
    """
    return float(p_values(group_means(gains, groups), alternative))


def p_values(samples: NDArray[np.float64], alternative: Alternative = "two-sided") -> NDArray[np.float64]:
    """The p-values of t-tests of "the mean is 0"; by their signs alone where all gains of a row are the same.

    Gains without any spread have no t. That n of them have one sign has the chance 2^-n by itself.

    Args:
        samples: Independent gains, shape ``(..., n)``, n at least 2.
        alternative: "two-sided", or "greater" for "the mean is above 0".

    Returns:
        Shape ``(...)``; 1 where all gains are 0.
    """
    rows = samples.reshape(-1, samples.shape[-1])
    same = np.ptp(rows, axis=1) <= SAME * np.abs(rows).max(axis=1)
    signs, chance = np.sign(rows[:, 0]), 2.0 ** -rows.shape[1]
    found = np.where(signs > 0, chance, 1.0) if alternative == "greater" else np.where(signs != 0, 2 * chance, 1.0)
    if not same.all():
        found[~same] = stats.ttest_1samp(rows[~same], 0.0, axis=1, alternative=alternative).pvalue
    return found.reshape(samples.shape[:-1])


def holm(p_values: Sequence[float]) -> list[float]:
    """Corrected for their number, so that a single false discovery is as unlikely as each p-value says.

    Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 1979.

    Args:
        p_values: In any order; the answers are in the same.
    """
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    corrected = np.empty_like(p)
    corrected[order] = np.minimum(1.0, np.maximum.accumulate((p.size - np.arange(p.size)) * p[order]))
    return [float(value) for value in corrected]
