"""Races against the exhaustive search, on worlds whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pagopt.errors import StudyError
from pagopt.heads import Head
from pagopt.recipe import Recipe
from pagopt.results import Round
from pagopt.search import HeadHunter
from pagopt.search.race import rungs
from pagopt.search.racing import SUREST, Racing
from tests.search.landscape import World


@settings(max_examples=100, deadline=None)
@given(
    candidates=st.integers(2, 600),
    tasks=st.integers(1, 40),
    best=st.integers(1, 5),
    share=st.floats(0.05, 1.5),
    seen=st.sampled_from([0, 0, 2, 4]),
)
def test_rungs_keep_to_the_budget_and_use_it(candidates: int, tasks: int, best: int, share: float, seen: int) -> None:
    seen = min(seen, tasks - 1)
    budget = int(candidates * tasks * share)
    stages = rungs(candidates, tasks, best, budget, seen)
    counts = [seen, *(stage.tasks for stage in stages)]
    images = sum(s.candidates * (after - before) for s, before, after in zip(stages, counts, counts[1:], strict=False))
    assert images <= budget
    assert counts == sorted(set(counts))
    sizes = [candidates, *(stage.candidates for stage in stages)]
    assert sizes == sorted(sizes, reverse=True)
    assert all(size >= min(candidates, best + 1) for size in sizes)
    if stages and not seen:
        assert stages[0].candidates == candidates
    if budget >= candidates * (tasks - seen):
        assert stages[-1] == stages[-1].__class__(candidates, tasks)


@pytest.mark.parametrize("seed", range(5))
def test_with_every_image_it_selects_what_the_exhaustive_search_selects(seed: int) -> None:
    world = World(seed, heads=18, tasks=6, noise=0.05)
    all_in = Racing(rounds=3, heads_per_round=2, share=1.0, confidence=SUREST, start=1.0, rescue=0.0, seed=seed)
    raced, trace = all_in.run(world, world.pool, Recipe(scale=2.0), tasks=6)
    hunted, reference = HeadHunter(3, 2).run(world, world.pool, Recipe(scale=2.0), 6)
    assert raced == hunted
    assert [set(done.chosen) for done in trace] == [set(done.chosen) for done in reference]
    assert trace[-1].score == reference[-1].score


def test_a_quarter_of_the_images_finds_as_much() -> None:
    found, exhaustive, common, images = [], [], [], []
    for seed in range(12):
        world = World(seed)
        reference, first = HeadHunter(3, 3).run(world, world.pool, Recipe(), 16)
        every, world.drawn = len(world.drawn), []
        raced, trace = Racing(3, 3, seed=seed).run(world, world.pool, Recipe(), tasks=16)
        assert len(set(world.drawn)) == len(world.drawn), "an image was asked for twice"
        images.append(len(world.drawn) / every)
        common.append(len(set(trace[0].chosen) & set(first[0].chosen)))
        found.append(world.truth(raced.heads))
        exhaustive.append(world.truth(reference.heads))
    assert max(images) <= 0.25
    assert np.mean(common) >= 2
    lost = np.subtract(exhaustive, found)
    assert lost.mean() < 0.1 * np.mean(exhaustive)


def test_noise_does_not_empty_a_large_pool() -> None:
    """Each of 240 heads is hardly ever among the best three, before anything is known; that is nothing against one."""
    world = World(0, heads=240, tasks=16, noise=5.0, pair=0.0)
    racing = Racing(1, 3)
    _, trace = racing.run(world, world.pool, Recipe(), tasks=16)
    seen = np.array(list(trace[0].tasks.values()))
    assert len(world.drawn) > 0.95 * racing.images(240, 16)
    assert (seen > 2).sum() > 80
    assert (seen == 16).sum() > 8


def test_clear_differences_cost_less_than_the_budget() -> None:
    world = World(1, noise=0.05, pair=0.0)
    Racing(2, 2, share=0.5).run(world, world.pool, Recipe(), tasks=16)
    assert len(world.drawn) < 0.25 * 16 * (49 + 47)


def test_the_rescue_pool_brings_back_a_head_that_was_weak_alone() -> None:
    def selected(rescue: float) -> int:
        found = 0
        for seed in range(8):
            world = World(0, noise=0.1, pair=0.0)
            weak = min(world.pool, key=lambda head: world.effect[head])
            best = max(world.pool, key=lambda head: world.effect[head])
            world.pairs[min(weak, best), max(weak, best)] = 20.0
            recipe, _ = Racing(4, 2, rescue=rescue, seed=seed).run(world, world.pool, Recipe(), tasks=16)
            found += weak in recipe.heads
        return found

    assert selected(0.0) == 0
    assert selected(0.3) >= 3


def test_a_first_look_with_fewer_steps_makes_round_one_cheaper() -> None:
    world = World(1, noise=0.3)
    recipe, trace = Racing(2, 3, cheap=0.5).run(world, world.pool, Recipe(), tasks=16)
    assert {(heads, part) for heads, _, part in world.looked} == {((head,), 0.5) for head in world.pool}
    assert len(trace[0].scores) < 30
    assert "A first look at all heads with 50% of the steps agreed with full images by" in trace[0].note
    assert "first look" not in trace[1].note
    cost = len(world.drawn) + 0.5 * len(world.looked)
    assert cost <= Racing(2, 3, cheap=0.5).images(48, 16)
    best = sorted(world.pool, key=lambda head: -world.effect[head])[:6]
    assert len(set(recipe.heads) & set(best)) >= 4


def test_a_first_look_that_disagrees_is_dropped() -> None:
    world = World(1, noise=0.3)
    world.honest = False
    _, trace = Racing(2, 3, cheap=0.5, share=0.4).run(world, world.pool, Recipe(), tasks=16)
    assert len(trace[0].scores) == 48
    assert "less than 0.5: all heads raced" in trace[0].note


@pytest.mark.parametrize("honest", [True, False])
@pytest.mark.parametrize("tasks", [1, 2, 4, 5, 6, 8])
@pytest.mark.parametrize(("rounds", "each"), [(2, 2), (5, 3)])
def test_a_first_look_may_be_dropped_with_few_tasks(rounds: int, each: int, tasks: int, honest: bool) -> None:
    world = World(1, noise=0.3, tasks=tasks)
    world.honest = honest
    search = Racing(rounds, each, cheap=0.25)
    _, trace = search.run(world, world.pool, Recipe(), tasks=tasks)
    assert len(world.drawn) + 0.25 * len(world.looked) <= search.images(48, tasks)
    if not honest:
        assert len(trace[0].scores) == 48
        assert "all heads raced" in trace[0].note


def test_a_budget_pays_for_a_first_look_that_is_dropped_or_is_refused_before_it() -> None:
    world = World(1, noise=0.3, tasks=4)
    world.honest = False
    fewest = Racing(2, 2, cheap=0.25, share=0.01).images(48, 4)
    with pytest.raises(StudyError, match=rf"at least {fewest} images with it; the budget is {fewest - 1}"):
        Racing(2, 2, cheap=0.25, budget=fewest - 1).run(world, world.pool, Recipe(), tasks=4)
    assert not world.looked
    assert not world.drawn
    _, trace = Racing(2, 2, cheap=0.25, budget=fewest).run(world, world.pool, Recipe(), tasks=4)
    assert len(trace[0].scores) == 48
    assert len(world.drawn) + 0.25 * len(world.looked) <= fewest


def test_a_first_look_says_how_many_heads_showed_that_it_can_be_trusted() -> None:
    world = World(1, heads=12, noise=0.3)
    _, trace = Racing(1, 2, cheap=0.5).run(world, world.pool, Recipe(), tasks=16)
    assert "(rank correlation of 12 heads)" in trace[0].note


def test_the_trace_says_who_took_part_and_how_sure_it_is() -> None:
    world = World(2)
    rounds: list[Round] = []
    recipe, trace = Racing(2, 3, seed=4).run(world, world.pool, Recipe(), tasks=16, on_round=rounds.append)
    assert trace == rounds
    assert [done.number for done in rounds] == [1, 2]
    assert len(rounds[0].scores) == 48
    assert 6 <= len(rounds[1].scores) < 24
    assert set(rounds[1].base) == set(rounds[0].chosen)
    assert {Head.parse(name) for done in rounds for name in done.chosen} == set(recipe.heads)
    for done in rounds:
        assert 0 < done.right <= 3
        assert set(done.tasks) == set(done.scores)
        assert f"A race of {len(done.scores)} heads over 16 tasks: {sum(done.tasks.values())} images" in done.note
        assert all(2 <= count <= 16 for count in done.tasks.values())
        assert min(done.tasks[name] for name in done.chosen) > 2


def test_the_same_seed_races_alike() -> None:
    world = World(3)
    first, again, other = (Racing(2, 3, seed=seed).run(world, world.pool, Recipe(), tasks=16) for seed in (7, 7, 8))
    assert first == again
    assert first[1] != other[1]


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"rounds": 0}, "rounds must be at least 1, not 0"),
        ({"share": 0.0}, "share must be above 0"),
        ({"start": 1.5}, "start must be above 0 and at most 1, not 1.5"),
        ({"rescue": -0.1}, "rescue must be from 0 to 1"),
        ({"budget": 0}, "budget must be a whole number of at least 1, not 0"),
        ({"seed": 1.5}, "seed must be a whole number of at least 0, not 1.5"),
        ({"cheap": 1.0}, "cheap must be above 0 and below 1"),
        ({"confidence": 1.0}, "confidence must be at least 0.5 and at most 0.99975, not 1.0: .* 4000 draws"),
        ({"confidence": 0.9999}, "confidence must be at least 0.5 and at most 0.99975"),
    ],
)
def test_refuses_numbers_out_of_range(wrong: dict[str, float], says: str) -> None:
    with pytest.raises(StudyError, match=says):
        Racing(**wrong)  # type: ignore[arg-type]


def test_a_budget_that_is_too_small_says_what_is_needed() -> None:
    world = World(0)
    with pytest.raises(StudyError, match=r"a race of 48 heads draws 96 images .* has \d+ left"):
        Racing(2, 2, budget=100).run(world, world.pool, Recipe(), tasks=16)
    with pytest.raises(StudyError, match="need 60 heads to choose from, but there are 48"):
        Racing(20, 3).run(world, world.pool, Recipe(), tasks=16)
