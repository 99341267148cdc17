"""Lookahead against all pairs, and against choosing one head at a time."""

from __future__ import annotations

from itertools import combinations
from math import comb

import numpy as np
import pytest

from pagopt.combine import COMBINATIONS
from pagopt.errors import StudyError
from pagopt.heads import Head
from pagopt.recipe import Recipe
from pagopt.search import HeadHunter
from pagopt.search.lookahead import Lookahead
from tests.search.landscape import World
from tests.search.ordered import TwoRewards


def slow_pairs(world: World, rounds: int, beam: int) -> list[set[Head]]:
    """The selection after each round."""
    selected: set[Head] = set()
    after = []

    def score(heads: set[Head]) -> float:
        return float(world([Recipe(heads=heads)]).mean())

    for _ in range(rounds):
        left = sorted(set(world.pool) - selected)
        good = sorted(left, key=lambda head: -score(selected | {head}))[:beam]
        selected = selected | set(max(combinations(good, 2), key=lambda pair: score(selected | set(pair))))
        after.append(selected)
    return after


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("beam", [2, 5, 14, 99])
def test_selects_the_pairs_of_the_slow_search(seed: int, beam: int) -> None:
    world = World(seed, heads=14, tasks=3, pair=1.0)
    expected = slow_pairs(world, 3, beam)
    world.drawn = []
    search = Lookahead(3, beam)
    recipe, trace = search.run(world, world.pool, Recipe(strength=0.5), 3)
    assert set(recipe.heads) == expected[-1]
    assert recipe.strength == 0.5
    assert [{Head.parse(n) for n in (*done.base, *done.chosen)} for done in trace] == expected
    for done in trace:
        assert done.score.mean == max(
            score.mean for name, score in done.scores.items() if len(name.split()) == 2 or "," in name or "-" in name
        )
    assert len(world.drawn) == len(set(world.drawn)) == search.images(14, 3)


def test_with_every_pair_it_finds_the_best_pair_there_is() -> None:
    for seed in range(5):
        world = World(seed, heads=18, tasks=4, pair=2.0)
        recipe, _ = Lookahead(1, beam=18).run(world, world.pool, Recipe(), 4)
        pairs = [Recipe(heads=pair) for pair in combinations(world.pool, 2)]
        assert recipe == pairs[int(world(pairs).mean(axis=1).argmax())]


def test_a_round_is_no_worse_than_the_two_best_heads() -> None:
    better = 0
    for seed in range(10):
        world = World(seed, heads=24, tasks=6, pair=1.0)
        _, (done,) = Lookahead(1, beam=6).run(world, world.pool, Recipe(), 6)
        _, (greedy,) = HeadHunter(1, 2).run(world, world.pool, Recipe(), 6)
        assert done.score.mean >= greedy.score.mean
        better += done.score.mean > greedy.score.mean
    assert better >= 3


@pytest.mark.parametrize("combine", COMBINATIONS)
def test_the_objective_decides(combine: str) -> None:
    for seed in range(4):
        world = TwoRewards(combine, seed)
        recipe, (done,) = Lookahead(1, beam=4).run(world, world.pool, Recipe(), 5)
        singles = {k: w([Recipe(heads=head) for head in world.pool]) for k, w in world.worlds.items()}
        beam = [world.pool[i] for i in world.objective.order(singles, world.baseline)[:4]]
        pairs = [Recipe(heads=pair) for pair in combinations(beam, 2)]
        tables = {k: w(pairs) for k, w in world.worlds.items()}
        assert recipe == pairs[int(world.objective.order(tables, world.baseline)[0])]
        assert len(done.scores) == len(done.ranked()) == 12 + comb(4, 2)
        assert set(done.ranked()) == set(done.scores) == set(done.parts[world.objective.labels[0]])


def test_ties_go_to_the_earlier_heads() -> None:
    world = World(0, heads=12, tasks=2)
    flat = lambda recipes, tasks=None: np.zeros((len(recipes), 2))  # noqa: E731
    recipe, _ = Lookahead(2, 3).run(flat, world.pool[::-1], Recipe(), 2)
    assert recipe.heads == tuple(world.pool[:4])


@pytest.mark.parametrize(
    ("rounds", "beam", "says"),
    [
        (0, 4, "rounds must be a whole number of at least 1, not 0"),
        (1, 1, "beam must be a whole number of at least 2, not 1"),
        (1, 3.0, "at least 2, not 3.0"),
    ],
)
def test_refuses_numbers_out_of_range(rounds: int, beam: float, says: str) -> None:
    with pytest.raises(StudyError, match=says):
        Lookahead(rounds, beam)  # type: ignore[arg-type]


def test_says_before_the_search_that_the_pool_is_too_small() -> None:
    with pytest.raises(StudyError, match="30 rounds of a pair need 60 heads to choose from, but there are 48"):
        Lookahead(30).images(48, 16)
    assert Lookahead(24, beam=2).images(48, 1) == sum(range(2, 49, 2)) + 24


def test_refuses_a_pool_that_is_too_small() -> None:
    world = World(0, heads=7, tasks=2)
    with pytest.raises(StudyError, match="4 rounds of a pair need 8 heads to choose from, but there are 7"):
        Lookahead(4).run(world, world.pool, Recipe(), 2)
    assert not world.drawn
