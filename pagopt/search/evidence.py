"""What a table with holes says about its rows: effects, their uncertainty, and how likely each is among the best.

A race scores every candidate on the first tasks and only the promising ones on the rest, so the plain means of rows
are means over different tasks. In the mixed model ``score[i, t] = task[t] + effect[i] + noise`` the tasks are taken
out (all candidates that saw a task share it, so differences stay paired), and the effects are drawn from a normal
distribution whose spread the table itself tells. That keeps a row with few entries from looking better than it is.

The equations are Henderson's ("Best linear unbiased estimation and prediction under a selection model", Biometrics
1975), the likelihood of the spread is the restricted one (Patterson and Thompson, Biometrika 1971).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["DRAWS", "Belief", "believe"]

DRAWS = 4000
"""Worlds in which chances are counted: the smallest is one of them."""

RATIOS = np.geomspace(1e-3, 1e3, 13)
"""Variance of the effects over that of the noise: what is weighed against each other."""

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Belief:
    """A normal distribution over the effects of n candidates.

    Attributes:
        mean: Shape ``(n,)``, in the unit of the scores: the expected score on an average task of the table.
        covariance: Shape ``(n, n)``.
        noise: Standard deviation of a single score around effect plus task.
        slope: How the effects grow with what was believed earlier; 0 without that.
    """

    mean: Array
    covariance: Array
    noise: float
    slope: float

    def order(self) -> NDArray[np.intp]:
        """Candidates, best first; ties go to the earlier one."""
        return np.argsort(-self.mean, kind="stable")

    def draws(self, seed: int = 0, number: int = DRAWS) -> Array:
        """Effects as they may be, shape ``(number, n)``."""
        noise = np.random.default_rng(seed)
        values, vectors = np.linalg.eigh(self.covariance)
        root = vectors * np.sqrt(values.clip(min=0.0))
        drawn: Array = self.mean + noise.standard_normal((number, len(self.mean))) @ root.T
        return drawn

    def chances(self, best: int, seed: int = 0) -> Array:
        """The probability of each candidate to be among the ``best`` best, shape ``(n,)``."""
        drawn = self.draws(seed)
        if best >= drawn.shape[1]:
            return np.ones(drawn.shape[1])
        among = np.argpartition(-drawn, best - 1, axis=1)[:, :best]
        return np.bincount(among.ravel(), minlength=drawn.shape[1]) / len(drawn)


def believe(table: Array, earlier: Belief | None = None) -> Belief:
    """Effects of the rows of a table.

    Args:
        table: Scores, shape ``(n_candidates, n_tasks)``, NaN where there is none. Every row and every column holds at
            least one score.
        earlier: What was believed of the same candidates before, in any unit and from any origin: it counts as far as
            this table bears it out, and not at all where it points the other way. Its variances say of which
            candidates much was known.

    Returns:
        The belief, averaged over what the spread of the effects (beyond what was known) may be. With a single task
        nothing tells spread and noise apart, and all ratios of the two count alike.
    """
    known, doubt = np.zeros(len(table)), np.zeros(len(table))
    if earlier is not None and len(table) > 3 and np.ptp(earlier.mean) > 0:
        known = earlier.mean - earlier.mean.mean()
        first = max((_fit(table, known, np.full(len(table), ratio)) for ratio in RATIOS), key=_likelihood)
        if first.slope <= 0:
            return believe(table)
        doubt = first.slope**2 * earlier.covariance.diagonal() / first.noise**2
    fits = [_fit(table, known, ratio + doubt) for ratio in RATIOS]
    weights = np.exp([fit.likelihood - max(fit.likelihood for fit in fits) for fit in fits])
    weights /= weights.sum()
    mean = np.sum([w * fit.mean for w, fit in zip(weights, fits, strict=True)], axis=0)
    covariance = np.zeros((len(mean), len(mean)))
    for weight, fit in zip(weights, fits, strict=True):
        away = fit.mean - mean
        covariance += weight * (fit.covariance + np.outer(away, away))
    noise = float(weights @ [fit.noise for fit in fits])
    return Belief(mean, covariance, noise, float(weights @ [fit.slope for fit in fits]))


@dataclass(frozen=True)
class Fit(Belief):
    """A belief for one ratio of spread and noise, with the logarithm of its restricted likelihood."""

    likelihood: float


def _likelihood(fit: Fit) -> float:
    return fit.likelihood


def _fit(table: Array, known: Array, ratio: Array) -> Fit:
    """Solve the model for given variances.

    Args:
        table: As above.
        known: What the effects may be proportional to, with mean 0, ``(n,)``; zeros for nothing.
        ratio: Variance of each effect around that over the variance of the noise, ``(n,)``.
    """
    n, m = table.shape
    use = bool(known.any())
    rows, columns = np.nonzero(~np.isnan(table))
    origin = float(np.nanmean(table))
    scores = table[rows, columns] - origin
    unit = float(known.std()) if use else 1.0
    fixed = np.zeros((len(rows), m + use))
    fixed[np.arange(len(rows)), columns] = 1.0
    if use:
        fixed[:, m] = known[rows] / unit
    random = np.zeros((len(rows), n))
    random[np.arange(len(rows)), rows] = 1.0
    design = np.hstack([fixed, random])
    p = fixed.shape[1]
    system = design.T @ design
    system[np.arange(p, p + n), np.arange(p, p + n)] += 1 / ratio
    inverse = np.linalg.inv(system)
    solution = inverse @ (design.T @ scores)
    # The quadratic form of the mixed model equations: what is left of the scores.
    freedom = max(1, len(rows) - p)
    scale = max(1.0, float(np.abs(scores).max()))
    noise2 = max(float(scores @ scores - solution @ (design.T @ scores)) / freedom, (1e-9 * scale) ** 2)
    determinant = np.linalg.slogdet(system)[1] + float(np.log(ratio).sum())
    likelihood = -0.5 * (freedom * np.log(noise2) + determinant)
    # An effect in the unit of the scores: the average task, what was known, and what is its own.
    combine = np.hstack([np.full((n, m), 1 / m), known[:, None][:, :use] / unit, np.eye(n)])
    covariance = combine @ inverse @ combine.T * noise2
    mean = origin + combine @ solution
    slope = float(solution[m]) / unit if use else 0.0
    return Fit(mean, (covariance + covariance.T) / 2, float(np.sqrt(noise2)), slope, float(likelihood))
