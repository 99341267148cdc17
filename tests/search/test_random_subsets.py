"""Random subsets: uniform, distinct, the best of them kept; and what a regression makes of them."""

from __future__ import annotations

from itertools import combinations
from math import comb

import numpy as np
import pytest
from scipy import stats

from pagopt.combine import COMBINATIONS
from pagopt.errors import StudyError
from pagopt.heads import Head, expand_heads
from pagopt.recipe import Recipe
from pagopt.search.random_subsets import RandomSubsets, importance
from tests.search.landscape import World
from tests.search.ordered import TwoRewards


@pytest.mark.parametrize("seed", range(5))
def test_keeps_the_best_of_what_it_drew(seed: int) -> None:
    world = World(seed, heads=20, tasks=4)
    search = RandomSubsets(size=5, number=30, seed=seed)
    recipe, (done,) = search.run(world, world.pool, Recipe(scale=1.5), 4)
    drawn = list(dict.fromkeys(heads for heads, _ in world.drawn))
    assert len(drawn) == 30
    assert all(len(heads) == 5 for heads in drawn)
    assert len(world.drawn) == search.images(20, 4) == 120
    assert recipe.heads == max(drawn, key=lambda heads: world([Recipe(heads=heads)]).mean())
    assert recipe.scale == 1.5
    assert [tuple(expand_heads(name)) for name in done.scores] == drawn
    assert done.score.mean == max(score.mean for score in done.scores.values())


def test_subsets_are_uniform() -> None:
    """A chi-squared test over all 20 subsets of 3 heads out of 6; it fails one time in 10,000 by chance."""
    world = World(0, heads=6, tasks=1)
    counts = dict.fromkeys(combinations(world.pool, 3), 0)
    for seed in range(1000):
        RandomSubsets(3, 1, seed=seed).run(world, world.pool, Recipe(), 1)
    for heads, _ in world.drawn:
        counts[heads] += 1
    assert stats.chisquare(list(counts.values())).pvalue > 1e-4


def test_all_subsets_can_be_drawn_and_then_the_best_is_found() -> None:
    world = World(1, heads=8, tasks=3, pair=1.0)
    recipe, _ = RandomSubsets(4, comb(8, 4)).run(world, world.pool, Recipe(), 3)
    every = [Recipe(heads=heads) for heads in combinations(world.pool, 4)]
    assert recipe == every[int(world(every).mean(axis=1).argmax())]


def test_a_larger_number_begins_with_the_same_subsets() -> None:
    world = World(0, heads=20, tasks=1)
    few, many = (
        list(RandomSubsets(4, number, seed=3).run(world, world.pool, Recipe(), 1)[1][0].scores) for number in (10, 25)
    )
    other = list(RandomSubsets(4, 10, seed=4).run(world, world.pool, Recipe(), 1)[1][0].scores)
    assert many[:10] == few != other


def test_importance_is_the_truth_where_there_is_no_noise() -> None:
    chance = np.random.default_rng(0)
    heads = [Head(0, number) for number in range(12)]
    effects = chance.normal(size=12)
    drawn = [sorted(chance.choice(12, 4, replace=False).tolist()) for _ in range(60)]
    scores = np.array([50 + effects[places].sum() for places in drawn])
    found = importance(heads, [[heads[i] for i in places] for places in drawn], scores)
    np.testing.assert_allclose(found, effects - effects.mean(), atol=0.01)


def test_importance_is_the_ridge_regression_with_the_least_generalised_error() -> None:
    """Written out with normal equations and a hat matrix."""
    chance = np.random.default_rng(1)
    for number, n in ((30, 10), (15, 20)):
        heads = [Head(0, i) for i in range(n)]
        drawn = [sorted(chance.choice(n, 4, replace=False).tolist()) for _ in range(number)]
        scores = chance.normal(size=n)[np.array(drawn)].sum(axis=1) + chance.normal(size=number)
        x = np.zeros((number, n))
        for row, places in zip(x, drawn, strict=True):
            row[places] = 1
        x -= x.mean(axis=0)
        y = scores - scores.mean()
        unit = float(np.mean(np.linalg.svd(x, compute_uv=False) ** 2))
        fits = []
        for penalty in unit * np.geomspace(1e-4, 1e4, 49):
            inverse = np.linalg.inv(x.T @ x + penalty * np.eye(n))
            hat = x @ inverse @ x.T
            error = float(((y - hat @ y) ** 2).sum()) / (number - 1 - np.trace(hat)) ** 2
            fits.append((error, inverse @ x.T @ y))
        expected = min(fits, key=lambda fit: fit[0])[1]
        found = importance(heads, [[heads[i] for i in places] for places in drawn], scores)
        np.testing.assert_allclose(found, expected, atol=1e-8)
        assert found.sum() == pytest.approx(0, abs=1e-8)


def test_regression_finds_more_at_the_same_cost_and_is_never_worse() -> None:
    plain, regressed = [], []
    for seed in range(8):
        world = World(seed)
        best, _ = RandomSubsets(9, 81, seed=seed).run(world, world.pool, Recipe(), 16)
        world.drawn = []
        search = RandomSubsets(9, 80, regress=True, seed=seed)
        found, trace = search.run(world, world.pool, Recipe(), 16)
        assert len(world.drawn) <= search.images(48, 16)
        assert trace[-1].score.mean >= max(score.mean for score in trace[0].scores.values())
        assert trace[-1].score.mean == pytest.approx(world([found]).mean())
        assert "highest importance by regression" in trace[1].note
        plain.append(world.truth(best.heads))
        regressed.append(world.truth(found.heads))
    assert np.mean(regressed) > np.mean(plain) + 1


def test_the_fitted_heads_may_lose_or_be_the_best_subset() -> None:
    notes = []
    for seed in range(8):
        world = World(seed, heads=8, tasks=4, pair=2.0 * (seed % 2))
        found, trace = RandomSubsets(3, comb(8, 3), regress=True, seed=seed).run(world, world.pool, Recipe(), 4)
        notes.append(trace[1].note.rsplit(") ", 1)[1])
        assert tuple(expand_heads(trace[1].chosen[0])) == found.heads
        assert next(iter(trace[1].scores)) == trace[0].chosen[0]
        assert len(trace[1].scores) == 2 - ("itself" in notes[-1])
        assert (trace[1].chosen == trace[0].chosen) == ("are better" not in notes[-1])
    assert notes[::2] == ["are the best subset itself."] * 4, "without pairs the effects add up"
    assert "are not better than the best subset, which stays." in notes


@pytest.mark.parametrize("combine", COMBINATIONS)
def test_the_objective_decides(combine: str) -> None:
    for seed in range(4):
        world = TwoRewards(combine, seed)
        search = RandomSubsets(3, 20, regress=True, seed=seed)
        recipe, trace = search.run(world, world.pool, Recipe(), 5)
        assert len(world.drawn) <= search.images(12, 5)
        first = expand_heads(trace[0].ranked()[0])
        assert trace[0].chosen == (trace[0].ranked()[0],)
        assert recipe.heads == tuple(first) or world.ahead(recipe.heads, first)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"size": 0}, "size must be a whole number of at least 1, not 0"),
        ({"number": -3}, "number must be a whole number of at least 1, not -3"),
        ({"size": True}, "not True"),
        ({"number": 1, "regress": True}, "regress needs at least 2 subsets"),
        ({"seed": -1}, "seed must be a whole number of at least 0, not -1"),
    ],
)
def test_refuses_numbers_out_of_range(wrong: dict[str, int], says: str) -> None:
    with pytest.raises(StudyError, match=says):
        RandomSubsets(**wrong)  # type: ignore[arg-type]


def test_refuses_a_pool_that_is_too_small() -> None:
    world = World(0, heads=6, tasks=2)
    with pytest.raises(StudyError, match="subsets of 7 heads need 7 heads to choose from, but there are 6; lower size"):
        RandomSubsets(7, 1).run(world, world.pool, Recipe(), 2)
    with pytest.raises(StudyError, match="6 heads have only 15 subsets of 4, but number is 16; lower number"):
        RandomSubsets(4, 16).run(world, world.pool, Recipe(), 2)
    assert not world.drawn
