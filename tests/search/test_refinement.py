"""Refinement against the same written out slowly, and what it promises: a gain that is more than noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest

from pagopt.combine import COMBINATIONS
from pagopt.errors import StudyError
from pagopt.heads import Head
from pagopt.recipe import Recipe
from pagopt.results import Round
from pagopt.search import HeadHunter, Racing, Search
from pagopt.search.candidates import added, touched
from pagopt.search.interface import Evaluate, Found, OnRound
from pagopt.search.layers import LayerSweep
from pagopt.search.lookahead import Lookahead
from pagopt.search.random_subsets import RandomSubsets
from pagopt.search.refinement import Refinement
from tests.search.landscape import World
from tests.search.ordered import TwoRewards


@dataclass(frozen=True)
class Given:
    """A search that has its answer already."""

    heads: tuple[Head, ...]

    def images(self, pool: int, tasks: int) -> int:
        return 0

    def run(
        self, evaluate: Evaluate, pool: Sequence[Head], recipe: Recipe, tasks: int, on_round: OnRound | None = None
    ) -> Found:
        return recipe.replace(heads=self.heads), []


def slow_refinement(world: World, heads: tuple[Head, ...], errors: float) -> set[Head]:
    """Removals while they help, else exchanges with any head, the best that is clear first."""
    selected = set(heads)

    def gain(other: set[Head]) -> tuple[float, bool]:
        gaps = (world([Recipe(heads=other)]) - world([Recipe(heads=selected)]))[0]
        return gaps.mean(), gaps.mean() > errors * gaps.std(ddof=1) / np.sqrt(len(gaps))

    while True:
        removals = [selected - {old} for old in selected if len(selected) > 1]
        exchanges = [selected - {old} | {new} for old in selected for new in set(world.pool) - selected]
        for changes in (removals, exchanges):
            clear = [other for other in changes if gain(other)[1]]
            if clear:
                selected = max(clear, key=lambda other: gain(other)[0])
                break
        else:
            return selected


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("errors", [0.0, 1.0, 2.5])
def test_changes_what_the_slow_refinement_changes(seed: int, errors: float) -> None:
    world = World(seed, heads=12, tasks=5, pair=1.0)
    start = tuple(world.pool[seed % 4 :: 3])
    expected = slow_refinement(world, start, errors)
    world.drawn = []
    search = Refinement(Given(start), budget=10**6, partners=12, errors=errors)
    recipe, trace = search.run(world, world.pool, Recipe(scale=2.0), 5)
    assert set(recipe.heads) == expected
    assert recipe.scale == 2.0
    assert len(set(world.drawn)) == len(world.drawn)
    assert trace[-1].score.mean == pytest.approx(world([recipe]).mean())


STARTS: dict[str, Search] = {
    "headhunter": HeadHunter(2, 3),
    "racing": Racing(2, 3),
    "random": RandomSubsets(6, 20, regress=True),
    "layers": LayerSweep(2),
    "lookahead": Lookahead(2, 4),
    "refined": Refinement(HeadHunter(2, 2), share=0.2),
}


@pytest.mark.parametrize("name", STARTS)
def test_takes_only_what_is_clearly_better_and_says_by_how_much(name: str) -> None:
    taken = 0
    for seed in range(4):
        world = World(seed, heads=24, tasks=8, pair=1.0)
        first, before = STARTS[name].run(world, world.pool, Recipe(), 8)
        world.drawn = []
        search = Refinement(STARTS[name], share=0.6, errors=1.5)
        rounds: list[Round] = []
        recipe, trace = search.run(world, world.pool, Recipe(), 8, rounds.append)
        assert rounds == trace
        assert trace[: len(before)] == before
        assert [done.number for done in trace] == list(range(1, len(trace) + 1))
        assert len(world.drawn) <= search.images(24, 8)
        assert len(set(world.drawn)) == len(world.drawn)
        heads = first.heads
        for done in trace[len(before) :]:
            assert tuple(Head.parse(name) for name in done.base) == heads
            for change in done.chosen:
                after = added(heads, change)
                gaps = (world([Recipe(heads=after)]) - world([Recipe(heads=heads)]))[0]
                se = gaps.std(ddof=1) / np.sqrt(8)
                assert gaps.mean() > 1.5 * se
                assert f"Taken: {change}, better by {gaps.mean():.3g} \N{PLUS-MINUS SIGN} {se:.2g}" in done.note
                heads = after
                taken += 1
            if not done.chosen:
                assert done.note.startswith("None of ")
            assert done.score.mean == pytest.approx(world([Recipe(heads=heads)]).mean())
        assert recipe.heads == heads
        assert world([recipe]).mean() >= world([first]).mean()
    assert taken > 0


def test_noise_alone_is_hardly_ever_taken() -> None:
    """Changes without any true effect: with a high bar none is taken, with none one is."""
    counts = {}
    for errors in (0.0, 4.0):
        counts[errors] = 0
        for seed in range(6):
            world = World(seed, heads=12, tasks=16, pair=0.0)
            world.effect = dict.fromkeys(world.pool, 0.0)
            search = Refinement(Given(tuple(world.pool[:4])), budget=10**6, errors=errors)
            _, trace = search.run(world, world.pool, Recipe(), 16)
            counts[errors] += sum(bool(done.chosen) for done in trace)
    assert counts[4.0] == 0
    assert counts[0.0] > 6


def test_removals_come_before_exchanges_and_again_after_them() -> None:
    kinds = []
    for seed in range(6):
        world = World(seed, heads=18, tasks=8, pair=1.0)
        search = Refinement(Given(tuple(world.pool[:6])), budget=10**6)
        trace = search.run(world, world.pool, Recipe(), 8)[1]
        tried = ["removal" if not touched(next(iter(done.scores)))[0] else "exchange" for done in trace]
        for kind, done, then in zip(tried, trace, [*tried[1:], "end"], strict=True):
            wanted = "removal" if done.chosen else "exchange" if kind == "removal" else "end"
            assert then == wanted
        kinds += [kind for kind, done in zip(tried, trace, strict=True) if done.chosen]
    assert set(kinds) == {"removal", "exchange"}


def test_the_budget_is_kept_to_the_image_and_named() -> None:
    world = World(0, heads=48, tasks=8, pair=1.0)
    whole = len(Refinement(HeadHunter(2, 3), budget=10**6).run(world, world.pool, Recipe(), 8)[1])
    cut = 0
    for budget in range(16, 400, 40):
        world.drawn = []
        search = Refinement(HeadHunter(2, 3), budget=budget)
        _, trace = search.run(world, world.pool, Recipe(), 8)
        assert len(world.drawn) <= search.images(48, 8) == HeadHunter(2, 3).images(48, 8) + budget
        assert 3 <= len(trace) <= whole
        if "The budget paid for" in trace[-1].note:
            cut += 1
            paid = len(trace[-1].scores)
            assert f"The budget paid for {paid} of " in trace[-1].note
            assert search.images(48, 8) - len(world.drawn) < 8, "one more would have fitted"
    assert cut > 3


def test_partners_are_the_best_heads_outside() -> None:
    world = World(5, heads=24, tasks=8)
    search = Refinement(HeadHunter(2, 2), budget=10**6, partners=3, errors=9.0)
    _, trace = search.run(world, world.pool, Recipe(), 8)
    last, exchanges = trace[1], trace[-1]
    outside = [name for name in last.ranked() if name not in last.chosen]
    partners = [str(touched(name)[0][0]) for name in exchanges.scores]
    assert list(dict.fromkeys(partners)) == outside[:3]
    assert len(exchanges.scores) == 3 * 4
    none = Refinement(HeadHunter(2, 2), budget=10**6, partners=0, errors=9.0)
    assert len(none.run(world, world.pool, Recipe(), 8)[1]) == 3


@pytest.mark.parametrize("combine", COMBINATIONS)
def test_the_objective_decides(combine: str) -> None:
    taken = 0
    for seed in range(5):
        world = TwoRewards(combine, seed)
        search = Refinement(HeadHunter(2, 2), share=2.0, errors=1.0)
        recipe, trace = search.run(world, world.pool, Recipe(), 5)
        assert len(world.drawn) <= search.images(12, 5)
        for done in trace[2:]:
            taken += len(done.chosen)
            if done.order:
                assert done.note.startswith("The objective puts ")
                assert done.chosen in ((), done.order[:1])
        assert recipe.heads
        assert trace[-1].score_parts == {label: pytest.approx(score) for label, score in trace[-1].score_parts.items()}
        for label, worlds in world.worlds.items():
            assert trace[-1].score_parts[label].mean == pytest.approx(worlds([recipe]).mean())
    assert taken > 0


def test_one_head_stays() -> None:
    world = World(0, heads=6, tasks=4, pair=0.0)
    world.effect = dict.fromkeys(world.pool, -50.0)
    recipe, _ = Refinement(Given(tuple(world.pool)), budget=10**6).run(world, world.pool, Recipe(), 4)
    assert len(recipe.heads) == 1


def test_nothing_found_is_nothing_refined() -> None:
    world = World(0, heads=6, tasks=4)
    recipe, trace = Refinement(Given(()), budget=100).run(world, world.pool, Recipe(), 4)
    assert (recipe.heads, trace) == ((), [])


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"share": 0.0}, "share must be a number above 0, not 0.0"),
        ({"share": float("nan")}, "share must be a number above 0, not nan"),
        ({"budget": 0}, "budget must be a whole number of at least 1, not 0"),
        ({"partners": -1}, "partners must be a whole number of at least 0, not -1"),
        ({"errors": -0.5}, "errors must be a number of at least 0, not -0.5"),
        ({"errors": float("inf")}, "errors must be a number of at least 0, not inf"),
    ],
)
def test_refuses_numbers_out_of_range(wrong: dict[str, float], says: str) -> None:
    with pytest.raises(StudyError, match=says):
        Refinement(**wrong)  # type: ignore[arg-type]


def test_refuses_what_tells_nothing_before_anything_is_drawn() -> None:
    world = World(0, heads=12, tasks=4)
    with pytest.raises(StudyError, match="differences over at least 2 tasks, but there is 1; add prompts"):
        Refinement(HeadHunter(1, 2)).run(world, world.pool, Recipe(), 1)
    with pytest.raises(StudyError, match="are 8 images on 4 tasks, but refining may cost 7; raise budget"):
        Refinement(HeadHunter(1, 2), budget=7).run(world, world.pool, Recipe(), 4)
    with pytest.raises(StudyError, match="but refining may cost 5; raise share"):
        Refinement(HeadHunter(1, 2), share=0.1).run(world, world.pool, Recipe(), 4)
    assert not world.drawn
