"""The mixed model against its definition, and its probabilities against what happens."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pagopt.search.evidence import Belief, _fit, believe

Array = NDArray[np.float64]


def holed(seed: int, n: int = 9, m: int = 5) -> Array:
    """A table as a race leaves it: the later the task, the fewer rows have seen it."""
    chance = np.random.default_rng(seed)
    table = chance.normal(size=n)[:, None] + 10 + chance.normal(scale=2, size=m) + chance.normal(size=(n, m))
    seen = np.array([2, *chance.integers(2, m + 1, size=n - 2), m])
    table[np.arange(m)[None, :] >= seen[:, None]] = np.nan
    return table


def by_definition(table: Array, known: Array, ratio: Array) -> tuple[Array, float, float]:
    """Effects, noise variance and restricted likelihood from the full covariance of the scores."""
    rows, columns = np.nonzero(~np.isnan(table))
    y = table[rows, columns]
    n, m = table.shape
    x = np.eye(m)[columns]
    if known.any():
        x = np.hstack([x, known[rows][:, None]])
    z = np.eye(n)[rows]
    v = np.eye(len(y)) + z @ np.diag(ratio) @ z.T
    vi = np.linalg.inv(v)
    beta = np.linalg.solve(x.T @ vi @ x, x.T @ vi @ y)
    left = y - x @ beta
    freedom = len(y) - x.shape[1]
    noise2 = float(left @ vi @ left) / freedom
    effects = beta[:m].mean() + np.diag(ratio) @ z.T @ vi @ left
    if known.any():
        effects = effects + known * beta[m]
    determinants = np.linalg.slogdet(v)[1] + np.linalg.slogdet(x.T @ vi @ x)[1]
    return effects, noise2, float(-0.5 * (freedom * np.log(noise2) + determinants))


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), size=st.floats(0.01, 100.0), informed=st.booleans())
def test_equals_the_model_written_out(seed: int, size: float, informed: bool) -> None:
    table = holed(seed)
    chance = np.random.default_rng(seed + 1)
    known = chance.normal(size=len(table)) if informed else np.zeros(len(table))
    known -= known.mean()
    ratio = size + chance.uniform(size=len(table))
    fit = _fit(table, known, ratio)
    effects, noise2, likelihood = by_definition(table, known, ratio)
    np.testing.assert_allclose(fit.mean, effects, atol=1e-6)
    assert fit.noise**2 == pytest.approx(noise2, rel=1e-6)
    one = np.ones(len(table))
    gain = fit.likelihood - _fit(table, known, one).likelihood
    assert gain == pytest.approx(likelihood - by_definition(table, known, one)[2], abs=1e-5)


def earlier(mean: Array, variance: float) -> Belief:
    return Belief(mean, variance * np.eye(len(mean)), 0.0, 0.0)


def test_a_full_table_is_ordered_by_its_means() -> None:
    table = np.random.default_rng(0).normal(size=(12, 7))
    np.testing.assert_array_equal(believe(table).order(), np.argsort(-table.mean(axis=1)))


def test_a_row_with_few_entries_is_drawn_to_the_others() -> None:
    table = np.random.default_rng(3).normal(size=(10, 8))
    table[0, :2] = table[:, :2].max() + 1.0
    table[0, 2:] = np.nan
    belief = believe(table)
    assert table[:, :2].mean() < belief.mean[0] < table[0, 0]
    assert belief.covariance[0, 0] > 1.5 * belief.covariance[1, 1]


def test_what_was_known_counts_as_far_as_the_table_bears_it_out() -> None:
    chance = np.random.default_rng(6)
    effects = chance.normal(size=40)
    table = effects[:, None] + chance.normal(scale=3, size=(40, 2))
    plain, helped = believe(table), believe(table, earlier(5 * effects - 100, 0.0))
    assert helped.slope == pytest.approx(np.polyfit(5 * effects, table.mean(axis=1), 1)[0])
    assert np.corrcoef(helped.mean, effects)[0, 1] > np.corrcoef(plain.mean, effects)[0, 1] + 0.1
    misled = believe(table, earlier(-effects, 0.0))
    assert misled.slope == 0
    np.testing.assert_array_equal(misled.mean, plain.mean)


def test_what_was_hardly_known_gives_way() -> None:
    chance = np.random.default_rng(8)
    effects = chance.normal(size=30)
    table = effects[:, None] + chance.normal(scale=0.5, size=(30, 3))
    before = effects.copy()
    before[0] -= 3.0  # wrong about one
    doubts = np.full(30, 0.01)
    sure = believe(table, Belief(before, np.diag(doubts), 0.0, 0.0))
    doubts[0] = 5.0
    doubting = believe(table, Belief(before, np.diag(doubts), 0.0, 0.0))
    assert abs(doubting.mean[0] - effects[0]) < abs(sure.mean[0] - effects[0])
    assert doubting.covariance[0, 0] > 1.5 * doubting.covariance[1, 1]


def test_chances_are_shares_of_the_places() -> None:
    belief = believe(holed(7))
    chances = belief.chances(3)
    assert chances.sum() == pytest.approx(3)
    assert set(np.argsort(-chances)[:2]) <= set(belief.order()[:4].tolist())
    np.testing.assert_array_equal(belief.chances(len(chances)), 1)


@pytest.mark.parametrize("noise", [0.7, 2.0])
def test_chances_come_true(noise: float) -> None:
    claimed, right = 0.0, 0
    for seed in range(120):
        chance = np.random.default_rng(seed)
        effects = chance.normal(size=30)
        table = effects[:, None] + chance.normal(size=4) + chance.normal(scale=noise, size=(30, 4))
        table[np.argsort(table[:, :2].sum(axis=1))[:15], 2:] = np.nan  # the worse half goes
        belief = believe(table)
        chosen = belief.order()[:3]
        claimed += belief.chances(3)[chosen].sum()
        right += len(set(chosen) & set(np.argsort(-effects)[:3]))
    assert claimed / 120 == pytest.approx(right / 120, abs=0.25)


def test_equal_scores_and_a_single_task_are_no_trouble() -> None:
    assert believe(np.ones((6, 3))).order().tolist() == list(range(6))
    single = believe(np.arange(5.0)[:, None])
    assert single.order().tolist() == [4, 3, 2, 1, 0]
    assert single.chances(1)[4] < 0.9
