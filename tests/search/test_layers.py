"""Layer sweeps against the same written out slowly."""

from __future__ import annotations

import numpy as np
import pytest

from pagopt.combine import COMBINATIONS
from pagopt.errors import StudyError
from pagopt.heads import Head
from pagopt.recipe import Recipe
from pagopt.search.layers import LayerSweep
from tests.search.landscape import World
from tests.search.ordered import TwoRewards


def slow_sweep(world: World, rounds: int) -> list[set[int]]:
    """The layers after each round; ends where no further one helps."""
    layers: set[int] = set()
    after = []

    def score(blocks: set[int]) -> float:
        return float(world([Recipe(heads=[head for head in world.pool if head.block in blocks])]).mean())

    for _ in range(rounds):
        others = sorted({head.block for head in world.pool} - layers)
        best = max(others, key=lambda block: score(layers | {block}))
        if layers and score(layers | {best}) <= score(layers):
            break
        layers = layers | {best}
        after.append(layers)
    return after


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("rounds", [1, 4])
def test_selects_the_layers_of_the_slow_sweep(seed: int, rounds: int) -> None:
    world = World(seed, heads=33, tasks=4, pair=0.5)  # the last layer has three heads
    expected = slow_sweep(world, rounds)
    recipe, trace = LayerSweep(rounds).run(world, world.pool, Recipe(scale=2.0, cfg=1.5), 4)
    assert {head.block for head in recipe.heads} == expected[-1]
    assert recipe.heads == tuple(head for head in world.pool if head.block in expected[-1])
    assert (recipe.scale, recipe.cfg) == (2.0, 1.5)
    helped = [done for done in trace if done.chosen]
    assert [{Head.parse(name).block for name in done.base} for done in helped] == [set(), *expected[:-1]]
    assert len(trace) == len(helped) + (len(expected) < rounds)
    assert trace[-1].score.mean == pytest.approx(world([recipe]).mean())


def test_sweeps_do_stop_early_and_say_so() -> None:
    traces = []
    for seed in range(12):
        world = World(seed, heads=33, tasks=4, pair=0.5)
        traces.append(LayerSweep(4).run(world, world.pool, Recipe(), 4)[1])
    stopped = [trace for trace in traces if not trace[-1].chosen]
    assert 0 < len(stopped) < 12
    for trace in stopped:
        assert trace[-1].note == "No further layer is better than the selection: the search ends here."
        assert trace[-1].score == trace[-2].score


def test_a_layer_is_what_the_pool_holds_of_it_at_all_sites() -> None:
    world = World(0, heads=12, tasks=2)
    pool = [Head(0, 1), Head(0, 2), Head(1, 0), Head(1, 0, "attn2")]
    world.effect |= dict.fromkeys(pool, 1.0) | {Head(1, 0, "attn2"): 9.0}
    world.own[Head(1, 0, "attn2")] = world.own[Head(0, 0)]
    world.pairs |= {(a, b): 0.0 for a in pool for b in pool}
    recipe, (done,) = LayerSweep().run(world, pool, Recipe(), 2)
    assert list(done.scores) == ["L0.H1-2", "L1.H0 L1.attn2.H0"]
    assert recipe.heads == (Head(1, 0), Head(1, 0, "attn2"))
    assert len(world.drawn) == LayerSweep().images(pool, 2) == 4


@pytest.mark.parametrize("combine", COMBINATIONS)
def test_the_objective_decides(combine: str) -> None:
    for seed in range(6):
        world = TwoRewards(combine, seed, heads=30)
        recipe, trace = LayerSweep(3).run(world, world.pool, Recipe(), 5)
        assert len(world.drawn) <= LayerSweep(3).images(world.pool, 5)
        layers = [[h for h in world.pool if h.block == block] for block in range(5)]
        tables = {label: w([Recipe(heads=layer) for layer in layers]) for label, w in world.worlds.items()}
        order = world.objective.order(tables, world.baseline)
        assert trace[0].ranked() == [f"L{block}.H0-5" for block in order]
        assert trace[0].chosen == (f"L{order[0]}.H0-5",)
        assert not world.ahead(layers[order[0]], recipe.heads)


def test_ties_go_to_the_earlier_layer_and_to_fewer() -> None:
    world = World(0, heads=12, tasks=2)
    flat = lambda recipes, tasks=None: np.zeros((len(recipes), 2))  # noqa: E731
    recipe, trace = LayerSweep(2).run(flat, world.pool[::-1], Recipe(), 2)
    assert {head.block for head in recipe.heads} == {0}
    assert [done.chosen for done in trace] == [("L0.H0-5",), ()]


def test_refuses_what_cannot_be() -> None:
    with pytest.raises(StudyError, match="rounds must be a whole number of at least 1, not 0"):
        LayerSweep(0)
    world = World(0, heads=12, tasks=2)
    with pytest.raises(StudyError, match="3 rounds need 3 layers to choose from, but there are 2; lower rounds"):
        LayerSweep(3).run(world, world.pool, Recipe(), 2)
    with pytest.raises(StudyError, match="3 rounds need 3 layers to choose from, but there are 2; lower rounds"):
        LayerSweep(3).images(world.pool, 2)
    assert not world.drawn
