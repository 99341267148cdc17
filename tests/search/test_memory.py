"""A memory answers as the evaluator does, and asks for everything once."""

from __future__ import annotations

import numpy as np
import pytest

from pagopt.combine import COMBINATIONS
from pagopt.recipe import Recipe
from pagopt.search.memory import Memory
from tests.search.landscape import World
from tests.search.ordered import TwoRewards


@pytest.mark.parametrize("combine", COMBINATIONS)
def test_it_ranks_as_without_it(combine: str) -> None:
    chance = np.random.default_rng(0)
    world, reference = TwoRewards(combine, 3), TwoRewards(combine, 3)
    memory = Memory(world, tasks=5)
    for _ in range(30):
        places = chance.choice(12, chance.integers(1, 6), replace=False)
        recipes = [Recipe(heads=world.pool[i]) for i in places]
        tasks = [None, chance.permutation(5).tolist(), [3, 1], [4, 0]][chance.integers(4)]
        price, before = memory.price(recipes), memory.images
        mine, theirs = memory(recipes, tasks), reference(recipes, tasks)
        np.testing.assert_array_equal(mine.values, theirs.values)
        np.testing.assert_array_equal(mine.order, theirs.order)
        assert mine.additive == theirs.additive
        assert mine.parts.keys() == theirs.parts.keys()
        for label, table in theirs.parts.items():
            np.testing.assert_array_equal(mine.parts[label], table)
        if tasks is None:
            assert memory.images - before == price
    assert memory.images == len(world.drawn)
    if COMBINATIONS[combine].additive:
        assert len(set(world.drawn)) == len(world.drawn)
        assert set(world.drawn) == set(reference.drawn)
    else:
        assert world.drawn == reference.drawn


def test_scores_without_an_order_are_ranked_by_their_means() -> None:
    world = World(0, heads=6, tasks=3)
    recipes = [Recipe(heads=head) for head in world.pool]
    memory = Memory(world, 3)
    for _ in range(2):
        ranking = memory(recipes)
        assert ranking.order.tolist() == sorted(range(6), key=lambda i: -world([recipes[i]]).mean())
    assert memory.images == 18
    assert memory.price(recipes) == 0
