"""One method against another: how large the difference is, how sure, how often, and how likely by chance. No torch.

As in :mod:`pagopt.paired`, a prompt, not a picture, is what is drawn again.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from pagopt.distribution import Interval
from pagopt.errors import PagoptError
from pagopt.paired import group_means, paired_p

__all__ = ["LEVEL", "REPEATS", "Difference", "difference", "mean_interval"]

REPEATS = 10_000
"""Draws of a bootstrap interval."""

LEVEL = 0.05
"""What the p-value has to be below, beside an interval on one side of 0, for a difference to be called one."""

CELLS = 2**20  # numbers drawn at once


@dataclass(frozen=True)
class Difference:
    """One method against another by one reward, on the same tasks; above 0 the first is better.

    Attributes:
        method: Whose gain it is.
        against: Over which other method.
        reward: By which reward, in its unit; turned around where lower is better.
        mean: Mean of the paired differences.
        low: Lower end of its 95 % interval.
        high: Upper end.
        wins: Share of tasks on which the first is better; a tie counts half.
        p_value: Two-sided, of "there is no difference".
        corrected: The same by Holm's correction for all differences of the comparison.
    """

    method: str
    against: str
    reward: str
    mean: float
    low: float
    high: float
    wins: float
    p_value: float
    corrected: float = float("nan")

    @property
    def better(self) -> bool:
        """Whether the first is clearly better.

        The test has to agree with the interval: of few prompts that differ to one side, no draw ever reaches 0.
        """
        return self.low > 0 and self.p_value < LEVEL

    @property
    def worse(self) -> bool:
        """Whether the first is clearly worse."""
        return self.high < 0 and self.p_value < LEVEL


def difference(
    names: tuple[str, str, str], scores: ArrayLike, others: ArrayLike, groups: Sequence[Hashable], sign: float = 1.0
) -> Difference:
    """Compare two methods on the same tasks.

    Args:
        names: The method, the other one, the reward.
        scores: The method's, shape ``(n,)``.
        others: The other's on the same tasks, ``(n,)``.
        groups: The prompt of each task.
        sign: Negative where lower is better.
    """
    gains = np.sign(sign) * (np.asarray(scores, dtype=np.float64) - np.asarray(others, dtype=np.float64))
    interval = mean_interval(gains, groups)
    wins = float((gains > 0).mean() + 0.5 * (gains == 0).mean())
    return Difference(*names, interval.value, interval.low, interval.high, wins, paired_p(gains, groups))


def mean_interval(
    values: ArrayLike, groups: Sequence[Hashable], confidence: float = 0.95, repeats: int = REPEATS, seed: int = 0
) -> Interval:
    """Bootstrap interval of a mean over prompts, each drawn with all its seeds.

    The percentile interval at expanded levels (Hesterberg 2015, arXiv 1411.5279, section 5.2): a plain percentile
    interval is too short for few prompts, by as much as the normal distribution is narrower than Student's t and the
    divisor n is larger than n - 1.

    Args:
        values: One for each task, shape ``(n,)``, n >= 2.
        groups: The prompt of each task.
        confidence: Of the interval, between 0 and 1, exclusive.
        repeats: Draws.
        seed: Of the draws; equal seeds give equal intervals.

    Raises:
        PagoptError: As :func:`group_means` does, or for a confidence out of its range.
    """
    if not 0 < confidence < 1:
        raise PagoptError(f"confidence must lie between 0 and 1, exclusive, not {confidence:g}")
    means = group_means(values, groups)
    n = means.size
    generator = np.random.default_rng(seed)
    at_once = max(1, CELLS // n)
    drawn = np.concatenate(
        [
            means[generator.integers(n, size=(min(at_once, repeats - start), n))].mean(axis=1)
            for start in range(0, repeats, at_once)
        ]
    )
    tail = float(stats.norm.cdf(-np.sqrt(n / (n - 1)) * stats.t.ppf((1 + confidence) / 2, n - 1)))
    low, high = np.quantile(drawn, [tail, 1 - tail])
    return Interval(float(means.mean()), float(low), float(high))
