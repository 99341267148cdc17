"""Trials with Optuna alone: samplers, storages, workers, and what goes wrong with them. Nothing is drawn."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from pagopt.errors import StudyError, UnknownName
from pagopt.recipe import Recipe
from pagopt.tuning.ledger import WORKER, Ledger, Seen
from pagopt.tuning.methods import make_pruner, make_sampler
from pagopt.tuning.space import Space
from pagopt.tuning.start import first_points
from pagopt.tuning.storage import is_alive, open_storage, open_study, shown, worker

optuna.logging.set_verbosity(optuna.logging.WARNING)
GIVEN: dict[str, Any] = {"strength": [0, 1], "scale": {"low": 0.5, "high": 8, "log": True}}


def space() -> Space:
    recipe = Recipe(heads="L1.H1 L0.H0", scale=2.0, cfg=1.0)
    return Space(GIVEN, recipe, recipe.heads, steps=2)


def ledger(address: str, total: int = 12, at_once: int = 4, sampler: str = "tpe", **options: Any) -> Ledger:
    storage = open_storage(address)
    methods = make_sampler(sampler, options, 3), make_pruner("none", {})
    study, _ = open_study(storage, "tiny", address, ["maximize"], {"space": GIVEN}, *methods)
    made = Ledger(study, space(), total, at_once, per_task=True, address=address)
    made.begin(first_points(space())[0])
    return made


def value(recipe: Recipe) -> float:
    """A hill whose top is at u = 0.3, w = 4."""
    return -((recipe.strengths[0] - 0.3) ** 2) - ((recipe.scale - 4) / 8) ** 2


def finish(book: Ledger, limit: int = 100) -> None:
    """Ask and tell, at most so many batches."""
    for _ in range(limit):
        batch = book.ask()
        if not batch:
            return
        for one in batch:
            seen = Seen()
            seen.objective[0] = value(one.recipe)
            book.tell(one.number, seen, [value(one.recipe)], {}, pruned=False)


@pytest.mark.parametrize("sampler", ["tpe", "random", "gp", "qmc"])
def test_every_sampler_goes_on_where_it_stopped(sampler: str, tmp_path: Path) -> None:
    """In one go and in two, with a process of its own for each: the same trials."""
    options = {"n_startup_trials": 5} if sampler in {"tpe", "gp"} else {}
    whole = ledger(str(tmp_path / "whole.journal"), sampler=sampler, **options)
    finish(whole)
    finish(ledger(str(tmp_path / "parts.journal"), sampler=sampler, **options), limit=2)
    rest = ledger(str(tmp_path / "parts.journal"), sampler=sampler, **options)
    finish(rest)
    drawn = [row.parameters for row in whole.rows()]
    assert len(drawn) == 12
    assert [row.parameters for row in rest.rows()] == drawn
    assert len({tuple(row.items()) for row in drawn}) >= 11, "qmc begins in the middle, where u = 0.5 is"


def test_another_seed_gives_other_trials(tmp_path: Path) -> None:
    books = [ledger(str(tmp_path / f"{n}.journal"), sampler="random") for n in "ab"]
    books[1].study.sampler = make_sampler("random", {}, 4)
    for book in books:
        finish(book)
    first, second = ([row.parameters for row in book.rows()] for book in books)
    assert first[:3] == second[:3], "the points that come first"
    assert all(a != b for a, b in zip(first[3:], second[3:], strict=True))


def test_a_batch_is_the_first_process_alone(tmp_path: Path) -> None:
    book = ledger(str(tmp_path / "j"), total=5, at_once=4)
    assert [one.number for one in book.ask()] == [0, 1, 2, 3]


def test_trials_of_a_process_that_is_gone_are_taken_back(tmp_path: Path) -> None:
    address = str(tmp_path / "j")
    dead = ledger(address)
    batch = dead.ask()
    gone = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True, check=True
    )
    for trial in dead.study.get_trials(states=(TrialState.RUNNING,)):
        name = f"{worker().split()[0]} {gone.stdout.strip()} 1"
        dead.study._storage.set_trial_user_attr(trial._trial_id, WORKER, name)
    rest = ledger(address)
    again = rest.ask()
    assert [(one.number, one.recipe) for one in again] == [(one.number, one.recipe) for one in batch]
    rest.give_back()
    finish(rest)
    rows = rest.rows()
    assert [row.number for row in rows] == list(range(12))
    points = [tuple(row.parameters.values()) for row in rows]
    for one in batch:
        assert points.count((one.recipe.strengths[0], one.recipe.scale)) == 1, "taken up again, once"


def test_trials_of_a_living_process_are_left_alone(tmp_path: Path) -> None:
    address = str(tmp_path / "j")
    one, other = ledger(address, total=6), ledger(address, total=6)
    held = one.ask()
    assert len(held) == 4
    finish(other)
    assert not other.is_over()
    for trial in held:
        seen = Seen()
        seen.objective[0] = value(trial.recipe)
        one.tell(trial.number, seen, [value(trial.recipe)], {}, pruned=False)
    assert other.is_over()
    assert len(one.rows()) == len(other.rows()) == 6


def test_one_too_many_is_given_back(tmp_path: Path) -> None:
    """Two workers that ask at the same moment: the later number goes."""
    address = str(tmp_path / "j")
    book, other = ledger(address, total=4, at_once=4), ledger(address, total=4, at_once=4)
    real = book._counted
    counts = 0

    def counted() -> Any:
        nonlocal counts
        found = real()
        counts += 1
        if counts == 1:  # between counting and asking, the other asks for two
            other.at_once = 2
            assert len(other.ask()) == 2
        return found

    book._counted = counted  # type: ignore[method-assign]
    mine = book.ask()
    assert len(mine) == 2
    assert len(other._running) == 2
    stopped = [trial for trial in book.study.get_trials() if "stopped" in trial.user_attrs]
    assert len(stopped) == 2
    assert len(real()) == 4


@pytest.mark.parametrize("finished", [False, True])
def test_another_worker_takes_a_trial_back_late(finished: bool, tmp_path: Path) -> None:
    """Two take back the same trial of a dead one; the second does it when the first has already taken it up."""
    address = str(tmp_path / "study.journal")
    book, other = ledger(address), ledger(address)
    ask, asked = book.study.ask, []

    def late() -> optuna.Trial:
        if len(asked) == 1:
            other._release(other._find(asked[0]))
        trial = ask()
        asked.append(trial.number)
        if finished and asked.count(trial.number) == 2:
            other.study.tell(trial.number, 5.0)
        return trial

    book.study.ask = late  # type: ignore[method-assign]
    batch = book.ask()
    assert asked[1] == asked[0], "it was asked for twice"
    numbers = [one.number for one in batch]
    assert len(numbers) == len(set(numbers)) == (2 if finished else 3)
    assert (asked[0] in numbers) is not finished
    for number in numbers:
        seen = Seen()
        seen.objective[0] = 1.0
        assert book.keep_on(number, seen, [0])
        book.tell(number, seen, [1.0], {}, pruned=False)
    finish(book)
    assert book.is_over()
    assert len(book.rows()) == 12


def test_another_worker_is_faster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two may take up the same trial of a dead one, and one finish it before the other has drawn its parameters."""
    address = str(tmp_path / "study.journal")
    slow, fast = ledger(address), ledger(address)
    draw, raced = Space.draw, []

    def late(self: Space, suggest: Any) -> Any:
        if not raced:
            drawn = fast.study.get_trials(states=(TrialState.RUNNING,))
            raced.append(number := drawn[0].number)
            fast.study.tell(number, 5.0)
        return draw(self, suggest)

    monkeypatch.setattr(Space, "draw", late)
    asked = [one.number for one in slow.ask()]
    assert len(asked) == 3
    assert raced[0] not in asked
    assert [row.values for row in slow.rows() if row.number == raced[0]] == [(5.0,)], "and it stays as it was told"


def test_a_worker_knows_who_lives() -> None:
    assert is_alive(worker())
    host, process, _ = worker().rsplit(" ", 2)
    assert not is_alive(f"{host} {process} 1"), "another process with the same number"
    assert is_alive(f"elsewhere {process} 1")


WORKER_SCRIPT = """
import sys, time
sys.path.insert(0, {root!r})
from tests.tune.test_ledger import finish, ledger
book = ledger({address!r}, total=24, at_once=3)
finish(book)
while not book.is_over():
    time.sleep(0.05)
print(len(book.rows()))
"""


def test_two_processes_on_one_journal_file_lose_nothing(tmp_path: Path) -> None:
    address = str(tmp_path / "study.journal")
    script = WORKER_SCRIPT.format(root=str(Path(__file__).parents[2]), address=address)
    both = [
        subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    done = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0], done
    assert [out.strip() for out, _ in done] == ["24", "24"]
    rows = ledger(address, total=24).rows()
    assert len({row.number for row in rows}) == 24
    assert {row.state for row in rows} == {"complete"}


def test_a_name_that_belongs_to_another_space_is_refused(tmp_path: Path) -> None:
    address = f"sqlite:///{tmp_path / 'study.db'}"
    ledger(address)
    methods = make_sampler("tpe", {}, 0), make_pruner("none", {})
    expected = r"(?s)has a study 'tiny' of something else:\n  space: there .* now .*--study_name"
    with pytest.raises(StudyError, match=expected) as no:
        open_study(open_storage(address), "tiny", address, ["maximize"], {"space": {"scale": [1, 2]}}, *methods)
    assert "'strength': [0, 1]" in str(no.value)
    optuna.create_study(storage=address, study_name="foreign")
    with pytest.raises(StudyError, match="'foreign' that pagopt did not make"):
        open_study(open_storage(address), "foreign", address, ["maximize"], {}, *methods)


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("sqlite:////no/such/folder/a.db", "cannot be reached: .*unable to open database file.* are kept"),
        ("nosuchbase://me:secret@host/a", r"nosuchbase://me:\*\*\*@host/a cannot be used|needs the Python package"),
        ("postgresql+nosuchdriver://me:secret@host/a", "needs the Python package|cannot be used"),
    ],
)
def test_a_storage_that_is_not_there(address: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pagopt.tuning.storage.PAUSE", 0.0)
    with pytest.raises(StudyError, match=message) as no:
        open_storage(address)
    assert "secret" not in str(no.value)
    assert "secret" not in shown(address)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"sampler": "tpee"}, UnknownName, "Did you mean 'tpe'. Known: tpe, random, gp, qmc"),
        ({"sampler_options": {"n_startup": 3}}, UnknownName, "Did you mean 'n_startup_trials'"),
        ({"sampler_options": {"seed": 3}}, StudyError, "the seed is tuning_seed"),
        ({"sampler_options": {"n_startup_trials": "three"}}, StudyError, "of tpe is a whole number, not 'three'"),
        ({"sampler_options": {"multivariate": 1}}, StudyError, "of tpe is true or false or null, not 1"),
        ({"sampler_options": {"gamma": 3}}, UnknownName, "Known: ((?!gamma|seed|constraints_func).)*$"),
        ({"sampler_options": {"constraints_func": "x"}}, UnknownName, "unknown option of the sampler 'tpe'"),
        # Optuna itself refuses these amid the run, after the startup trials.
        ({"sampler_options": {"n_ei_candidates": 0, "n_startup_trials": 50}}, StudyError, "does not take .* positive"),
        ({"sampler_options": {"prior_weight": -1.0}}, StudyError, "tpe does not take .* non-negative"),
        ({"pruner": "hyperband", "pruner_options": {"max_resource": 0}}, StudyError, "hyperband does not take"),
        ({"pruner_options": {"n_startup_steps": 1.5}}, StudyError, "of wilcoxon is a whole number, not 1.5"),
        ({"pruner": "wilcox"}, UnknownName, "Did you mean 'wilcoxon'"),
        ({"pruner_options": {"p_threshold": 2.0}}, StudyError, "p_threshold must be between 0 and 1"),
        ({"trials": 0}, StudyError, "trials must be a whole number of at least 1"),
        ({"recipe": ""}, StudyError, "there is nothing to tune: give a recipe"),
        ({"rungs": [4, 2]}, StudyError, "each above the last and at most 6"),
        ({"study": {"prompts": ["one"]}}, StudyError, "needs at least 2 prompts"),
        ({"sampler": "cmaes"}, StudyError, "pickle in the storage"),
    ],
)
def test_refuses(make: Any, changes: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make(**changes)
