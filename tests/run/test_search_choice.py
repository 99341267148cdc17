"""A study with another search than the exhaustive one, and with a budget."""

from __future__ import annotations

import json
import math
import sqlite3
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pagopt.errors import StudyError, UnknownName
from pagopt.experiment import run_study
from pagopt.folder import Folder, configuration
from pagopt.recipe import Recipe
from pagopt.results import load_results
from pagopt.reward import RewardSpec
from pagopt.search import SEARCHES, HeadHunter, Lookahead, Racing, Refinement, Search
from pagopt.search.budget import Allowance, Budget, Spending, Spent, search_within
from pagopt.study import Study
from tests.search.landscape import World

TRAINER = {"accelerator": "cpu"}


def drawn(out: Path) -> int:
    return len(list((out / "store" / "images").rglob("*.webp")))


@pytest.mark.parametrize("name", sorted(SEARCHES))
def test_every_search_runs_as_a_study(name: str, study: Study, tmp_path: Path) -> None:
    options = {"random": {"size": 2, "number": 4}}.get(name, {})
    results = run_study(replace(study, search=name, search_options=options), name, tmp_path / "run", trainer=TRAINER)
    assert results.recipe.heads
    assert load_results(tmp_path / "run" / "results.json") == results
    assert (tmp_path / "run" / "report.html").stat().st_size > 5000


def test_a_race_keeps_to_a_budget_of_images(study: Study, tmp_path: Path) -> None:
    study = replace(study, prompts=["red apple", "house", "cat face", "boat"], search="racing", rounds=1)
    fixed = 4 * (1 + 1 + 3) + 4 * 3
    raced = run_study(replace(study, budget=f"{fixed + 20}-images"), "tiny", tmp_path / "run", trainer=TRAINER)
    assert drawn(tmp_path / "run") <= fixed + 20
    assert len(raced.recipe.heads) == 1
    assert min(raced.rounds[0].tasks.values()) == 2
    assert max(raced.rounds[0].tasks.values()) == 4


def test_the_exhaustive_search_stops_at_the_last_round_that_is_paid_for(study: Study, tmp_path: Path) -> None:
    whole = run_study(study, "tiny", tmp_path / "whole", trainer=TRAINER)
    first_round = 2 * (1 + 1 + 3) + 4 * 3 + 2 * (6 + 1)
    short = run_study(replace(study, budget=f"{first_round + 3} images"), "tiny", tmp_path / "run", trainer=TRAINER)
    assert short.rounds == whole.rounds[:1]
    assert len(short.recipe.heads) == 1
    assert set(short.recipe.heads) < set(whole.recipe.heads)


def test_more_budget_goes_on_in_the_same_folder(study: Study, tmp_path: Path) -> None:
    out = tmp_path / "run"
    short = run_study(replace(study, budget="40-images"), "tiny", out, trainer=TRAINER)
    assert len(short.rounds) == 1
    before = {path.name: path.stat().st_mtime_ns for path in out.rglob("*.webp") if path.name != "sheet.png"}
    again = run_study(replace(study, budget="40-images"), "tiny", out, trainer=TRAINER)
    assert again == short
    whole = run_study(study, "tiny", out, trainer=TRAINER)
    assert len(whole.rounds) == 2
    assert before.items() <= {path.name: path.stat().st_mtime_ns for path in out.rglob("*.webp")}.items()
    with pytest.raises(StudyError, match="holds the run of another study"):
        run_study(replace(study, scale=1.25), "tiny", out, trainer=TRAINER)


def test_more_budget_is_not_finished_by_what_the_smaller_one_found(study: Study, tmp_path: Path) -> None:
    """Stopped before its end, the larger run has to go on."""
    out, more = tmp_path / "run", replace(study, budget="500-images")
    short = run_study(replace(study, budget="40-images"), "tiny", out, trainer=TRAINER)
    Folder(out, configuration(more, "tiny", TRAINER)).claim()  # and killed
    assert not (out / "results.json").exists()
    again = run_study(more, "tiny", out, trainer=TRAINER)
    assert len(again.rounds) > len(short.rounds)


def test_a_budget_of_time_ends_in_time(study: Study, tmp_path: Path) -> None:
    start = time.monotonic()
    results = run_study(replace(study, budget="1h"), "tiny", tmp_path / "run", trainer=TRAINER)
    assert len(results.rounds) == 2
    assert time.monotonic() - start < 3600


def test_a_budget_of_time_is_not_used_up_by_what_the_store_has(study: Study, tmp_path: Path) -> None:
    """Nothing is drawn then, so nothing says how long an image takes, least of all the time that starting took."""
    whole = run_study(study, "tiny", tmp_path / "run", trainer=TRAINER)
    (tmp_path / "run" / "results.json").unlink()
    again = run_study(replace(study, budget="30s"), "tiny", tmp_path / "run", trainer=TRAINER)
    assert again.images_generated == 0
    assert again.recipe == whole.recipe
    waiting = Spending(fixed=22, reserved=400, drawn=0, start=time.monotonic() - 2.0, agree=lambda value: value)
    world = World(0, heads=6, tasks=4)
    recipe, rounds = search_within(
        Budget(seconds=30.0), waiting, HeadHunter(2, 1), world, world.pool, Recipe(), 4, lambda done: None
    )
    assert len(rounds) == len(recipe.heads) == 2


def test_a_budget_of_time_that_runs_out_stops_at_the_last_round(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a clock of its own: an image takes a second, 20 were drawn before, and 10 are to come after."""
    world, now = World(0, heads=6, tasks=4), 20.0
    monkeypatch.setattr("pagopt.search.budget.time", SimpleNamespace(monotonic=lambda: now))

    def drawn(recipes: Sequence[Recipe], tasks: Sequence[int] | None = None, part: float = 1.0) -> NDArray[np.float64]:
        nonlocal now
        now += 4 * len(recipes)
        return world(recipes, tasks)

    spending = Spending(fixed=30, reserved=10, drawn=20, start=0.0, agree=lambda value: value)

    def search(seconds: float) -> int:
        nonlocal now
        now = 20.0
        args = (drawn, world.pool, Recipe(), 4, lambda done: None)
        recipe, rounds = search_within(Budget(seconds=seconds), spending, HeadHunter(5, 1), *args)
        assert len(recipe.heads) == len(rounds)
        assert now + 10 <= seconds
        return len(rounds)

    first, second = 4 * (6 + 1), 4 * (5 + 1)
    assert search(30.0 + first) == 1
    assert search(30.0 + first + second - 1) == 1
    assert search(30.0 + first + second) == 2
    with pytest.raises(StudyError, match=r"does not pay for the first round .* up to 100 images, and has 27"):
        search(30.0 + first - 1)
    # Where the store had what came before, nothing says how long an image takes.
    spending = replace(spending, drawn=0)
    with pytest.raises(StudyError, match="up to 100 images, and its 5 s are over"):
        search(5.0)


@pytest.mark.parametrize(
    ("budget", "says"),
    [
        (
            "24-images",
            "not pay for the first round of the search: the search would take up to 26 images, and has 2",
        ),
        ("0.01s", "s alone, and its budget is 0 s"),
    ],
)
def test_a_budget_that_is_too_small_says_so_and_keeps_what_is_drawn(
    budget: str, says: str, study: Study, tmp_path: Path
) -> None:
    with pytest.raises(StudyError, match=says):
        run_study(replace(study, budget=budget), "tiny", tmp_path / "run", trainer=TRAINER)
    assert drawn(tmp_path / "run") > 0


def test_a_budget_below_that_of_the_comparison_is_refused_before_anything_is_drawn(
    study: Study, tmp_path: Path
) -> None:
    with pytest.raises(StudyError, match="takes 22 images alone, and its budget is 10"):
        run_study(replace(study, budget="10-images"), "tiny", tmp_path / "run", trainer=TRAINER)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("500-images", Budget(images=500)),
        ("1 image", Budget(images=1)),
        ("2h", Budget(seconds=7200)),
        ("1h30m", Budget(seconds=5400)),
        ("1.5h", Budget(seconds=5400)),
        ("45s", Budget(seconds=45)),
        ("10min", Budget(seconds=600)),
    ],
)
def test_budgets_are_read(text: str, budget: Budget) -> None:
    assert Budget.parse(text) == budget


@pytest.mark.parametrize("text", ["", "500", "two hours", "-3h", "0-images", "0h", "5 images 2h"])
def test_other_budgets_are_refused(text: str) -> None:
    with pytest.raises(StudyError, match="budget is"):
        Budget.parse(text)


def test_a_first_look_counts_as_the_steps_that_it_takes(study: Study, tmp_path: Path) -> None:
    """Of three steps 0.5 is two."""
    raced = replace(study, search="racing", search_options={"cheap": 0.5}, steps=3, rounds=1)
    assert raced.searcher() == Racing(1, 1, cheap=2 / 3)
    fixed = 2 * (1 + 1 + 3) + 4 * 3
    look, checked, race = math.ceil(2 / 3 * 12), 12, 12 + 2
    out, paid = tmp_path / "run", replace(raced, budget=f"{fixed + look + checked + race}-images")
    results = run_study(paid, "tiny", out, trainer=TRAINER)
    assert "67% of the steps" in results.rounds[0].note
    assert f"A budget counts its 12 images as {look}." in results.rounds[0].note
    short = replace(paid, budget=f"{fixed + look + checked + race - 1}-images")
    with pytest.raises(StudyError, match=f"draws at least {look + checked + race} images with it"):
        run_study(short, "tiny", tmp_path / "short", trainer=TRAINER)
    with pytest.raises(StudyError, match=r"cheap: 0\.9 of 2 steps is all of them"):
        replace(raced, search_options={"cheap": 0.9}, steps=2)


@pytest.mark.parametrize(
    ("search", "first", "second"), [(HeadHunter(2, 2), 6 + 1, 4 + 1), (Lookahead(2, 3), 6 + 3, 4 + 3)]
)
@pytest.mark.parametrize("wrap", [False, True])
def test_a_round_is_paid_as_a_whole_or_not_begun(search: Search, first: int, second: int, wrap: bool) -> None:
    spending = Spending(fixed=0, reserved=0, drawn=0, start=0.0, agree=lambda value: value)
    for images, rounds in ((4 * (first + second) - 1, 1), (4 * (first + second), 2)):
        world = World(0, heads=6, tasks=4)
        asked = Refinement(search) if wrap else search
        args = (world, world.pool, Recipe(), 4, lambda done: None)
        _, trace = search_within(Budget(images=images), spending, asked, *args)
        assert len(trace) == rounds
        assert len(world.drawn) <= 4 * (first + second * (rounds - 1))


def test_an_allowance_draws_nothing_beyond_images_or_time() -> None:
    world = World(0, heads=6, tasks=4)
    recipes = [Recipe(heads=(head,)) for head in world.pool[:3]]
    allowance = Allowance(world, tasks=4, images=20)
    allowance(recipes)
    allowance(recipes, [0, 1])
    with pytest.raises(Spent):
        allowance(recipes, [2])
    assert (allowance.asked, len(world.drawn)) == (18, 18)
    late = Allowance(world, tasks=4, until=time.monotonic() + 5, pace=1.0)
    late(recipes, [0])
    with pytest.raises(Spent):
        late(recipes)


def test_options_of_a_search_are_checked_when_the_study_is_made(study: Study) -> None:
    with pytest.raises(UnknownName, match="racing"):
        replace(study, search="racign")
    with pytest.raises(UnknownName, match="share"):
        replace(study, search="racing", search_options={"shares": 0.5})
    with pytest.raises(StudyError, match="share must be above 0"):
        replace(study, search="racing", search_options={"share": 2.0})
    with pytest.raises(StudyError, match="budget is"):
        replace(study, budget="much")
    both = [RewardSpec("colorfulness"), RewardSpec("brightness")]
    with pytest.raises(StudyError, match=r"racing compares .* combine: pareto .* take search: exhaustive"):
        replace(study, search="racing", reward=both, combine="pareto")


def test_rounds_for_which_there_are_too_few_heads_are_refused_before_anything_is_drawn(
    study: Study, tmp_path: Path
) -> None:
    for search in ("lookahead", "exhaustive", "racing"):
        with pytest.raises(StudyError, match=r"30 rounds of .* heads to choose from, but there are 6; lower rounds"):
            run_study(replace(study, search=search, rounds=30), "tiny", tmp_path / "run", trainer=TRAINER)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"search": "random"}, "subsets of 9 heads need 9 heads to choose from, but there are 6"),
        ({"search": "random", "search_options": {"size": 2}}, "have only 15 subsets of 2, but number is 128"),
        ({"search": "refinement", "prompts": ["house"]}, "over at least 2 tasks, but there is 1"),
        ({"search": "refinement", "search_options": {"budget": 3}}, r"are 4 images on 2 tasks, .* may cost 3"),
        ({"search": "layers", "rounds": 4}, "4 rounds need 4 layers to choose from, but there are 3"),
        ({"search": "racing", "search_options": {"seed": -1}}, "seed must be a whole number of at least 0, not -1"),
        ({"search": "racing", "search_options": {"seed": 1.5}}, r"seed must be a whole number .* not 1\.5"),
        ({"search": "racing", "search_options": {"budget": 9.5}}, r"budget must be a whole number .* not 9\.5"),
    ],
)
def test_options_that_do_not_fit_are_refused_before_anything_is_drawn(
    asked: dict[str, Any], says: str, study: Study, tmp_path: Path
) -> None:
    with pytest.raises(StudyError, match=says):
        run_study(replace(study, **asked), "tiny", tmp_path / "run", trainer=TRAINER)
    assert not (tmp_path / "run").exists()


def test_a_first_look_draws_fewer_steps(study: Study, tmp_path: Path) -> None:
    out = tmp_path / "run"
    raced = replace(study, search="racing", search_options={"cheap": 0.5, "share": 1.0}, rounds=1)
    results = run_study(raced, "tiny", out, trainer=TRAINER)
    assert "A first look at all heads with 50% of the steps" in results.rounds[0].note
    assert "A budget counts its 12 images as 6." in results.rounds[0].note
    database = sqlite3.connect(out / "store" / "index.sqlite")
    steps = [json.loads(row[0])["steps"] for row in database.execute("SELECT description FROM images")]
    database.close()
    assert steps.count(1) == 6 * 2
    assert results.images_generated == len(steps)
    assert set(steps) == {1, 2}
