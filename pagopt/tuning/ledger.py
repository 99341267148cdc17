"""The trials of a tuning, as the first process keeps them with Optuna: asked in batches, judged in rungs, told once."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, cast

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.trial import FrozenTrial, TrialState

from pagopt.errors import PagoptError, StudyError
from pagopt.recipe import Recipe
from pagopt.tuning.outcome import TrialRow
from pagopt.tuning.parameter import Parameter, Value
from pagopt.tuning.space import Point, Space
from pagopt.tuning.storage import guarded, is_alive, worker

__all__ = ["Asked", "Ledger", "Seen"]

STOPPED = "stopped"
CAUSE = "cause"
WORKER = "worker"
LABEL = "label"
UNSIGNED = timedelta(minutes=5)
NOTHING_LEFT = "there are enough trials"


@dataclass(frozen=True)
class Asked:
    """A trial that is to be drawn.

    Attributes:
        number: Of the trial in the study.
        recipe: What to draw it with.
        steps: Inference steps.
    """

    number: int
    recipe: Recipe
    steps: int


@dataclass
class Seen:
    """What is known of a trial so far.

    Attributes:
        scores: For every reward the scores by position of the task.
        objective: The objective by position of the task.
        cause: Why it failed; empty if it did not.
    """

    scores: dict[str, dict[int, float]] = field(default_factory=dict)
    objective: dict[int, float] = field(default_factory=dict)
    cause: str = ""

    def add(self, tasks: Sequence[int], scores: Mapping[str, NDArray[np.float64]], objective: NDArray[Any]) -> None:
        """Take in what some more tasks gave, in their order."""
        for label, values in scores.items():
            self.scores.setdefault(label, {}).update(zip(tasks, values.tolist(), strict=True))
        self.objective.update(zip(tasks, objective.tolist(), strict=True))

    @property
    def mean(self) -> float:
        """Of the objective, over its tasks in their own order."""
        return float(np.mean([self.objective[task] for task in sorted(self.objective)]))

    def means(self) -> dict[str, float]:
        """Of every reward."""
        return {label: float(np.mean([row[task] for task in sorted(row)])) for label, row in self.scores.items()}


class Ledger:
    """Asks for trials and tells what came of them.

    A trial that was interrupted is told as failed, "stopped", and its parameters are queued again; it does not count.
    A trial that could not be drawn or scored is told as failed with its cause, and counts.

    Args:
        study: The Optuna study.
        space: What varies.
        total: Trials in all.
        at_once: Trials in one batch.
        per_task: Whether the pruner compares single tasks (``wilcoxon``) rather than means.
        address: Of the storage, for messages.
    """

    def __init__(
        self, study: optuna.Study, space: Space, total: int, at_once: int, per_task: bool, address: str
    ) -> None:
        self.study, self.space, self.total, self.at_once = study, space, total, at_once
        self.per_task, self.address = per_task, address
        self.worker = worker()
        self._running: dict[int, optuna.Trial] = {}

    def enqueue(self, points: Mapping[str, Point]) -> None:
        """Queue the points that come first."""
        with guarded(self.address):
            for label, point in points.items():
                self.study.enqueue_trial(dict(point.values), user_attrs={LABEL: label})

    def ask(self) -> list[Asked]:
        """The next batch; empty when there are enough trials, or only others' are running.

        Raises:
            StudyError: If the storage cannot be reached.
        """
        with guarded(self.address):
            self._take_back()
            trials = self._counted()
            waiting = sum(trial.state == TrialState.WAITING for trial in trials)
            free = min(self.at_once, waiting + self.total - len(trials))
            asked = [one for one in (self._ask() for _ in range(free)) if one is not None]
            # Other workers may have asked at the same moment: the later numbers are too many.
            numbers = [trial.number for trial in self._counted()][: self.total]
            for one in asked:
                if one.number not in numbers:
                    self._stop(one.number, again=False, why=NOTHING_LEFT)
            return [one for one in asked if one.number in numbers]

    def is_over(self) -> bool:
        """Whether all trials are finished, those of other workers included."""
        with guarded(self.address):
            self._take_back()
            trials = self._counted()[: self.total]
            return len(trials) == self.total and all(trial.state.is_finished() for trial in trials)

    def keep_on(self, number: int, seen: Seen, tasks: Sequence[int]) -> bool:
        """Report what some more tasks gave; false if the trial is to stop.

        Raises:
            StudyError: If the storage cannot be reached.
        """
        trial = self._running[number]
        with guarded(self.address):
            if self.per_task:
                for task in tasks:
                    trial.report(seen.objective[task], task)
            else:
                trial.report(seen.mean, len(seen.objective))
            return not trial.should_prune()

    def tell(self, number: int, seen: Seen, values: Sequence[float], limits: Mapping[str, float], pruned: bool) -> None:
        """Finish a trial.

        Args:
            number: Of the trial.
            seen: Its scores.
            values: Of its objectives; unused for one that was pruned or failed.
            limits: How far each constraint is missed; negative where it is met.
            pruned: Whether it was stopped early.
        """
        trial = self._running[number]
        with guarded(self.address):
            for name, value in {
                "scores": {label: {str(t): v for t, v in row.items()} for label, row in seen.scores.items()},
                "objective": {str(task): value for task, value in seen.objective.items()},
            }.items():
                trial.set_user_attr(name, value)
            if seen.cause:
                trial.set_user_attr(CAUSE, seen.cause)
                self.study.tell(trial, state=TrialState.FAIL)
            elif pruned:
                self.study.tell(trial, state=TrialState.PRUNED)
            else:
                for name, value in limits.items():
                    trial.set_constraint(name, value)
                self.study.tell(trial, list(values))
        del self._running[number]

    def give_back(self) -> None:
        """Stop what is running, and queue it again; after an interruption."""
        with guarded(self.address):
            for number in list(self._running):
                self._stop(number, again=True, why="interrupted")

    def rows(self) -> list[TrialRow]:
        """All trials so far, as plain data; what was stopped, or only waits, is left out."""
        with guarded(self.address):
            trials = [trial for trial in self._counted() if trial.state.is_finished()]
        return [self._row(trial) for trial in trials]

    def check(self) -> None:
        """Refuse to go on where nothing works.

        Raises:
            StudyError: If all of at least ``at_once`` finished trials failed; with the last cause.
        """
        rows = self.rows()
        if len(rows) >= min(self.at_once, self.total) and all(row.state == "fail" for row in rows):
            raise StudyError(
                f"all {len(rows)} trials failed so far; the last one: {rows[-1].cause}\nWhat is drawn is kept. Put "
                "that right and choose another --out or --study_name"
            )

    def wait(self) -> None:
        """Let other workers go on."""
        time.sleep(1.0)

    def _ask(self) -> Asked | None:
        trial = self.study.ask()
        self._running[trial.number] = trial
        trial.set_user_attr(WORKER, self.worker)
        try:
            point = self.space.draw(lambda name, parameter: _suggest(trial, name, parameter))
        except PagoptError as error:
            self.tell(trial.number, Seen(cause=str(error)), [], {}, pruned=False)
            return None
        trial.set_user_attr("recipe", point.recipe.to_dict())
        trial.set_user_attr("steps", point.steps)
        return Asked(trial.number, point.recipe, point.steps)

    def _counted(self) -> list[FrozenTrial]:
        """The trials that count, by number."""
        trials = self.study.get_trials(deepcopy=False)
        return sorted((t for t in trials if STOPPED not in t.user_attrs), key=lambda trial: trial.number)

    def _take_back(self) -> None:
        """Trials of workers that are gone."""
        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            owner = trial.user_attrs.get(WORKER)
            # A process may end before it signs.
            old = trial.datetime_start is not None and datetime.now() - trial.datetime_start > UNSIGNED
            gone = old if owner is None else not is_alive(owner)
            if trial.number not in self._running and gone:
                self._stop(trial.number, again=True, why="its process ended")

    def _stop(self, number: int, again: bool, why: str) -> None:
        """Tell a trial as failed that counts as none."""
        frozen = next(t for t in self.study.get_trials(deepcopy=False) if t.number == number)
        # Through the storage, since the trial may be another process's.
        self.study._storage.set_trial_user_attr(frozen._trial_id, STOPPED, why)
        try:
            self.study.tell(number, state=TrialState.FAIL)
        except ValueError:  # another worker took it back at the same moment
            return
        finally:
            self._running.pop(number, None)
        if again:
            label = {LABEL: frozen.user_attrs[LABEL]} if LABEL in frozen.user_attrs else {}
            self.study.enqueue_trial(dict(frozen.params), user_attrs=label)

    def _row(self, trial: FrozenTrial) -> TrialRow:
        attributes = trial.user_attrs
        return TrialRow(
            number=trial.number,
            state=trial.state.name.lower(),
            label=attributes.get(LABEL, ""),
            values=tuple(trial.values or ()) if trial.state == TrialState.COMPLETE else (),
            parameters=dict(trial.params),
            recipe=attributes.get("recipe", {}),
            steps=attributes.get("steps", self.space.steps),
            objective={int(task): value for task, value in attributes.get("objective", {}).items()},
            scores={
                label: {int(task): value for task, value in row.items()}
                for label, row in attributes.get("scores", {}).items()
            },
            limits=dict(trial.constraints or {}) if trial.state == TrialState.COMPLETE else {},
            cause=attributes.get(CAUSE, ""),
        )


def _suggest(trial: optuna.Trial, name: str, parameter: Parameter) -> Value:
    if parameter.values:
        return cast(Value, trial.suggest_categorical(name, list(parameter.values)))
    if parameter.whole:
        step = int(parameter.step or 1)
        return trial.suggest_int(name, int(parameter.low), int(parameter.high), step=step, log=parameter.log)
    return trial.suggest_float(name, parameter.low, parameter.high, step=parameter.step, log=parameter.log)
