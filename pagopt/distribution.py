"""Distances between two sets of feature vectors, and how sure one can be of them. No torch.

Pairwise scores judge one picture; these judge a whole set: whether its pictures look like the real ones, and whether
all kinds of them occur.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import linalg
from scipy.spatial.distance import cdist

from pagopt.errors import PagoptError, UnknownName

__all__ = ["Interval", "Manifold", "bootstrap", "frechet_distance", "precision_recall_density_coverage"]

DISTANCES = 2**22  # held at once, in float64: 32 MiB


@dataclass(frozen=True)
class Manifold:
    """How two sets overlap, each set being the union of balls around its points.

    Attributes:
        precision: Share of generated points within the real set, in [0, 1]: quality.
        recall: Share of real points within the generated set, in [0, 1]: variety.
        density: Mean number of real balls around a generated point, over ``k``: quality, less moved by outliers among
            the real points. At least 0; near 1 for equal distributions, and more where the generated points crowd in
            dense regions.
        coverage: Share of real balls that hold a generated point, in [0, 1]: variety, without the balls of generated
            outliers.
    """

    precision: float
    recall: float
    density: float
    coverage: float


@dataclass(frozen=True)
class Interval:
    """A statistic of the samples as they are, and the bounds of its confidence interval."""

    value: float
    low: float
    high: float


def frechet_distance(a: ArrayLike, b: ArrayLike) -> float:
    """Squared 2-Wasserstein distance of the Gaussians that fit two sets (Heusel et al. 2017, arXiv 1706.08500).

    ``|mean(a) - mean(b)|^2 + tr(A + B - 2 (A B)^(1/2))`` with the sample covariances ``A`` and ``B`` (divisor
    ``n - 1``). The trace of the root is the sum of the singular values of the product of two triangular factors, so
    that no covariance is formed and covariances without full rank do no harm.

    It is too large for small samples, by an amount that depends on their sizes and on the set: compare two distances
    only if they come from equally many rows.

    Args:
        a: Features, shape (n, d), n >= 2.
        b: Features, shape (m, d), m >= 2.

    Returns:
        At least 0, in squared units of the features.

    Raises:
        PagoptError: If the shapes do not fit, there are too few rows, or a number is not finite.
    """
    first, second = _pair(a, b, ("a", "b"), rows=2, why="a covariance")
    shift = first.mean(axis=0) - second.mean(axis=0)
    factors = [_factor(features) for features in (first, second)]
    root = linalg.svdvals(factors[0] @ factors[1].T).sum()
    spread = sum(float((factor**2).sum()) for factor in factors)
    return max(0.0, float(shift @ shift + spread - 2 * root))


def precision_recall_density_coverage(real: ArrayLike, generated: ArrayLike, k: int = 5) -> Manifold:
    """Quality and variety of a generated set, apart.

    Precision and recall are those of Kynkaanniemi et al. 2019 (arXiv 1904.06991), density and coverage those of Naeem
    et al. 2020 (arXiv 2002.09797). The ball around a point reaches to the ``k``-th nearest other point of its own set
    and contains its boundary. Takes time for all n x m, n x n and m x m distances, but memory for a few million only.

    Args:
        real: Features, shape (n, d), n >= k + 1.
        generated: Features, shape (m, d), m >= k + 1.
        k: Which neighbour, at least 1.

    Raises:
        PagoptError: If the shapes do not fit, there are too few rows, ``k`` is below 1, or a number is not finite.
    """
    if k < 1:
        raise PagoptError(f"k must be at least 1, not {k}")
    points, others = _pair(real, generated, ("real", "generated"), rows=k + 1, why=f"k = {k} neighbours")
    radii, other_radii = _radii(points, k), _radii(others, k)
    around = np.zeros(len(others), dtype=np.int64)  # real balls around each generated point
    covered = recalled = 0
    for part in _parts(len(points), len(others)):
        distances = cdist(points[part], others, "sqeuclidean")
        inside = distances <= radii[part, None]
        around += inside.sum(axis=0)
        covered += int(inside.any(axis=1).sum())
        recalled += int((distances <= other_radii).any(axis=1).sum())
    return Manifold(
        precision=float((around > 0).mean()),
        recall=recalled / len(points),
        density=float(around.mean() / k),
        coverage=covered / len(points),
    )


def bootstrap(
    statistic: Callable[..., float],
    *samples: ArrayLike,
    paired: Sequence[ArrayLike] = (),
    repeats: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
    kind: Literal["basic", "percentile"] = "basic",
) -> Interval:
    """Bootstrap interval of a statistic: rows drawn again, with replacement (Davison and Hinkley 1997, section 5.2).

    Two methods that drew the same prompts and seeds are compared like this; whatever should not be drawn again is left
    to the function::

        bootstrap(lambda real, x, y: frechet_distance(real, x) - frechet_distance(real, y), real, paired=(x, y))

    "percentile" takes quantiles of the redrawn statistics; "basic" mirrors them at the value. For a mean both are about
    the same. A Frechet distance is too large for small samples, and once more so for redrawn ones, whose repeated rows
    add nothing; the mirror takes this out, also from the difference of two distances, while percentiles can miss the
    truth altogether. The value keeps its own excess, so the basic interval lies lower and may leave it out.

    Neither is any good for statistics of nearest neighbours (:func:`precision_recall_density_coverage`), which take a
    repeated row for a neighbour at distance 0.

    Args:
        statistic: Called as ``statistic(*samples, *paired)`` with arrays of the given shapes.
        samples: Arrays of at least 2 rows; each draws rows of its own.
        paired: Arrays of equally many rows, which all draw the same ones.
        repeats: How often, at least 1; the ends of a 95 % interval take about 1000.
        seed: Of the draws; equal seeds give equal intervals.
        confidence: Of the interval, between 0 and 1, exclusive.
        kind: "basic", or "percentile", which keeps within the range of the statistic.

    Raises:
        PagoptError: If there is nothing to draw from, an argument is out of its range, paired arrays differ in their
            rows, or the statistic is not finite.
    """
    if kind not in ("basic", "percentile"):
        raise UnknownName("kind of interval", kind, ["basic", "percentile"])
    if repeats < 1:
        raise PagoptError(f"repeats must be at least 1, not {repeats}")
    if not 0 < confidence < 1:
        raise PagoptError(f"confidence must lie between 0 and 1, exclusive, not {confidence:g}")
    alone, together = [np.asarray(sample) for sample in samples], [np.asarray(sample) for sample in paired]
    for sample in (*alone, *together):
        if sample.ndim < 1 or len(sample) < 2:
            raise PagoptError(f"a sample to draw from needs at least 2 rows; got an array of shape {sample.shape}")
    sizes = {len(sample) for sample in together}
    if len(sizes) > 1:
        raise PagoptError(f"paired arrays need equally many rows, got {', '.join(map(str, sorted(sizes)))}")
    if not alone and not together:
        raise PagoptError("nothing to draw from: give at least one sample")
    generator = np.random.default_rng(seed)

    def draw(rows: int) -> NDArray[np.int64]:
        return generator.integers(rows, size=rows)

    def again() -> float:
        drawn = [sample[draw(len(sample))] for sample in alone]
        rows = draw(len(together[0])) if together else None
        return float(statistic(*drawn, *(sample[rows] for sample in together)))

    value = float(statistic(*alone, *together))
    values = np.array([again() for _ in range(repeats)])
    if not np.isfinite([value, *values]).all():
        raise PagoptError("the statistic is not finite, for the samples or for one of the draws: look at its inputs")
    low, high = (float(end) for end in np.quantile(values, [(1 - confidence) / 2, (1 + confidence) / 2]))
    return Interval(value, low, high) if kind == "percentile" else Interval(value, 2 * value - high, 2 * value - low)


def _pair(
    a: ArrayLike, b: ArrayLike, names: tuple[str, str], rows: int, why: str
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Both sets as float64, checked."""
    first, second = (_features(array, name, rows, why) for array, name in zip((a, b), names, strict=True))
    if first.shape[1] != second.shape[1]:
        raise PagoptError(
            f"both sets need features of one length: {names[0]} has {first.shape[1]}, {names[1]} has {second.shape[1]}"
        )
    return first, second


def _features(array: ArrayLike, name: str, rows: int, why: str) -> NDArray[np.float64]:
    try:
        features = np.asarray(array, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise PagoptError(f"{name} must be numbers of shape (rows, features): {error}") from error
    if features.ndim != 2 or features.shape[1] < 1:
        raise PagoptError(f"{name} must have the shape (rows, features), not {features.shape}")
    if len(features) < rows:
        raise PagoptError(f"{name} has {len(features)} rows; {why} takes at least {rows}")
    finite = np.isfinite(features).all(axis=1)
    if not finite.all():
        raise PagoptError(f"{name} has numbers that are not finite, first in row {int(np.argmin(finite))}")
    return features


def _factor(features: NDArray[np.float64]) -> NDArray[np.float64]:
    """``R`` with ``R.T @ R`` the sample covariance."""
    (factor,) = linalg.qr(features - features.mean(axis=0), mode="r")
    return np.asarray(factor[: min(features.shape)] / np.sqrt(len(features) - 1))


def _radii(points: NDArray[np.float64], k: int) -> NDArray[np.float64]:
    """Squared distance of each point to its ``k``-th nearest other one."""
    parts = (cdist(points[part], points, "sqeuclidean") for part in _parts(len(points), len(points)))
    return np.concatenate([np.partition(distances, k, axis=1)[:, k] for distances in parts])


def _parts(rows: int, columns: int) -> Iterator[slice]:
    """Slices of the rows, so that a part of the table of distances holds at most ``DISTANCES`` (or one row)."""
    size = max(1, DISTANCES // columns)
    return (slice(start, start + size) for start in range(0, rows, size))
