"""HeadHunter against Algorithm 1 of the paper, written out as it stands there."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pagopt.errors import StudyError
from pagopt.heads import Head
from pagopt.recipe import Recipe
from pagopt.results import Round
from pagopt.search import HeadHunter, Racing

POOL = [Head(block, head) for block in range(3) for head in range(4)]


class Landscape:
    """Scores that depend on single heads and on pairs, so that later rounds differ from the first."""

    def __init__(self, seed: int, tasks: int) -> None:
        noise = np.random.default_rng(seed)
        self.single = {head: noise.normal(size=tasks) for head in POOL}
        self.pair = {frozenset((a, b)): noise.normal(size=tasks) for a in POOL for b in POOL if a < b}
        self.seen: list[tuple[Head, ...]] = []

    def __call__(self, recipes: Sequence[Recipe], tasks: Sequence[int] | None = None) -> NDArray[np.float64]:
        self.seen += [recipe.heads for recipe in recipes]
        return np.array([self.score(recipe.heads) for recipe in recipes])

    def score(self, heads: Sequence[Head]) -> NDArray[np.float64]:
        single = [self.single[head] for head in heads]
        pairs = [self.pair[frozenset((a, b))] for a in heads for b in heads if a < b]
        return np.sum(single + pairs, axis=0)


def algorithm_1(landscape: Landscape, rounds: int, k: int) -> list[set[Head]]:
    """The paper's pseudocode; the chosen set after each round."""
    selected: list[Head] = []
    pool = list(POOL)
    after = []
    for _ in range(rounds):
        scores = {head: landscape.score([*selected, head]).mean() for head in pool}
        for head in sorted(pool, key=lambda head: -scores[head])[:k]:
            selected.append(head)
            pool.remove(head)
        after.append(set(selected))
    return after


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), rounds=st.integers(1, 4), k=st.integers(1, 3), tasks=st.integers(1, 4))
def test_selects_what_algorithm_1_selects(seed: int, rounds: int, k: int, tasks: int) -> None:
    landscape = Landscape(seed, tasks)
    expected = algorithm_1(landscape, rounds, k)
    recipe, trace = HeadHunter(rounds, k).run(landscape, POOL, Recipe(scale=2.0, strength=0.5), tasks)
    assert set(recipe.heads) == expected[-1]
    assert (recipe.scale, recipe.strength) == (2.0, 0.5)
    for done, chosen in zip(trace, expected, strict=True):
        assert {Head.parse(name) for name in (*done.base, *done.chosen)} == chosen
        assert not set(done.base) & set(done.scores), "a selected head must not be evaluated again"
        best = landscape.score([Head.parse(name) for name in (*done.base, *done.chosen)])
        assert done.score.mean == pytest.approx(best.mean())


def test_evaluates_every_head_of_the_pool_once_a_round() -> None:
    landscape = Landscape(0, 2)
    search = HeadHunter(rounds=3, heads_per_round=2)
    rounds: list[Round] = []
    search.run(landscape, POOL, Recipe(), 2, on_round=rounds.append)
    assert [len(done.scores) for done in rounds] == [12, 10, 8]
    assert 2 * len(landscape.seen) == search.images(len(POOL), 2) == 2 * (13 + 11 + 9)


def test_ties_go_to_the_earlier_head() -> None:
    recipe, _ = HeadHunter(1, 2).run(lambda recipes, tasks=None: np.zeros((len(recipes), 3)), POOL[::-1], Recipe(), 3)
    assert recipe.heads == (POOL[0], POOL[1])


def test_standard_error_is_that_of_the_mean() -> None:
    table = np.array([[1.0, 3.0, 5.0]])
    _, (done,) = HeadHunter(1, 1).run(lambda recipes, tasks=None: table, POOL[:1], Recipe(), 3)
    assert done.score.mean == 3.0
    assert done.score.se == pytest.approx(2 / np.sqrt(3))


@pytest.mark.parametrize(("rounds", "k"), [(0, 1), (1, 0), (-1, 2)])
def test_refuses_numbers_below_one(rounds: int, k: int) -> None:
    with pytest.raises(StudyError, match="must be at least 1"):
        HeadHunter(rounds, k)


@pytest.mark.parametrize("search", [HeadHunter(20, 3), Racing(20, 3)])
def test_says_before_the_search_that_the_pool_is_too_small(search: HeadHunter | Racing) -> None:
    with pytest.raises(StudyError, match="20 rounds of 3 heads need 60 heads to choose from, but there are 48"):
        search.images(48, 16)


def test_refuses_a_pool_that_is_too_small() -> None:
    with pytest.raises(StudyError, match="need 8 heads to choose from, but there are 3"):
        HeadHunter(4, 2).run(lambda recipes, tasks=None: np.zeros((len(recipes), 1)), POOL[:3], Recipe(), 1)
