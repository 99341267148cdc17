"""A tuning whose process ends at any of its writes goes on to the trials that it would have come to."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import optuna
import pytest
from optuna.storages import BaseStorage, InMemoryStorage
from optuna.trial import TrialState

from pagopt.recipe import Recipe
from pagopt.tuning import ledger as ledgers
from pagopt.tuning.ledger import Ledger, Seen
from pagopt.tuning.methods import make_pruner, make_sampler
from pagopt.tuning.space import Space
from pagopt.tuning.start import first_points
from pagopt.tuning.storage import open_study
from tests.tune.test_ledger import GIVEN, space

TOTAL, AT_ONCE, RUNGS = 10, 4, [[2, 0, 1], [5, 3, 4]]
WRITES = ("create_new_study", "create_new_trial")
Rows = list[Any]


class Killed(BaseException):
    """Stands for SIGKILL: nothing of the process's own comes after it."""


class Mortal(InMemoryStorage):
    """A storage that outlives the process which writes to it: that one ends at a given write."""

    writes, last = 0, -1

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("set_") or name in WRITES:
            self.writes += 1
            if self.writes == self.last:
                raise Killed
        return super().__getattribute__(name)

    def get_all_trials(self, study_id: int, deepcopy: bool = True, states: Any = None) -> Any:
        # The one storage that takes for granted that a trial never waits again; it is none of pagopt's.
        self._prev_waiting_trial_number[study_id] = 0
        return super().get_all_trials(study_id, deepcopy, states)


def score(recipe: Recipe, task: int) -> float:
    """A hill, with some difference between the tasks."""
    return -((recipe.strengths[0] - 0.3) ** 2) - ((recipe.scale - 4) / 8) ** 2 + 0.003 * ((task * 7) % 5)


def run(storage: BaseStorage, name: str, sampler: str, pruner: str, per_task: bool) -> Ledger:
    """All trials, in rungs, as a tuning runs them, by a process of this name."""
    options = {"n_startup_trials": 4} if sampler in {"tpe", "gp"} else {}
    early: dict[str, Any] = {
        "wilcoxon": {"p_threshold": 0.3},
        "percentile": {"percentile": 40.0, "n_startup_trials": 2},
    }.get(pruner, {})
    methods = make_sampler(sampler, options, 3), make_pruner(pruner, early)
    study, _ = open_study(storage, "tiny", "memory", ["maximize"], {"space": GIVEN}, *methods)
    book = Ledger(study, space(), TOTAL, AT_ONCE, per_task, "memory")
    book.worker = name
    book.begin(first_points(Space(GIVEN, space().recipe, space().recipe.heads, steps=2))[0])
    while running := book.ask():
        seen = {one.number: Seen() for one in running}
        for number, tasks in enumerate(RUNGS):
            last = number == len(RUNGS) - 1
            for one in list(running):
                known = seen[one.number]
                known.objective.update({task: score(one.recipe, task) for task in tasks})
                kept = book.keep_on(one.number, known, tasks)
                if last or not kept:
                    book.tell(one.number, known, [known.mean], {}, pruned=not last)
                    running.remove(one)
    assert book.is_over()
    return book


def rows(book: Ledger) -> Rows:
    return [(row.number, row.state, row.label, row.parameters, row.values, row.objective) for row in book.rows()]


@pytest.mark.parametrize(
    ("sampler", "pruner", "per_task", "every"),
    [
        ("random", "percentile", False, 2),
        ("tpe", "wilcoxon", True, 9),
        ("qmc", "median", False, 6),
        pytest.param("tpe", "wilcoxon", True, 1, marks=pytest.mark.slow),
        pytest.param("qmc", "median", False, 1, marks=pytest.mark.slow),
        pytest.param("gp", "none", False, 5, marks=pytest.mark.slow),
    ],
)
def test_it_ends_at_any_write_and_goes_on(
    sampler: str, pruner: str, per_task: bool, every: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    monkeypatch.setattr(ledgers, "UNSIGNED", timedelta(0))
    monkeypatch.setattr(ledgers, "is_alive", lambda name: name == "second")
    whole = Mortal()
    expected = rows(run(whole, "first", sampler, pruner, per_task))
    assert [row[0] for row in expected] == list(range(TOTAL))
    assert (pruner == "none") != any(row[1] == "pruned" for row in expected), "or this says too little"
    moments = range(1, whole.writes + 1, every)
    assert len(moments) > 15
    inexact = 0
    for moment in moments:
        storage = Mortal()
        storage.last = moment
        with pytest.raises(Killed):
            run(storage, "first", sampler, pruner, per_task)
        storage.last = -1
        found = rows(run(storage, "second", sampler, pruner, per_task))
        assert len(found) == TOTAL, f"write {moment}"
        assert [row[0] for row in found] == list(range(TOTAL)), f"write {moment}"
        inexact += found != expected
        if sampler not in {"gp", "qmc"}:  # they note in the storage what they draw before it is drawn
            assert found == expected, f"write {moment}"
    assert inexact <= len(moments) // 4


def test_what_is_given_back_keeps_its_number_and_waits() -> None:
    """After Ctrl-C, also for a worker on another machine."""
    storage = Mortal()
    methods = make_sampler("tpe", {}, 3), make_pruner("none", {})
    study, _ = open_study(storage, "tiny", "memory", ["maximize"], {"space": GIVEN}, *methods)
    book = Ledger(study, space(), TOTAL, AT_ONCE, per_task=True, address="memory")
    book.begin(first_points(space())[0])
    asked = book.ask()
    book.give_back()
    assert [trial.state for trial in study.get_trials()] == [TrialState.WAITING] * AT_ONCE
    other = Ledger(study, space(), TOTAL, AT_ONCE, per_task=True, address="memory")
    other.worker = "elsewhere 1 1"
    assert other.ask() == asked
    assert book.ask() != asked, "the other one has it now"


def test_a_trial_that_another_worker_finished_stays_as_it_is() -> None:
    """A worker that was taken for dead, and comes back."""
    storage = Mortal()
    methods = make_sampler("tpe", {}, 3), make_pruner("none", {})
    study, _ = open_study(storage, "tiny", "memory", ["maximize"], {"space": GIVEN}, *methods)
    book, other = (Ledger(study, space(), TOTAL, 1, per_task=True, address="memory") for _ in range(2))
    book.begin(first_points(space())[0])
    (one,) = book.ask()
    other._release(other._find(one.number))
    assert other.ask() == [one]
    seen = Seen()
    seen.objective[0] = 1.0
    other.tell(one.number, seen, [1.0], {}, pruned=False)
    assert not book.keep_on(one.number, seen, [0])
    book.tell(one.number, seen, [2.0], {}, pruned=False)
    assert [row.values for row in book.rows()] == [(1.0,)]
    assert len(study.get_trials(states=(TrialState.COMPLETE,))) == 1
