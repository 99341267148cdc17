"""Distances between sets, against closed forms and plain loops."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pagopt import distribution
from pagopt.distribution import Interval, bootstrap, frechet_distance, precision_recall_density_coverage
from pagopt.errors import PagoptError

seeds = st.integers(0, 10_000)


def sets(seed, rows=(30, 24), width=3):
    generator = np.random.default_rng(seed)
    first = generator.normal(size=(rows[0], width)) @ generator.normal(size=(width, width))
    return first, generator.normal(0.5, 1.5, size=(rows[1], width))


def rotation(seed, width):
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(width, width)))[0]


def measures(a, b):
    found = precision_recall_density_coverage(a, b, k=3)
    return [found.precision, found.recall, found.density, found.coverage]


# Frechet distance


@given(seeds)
@settings(max_examples=30, deadline=None)
def test_in_one_dimension_it_is_the_distance_of_means_and_deviations(seed):
    a, b = sets(seed, width=1)
    want = (a.mean() - b.mean()) ** 2 + (a.std(ddof=1) - b.std(ddof=1)) ** 2
    assert frechet_distance(a, b) == pytest.approx(want, rel=1e-10)


def test_for_diagonal_covariances_it_is_the_sum_over_the_axes():
    # Plus and minus a multiple of each axis: uncorrelated, with the deviations `scale`.
    corners = np.concatenate([np.eye(3), -np.eye(3)]) * np.sqrt(5 / 2)
    first, second = np.array([1.0, 2.0, 0.0]), np.array([3.0, 0.5, 4.0])
    shift = np.array([1.0, -2.0, 0.5])
    want = (shift**2).sum() + ((first - second) ** 2).sum()
    assert frechet_distance(corners * first, corners * second + shift) == pytest.approx(want, rel=1e-12)


@given(seeds)
@settings(max_examples=20, deadline=None)
def test_it_agrees_with_the_root_of_the_product_of_covariances(seed):
    a, b = sets(seed)
    product = np.cov(a.T) @ np.cov(b.T)
    root = np.sqrt(np.linalg.eigvals(product).astype(complex)).real.sum()
    want = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(np.cov(a.T) + np.cov(b.T)) - 2 * root
    assert frechet_distance(a, b) == pytest.approx(want, rel=1e-8)


@given(seeds, st.integers(2, 40))
@settings(max_examples=30, deadline=None)
def test_a_set_has_no_distance_from_itself_whatever_its_rank(seed, width):
    a, _ = sets(seed, rows=(12, 2), width=width)
    assert 0 <= frechet_distance(a, a[::-1]) < 1e-12 * max(1.0, a.var(axis=0).sum())


def test_without_full_rank_only_the_common_directions_are_compared():
    line = np.array([[-1.0], [0.0], [1.0]])
    x, y = line * [1.0, 0.0, 0.0], line * [0.0, 2.0, 0.0]
    assert frechet_distance(x, y) == pytest.approx(1 + 4, rel=1e-12)
    assert frechet_distance(x, 3 * x) == pytest.approx((3 - 1) ** 2, rel=1e-12)


def test_far_from_the_origin_it_keeps_its_digits():
    a, b = sets(3)
    assert frechet_distance(a + 1e6, b + 1e6) == pytest.approx(frechet_distance(a, b), rel=1e-7)


# What no measure may depend on


@given(seeds, seeds)
@settings(max_examples=25, deadline=None)
def test_order_place_and_direction_do_not_matter(seed, other):
    a, b = sets(seed)
    generator = np.random.default_rng(other)
    turn, move = rotation(other, 3), generator.normal(size=3)
    distance = frechet_distance(a, b)
    assert frechet_distance(b, a) == pytest.approx(distance, rel=1e-9)
    assert frechet_distance(generator.permutation(a), generator.permutation(b)) == pytest.approx(distance, rel=1e-9)
    assert frechet_distance(a @ turn + move, b @ turn + move) == pytest.approx(distance, rel=1e-9)
    assert measures(generator.permutation(a), generator.permutation(b)) == pytest.approx(measures(a, b), abs=1e-12)
    assert measures(a @ turn + move, b @ turn + move) == pytest.approx(measures(a, b), abs=1e-12)


# Precision, recall, density, coverage


def loops(real, generated, k):
    """The definitions, point by point."""

    def distance(x, y):
        return float(((x - y) ** 2).sum())

    def radius(points, i):
        return sorted(distance(points[i], other) for j, other in enumerate(points) if j != i)[k - 1]

    real_radii = [radius(real, i) for i in range(len(real))]
    own_radii = [radius(generated, j) for j in range(len(generated))]
    inside = [[distance(x, y) <= r for y in generated] for x, r in zip(real, real_radii, strict=True)]
    recalled = [any(distance(x, y) <= r for y, r in zip(generated, own_radii, strict=True)) for x in real]
    return [
        sum(any(row[j] for row in inside) for j in range(len(generated))) / len(generated),
        sum(recalled) / len(real),
        sum(map(sum, inside)) / k / len(generated),
        sum(map(any, inside)) / len(real),
    ]


@given(seeds, st.integers(1, 5), st.booleans())
@settings(max_examples=25, deadline=None)
def test_the_four_numbers_are_those_of_the_definitions(seed, k, on_a_grid):
    real, generated = sets(seed, rows=(15, 11), width=2)
    if on_a_grid:  # with repeated points and equal distances
        real, generated = np.round(real), np.round(generated)
    found = precision_recall_density_coverage(real, generated, k=k)
    want = loops(real, generated, k)
    assert [found.precision, found.recall, found.density, found.coverage] == pytest.approx(want, abs=1e-12)


def test_parts_change_nothing(monkeypatch):
    a, b = sets(1)
    whole = precision_recall_density_coverage(a, b)
    monkeypatch.setattr(distribution, "DISTANCES", 70)
    assert precision_recall_density_coverage(a, b) == whole


def test_equal_sets_far_sets_and_a_set_with_one_kind_only():
    real = np.arange(20.0)[:, None]
    same = precision_recall_density_coverage(real, real, k=2)
    assert (same.precision, same.recall, same.coverage) == (1, 1, 1)
    far = precision_recall_density_coverage(real, real + 1000, k=2)
    assert (far.precision, far.recall, far.density, far.coverage) == (0, 0, 0, 0)
    crowd = precision_recall_density_coverage(real, np.full((20, 1), 10.0), k=2)
    assert (crowd.precision, crowd.recall) == (1, 1 / 20)
    assert (crowd.density, crowd.coverage) == (3 / 2, 3 / 20)  # the balls of 9, 10 and 11


# Intervals


@pytest.mark.parametrize("kind", ["basic", "percentile"])
def test_the_interval_covers_a_known_mean_about_as_often_as_it_says(kind):
    generator = np.random.default_rng(0)
    samples = [generator.normal(3, 2, size=40) for _ in range(100)]
    found = [bootstrap(np.mean, sample, repeats=300, seed=i, kind=kind) for i, sample in enumerate(samples)]
    assert 85 <= sum(interval.low <= 3 <= interval.high for interval in found) <= 99
    assert all(interval.low <= interval.value <= interval.high for interval in found)
    width = np.mean([interval.high - interval.low for interval in found])
    assert width == pytest.approx(2 * 1.96 * 2 / np.sqrt(40), rel=0.1)


def test_the_basic_interval_covers_a_difference_of_frechet_distances_and_percentiles_do_not():
    generator, width, rows = np.random.default_rng(0), 16, 100
    shift = 0.5 * np.eye(width)[0]
    truth = (1.2 * 0.5) ** 2 + width * 0.1**2 - 0.5**2
    covered = {"basic": 0, "percentile": 0}
    for _ in range(20):
        real, noise = generator.normal(size=(rows, width)), generator.normal(size=(rows, width))
        methods = noise * 1.1 + 1.2 * shift, noise + shift
        for kind in covered:
            found = bootstrap(
                lambda real, x, y: frechet_distance(real, x) - frechet_distance(real, y),
                real,
                paired=methods,
                repeats=60,
                kind=kind,
            )
            covered[kind] += found.low <= truth <= found.high
    assert covered["basic"] >= 16
    assert covered["percentile"] <= 4


def test_the_basic_interval_is_the_mirrored_percentile_interval():
    sample = np.random.default_rng(6).exponential(size=30)
    basic, plain = (bootstrap(np.var, sample, repeats=50, kind=kind) for kind in ("basic", "percentile"))
    assert [basic.low, basic.high] == [2 * plain.value - plain.high, 2 * plain.value - plain.low]


def test_more_confidence_is_a_wider_interval():
    sample = np.random.default_rng(1).normal(size=50)
    narrow, wide = (bootstrap(np.mean, sample, confidence=c) for c in (0.5, 0.99))
    assert wide.low < narrow.low < narrow.high < wide.high


def test_equal_seeds_give_equal_intervals():
    a, b = sets(2)
    first, again, other = (bootstrap(frechet_distance, a, b, repeats=20, seed=seed) for seed in (7, 7, 8))
    assert first == again
    assert first.value == other.value == frechet_distance(a, b)
    assert first != other


def test_paired_rows_stay_together():
    sample = np.random.default_rng(3).normal(size=(30, 2))

    def gap(x, y):
        assert np.array_equal(y, x + 1)
        return float((y - x).mean())

    found = bootstrap(gap, paired=(sample, sample + 1), repeats=50)
    assert [found.value, found.low, found.high] == pytest.approx([1, 1, 1])


def test_pairing_narrows_the_interval_of_a_difference_of_distances():
    generator = np.random.default_rng(4)
    real, noise = generator.normal(size=(60, 2)), generator.normal(size=(60, 2))
    near, far = noise + 1.0, noise * 1.02 + 1.1

    def difference(real, x, y):
        return frechet_distance(real, y) - frechet_distance(real, x)

    paired = bootstrap(difference, real, paired=(near, far), repeats=200)
    apart = bootstrap(difference, real, near, far, repeats=200)
    assert paired.value == apart.value
    assert paired.high - paired.low < 0.5 * (apart.high - apart.low)


def test_an_interval_is_plain():
    assert bootstrap(lambda x: 2, [1, 2, 3], repeats=3) == Interval(2.0, 2.0, 2.0)


# Errors


GOOD = np.random.default_rng(5).normal(size=(8, 2))


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (GOOD[0], GOOD, r"a must have the shape \(rows, features\), not \(2,\)"),
        (GOOD, GOOD[None], r"b must have the shape"),
        (GOOD[:, :0], GOOD, r"a must have the shape"),
        ([["x", "y"]] * 3, GOOD, "a must be numbers"),
        ([[1.0], [1.0, 2.0]], GOOD, "a must be numbers"),
        (GOOD, GOOD[:, :1], "a has 2, b has 1"),
        (GOOD, GOOD[:1], "b has 1 rows; a covariance takes at least 2"),
        (np.where(np.arange(8)[:, None] == 4, np.nan, GOOD), GOOD, "a has numbers that are not finite, first in row 4"),
        (GOOD, GOOD / [[1.0, np.inf]] + [[np.inf, 0]], "b has numbers that are not finite, first in row 0"),
    ],
)
def test_bad_features_are_named(a, b, message):
    with pytest.raises(PagoptError, match=message):
        frechet_distance(a, b)


def test_neighbours_need_enough_rows():
    with pytest.raises(PagoptError, match="generated has 5 rows; k = 5 neighbours takes at least 6"):
        precision_recall_density_coverage(GOOD, GOOD[:5])
    with pytest.raises(PagoptError, match="k must be at least 1, not 0"):
        precision_recall_density_coverage(GOOD, GOOD, k=0)


@pytest.mark.parametrize(
    ("samples", "options", "message"),
    [
        ((), {}, "nothing to draw from"),
        ((3.0,), {}, r"shape \(\)"),
        ((GOOD[:1],), {}, r"at least 2 rows; got an array of shape \(1, 2\)"),
        ((), {"paired": (GOOD, GOOD[:5])}, "equally many rows, got 5, 8"),
        ((GOOD,), {"repeats": 0}, "repeats must be at least 1, not 0"),
        ((GOOD,), {"confidence": 1.0}, "between 0 and 1, exclusive, not 1"),
        ((GOOD,), {"confidence": float("nan")}, "between 0 and 1"),
        ((GOOD,), {"kind": "studentized"}, "unknown kind of interval 'studentized'"),
        ((GOOD + np.inf,), {}, "the statistic is not finite"),
    ],
)
def test_bad_samples_are_named(samples, options, message):
    with pytest.raises(PagoptError, match=message):
        bootstrap(lambda *arrays: float(np.mean(arrays[0])), *samples, **options)
