"""The trials of a tuning, as the first process keeps them with Optuna: asked in batches, judged in rungs, told once."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, cast

import optuna
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

from pagopt.errors import PagoptError, StudyError
from pagopt.tuning.known import RECIPE, Known
from pagopt.tuning.lens import recipe_words
from pagopt.tuning.outcome import TrialRow
from pagopt.tuning.parameter import Parameter, Value
from pagopt.tuning.record import CAUSE, LABEL, keep, read_row
from pagopt.tuning.seen import Asked, Seen
from pagopt.tuning.space import Point, Space
from pagopt.tuning.storage import MAKER, guarded, is_alive, worker

__all__ = ["Asked", "Ledger", "Seen"]

STOPPED = "stopped"
WORKER = "worker"
BATCH = "batch"
KEPT = "kept"
QUEUED = "queued"
UNSIGNED = timedelta(minutes=5)
QUEUEING = 30.0  # seconds in which another worker queues the first points
NOTHING_LEFT = "there are enough trials"


class Ledger:
    """Asks for trials and tells what came of them.

    A trial that was interrupted waits, with its parameters, number and batch, until a worker takes it up again; so a
    tuning that was stopped goes on to the trials that it would have come to. A trial that could not be drawn or scored
    is told as failed with its cause, and counts.

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
        self._reported: dict[int, FrozenTrial] = {}

    def begin(self, points: Mapping[str, Point]) -> None:
        """Queue the points that come first, if nobody did; another worker that is at it is waited for.

        Raises:
            StudyError: If the storage cannot be reached.
        """
        with guarded(self.address):
            deadline = time.monotonic() + QUEUEING
            while (attributes := self.study.user_attrs).get(QUEUED) is None:
                maker = attributes.get(MAKER, "")
                if maker not in ("", self.worker) and is_alive(maker) and time.monotonic() < deadline:
                    time.sleep(0.1)
                    continue
                known = {trial.user_attrs.get(LABEL) for trial in self.study.get_trials(deepcopy=False)}
                for label, point in points.items():
                    if label not in known:  # a process may have ended amid this
                        self.study.enqueue_trial(dict(point.values), user_attrs={LABEL: label})
                self.study.set_user_attr(QUEUED, list(points))

    def ask(self) -> list[Asked]:
        """The next batch; empty when there are enough trials, or only others' are running.

        Raises:
            StudyError: If the storage cannot be reached.
        """
        with guarded(self.address):
            self._take_back()
            self.study.sampler = self._sampler()
            trials = self._counted()
            waiting = sum(trial.state == TrialState.WAITING for trial in trials)
            bounds, size = self._batch(trials)
            asked: dict[int, Asked] = {}
            for _ in range(min(size, waiting + self.total - len(trials))):
                trial = self.study.ask()
                bounds = bounds or [trial.number, trial.number + size]
                # By number: one that another worker takes back late waits again, and may be asked for twice here.
                asked.pop(trial.number, None)
                one = self._draw(trial, bounds)
                if one is not None:
                    asked[one.number] = one
            # Other workers may have asked at the same moment: the later numbers are too many.
            numbers = [trial.number for trial in self._counted()][: self.total]
            for number in asked.keys() - numbers:
                self._drop(number)
            return [one for number, one in asked.items() if number in numbers]

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
        trial, before = self._running[number], self._reported.get(number)
        step = len(seen.objective)
        reports = {task: seen.objective[task] for task in tasks} if self.per_task else {step: seen.mean}
        with guarded(self.address):
            try:
                for place, value in reports.items():
                    if before is None or place not in before.intermediate_values:
                        trial.report(value, place)
                if before is not None and before.user_attrs.get(KEPT, 0) >= step:
                    return True  # so it was decided before it was interrupted
                if trial.should_prune():
                    return False
                trial.set_user_attr(KEPT, step)
            except optuna.exceptions.UpdateFinishedTrialError:  # see tell
                return False
        return True

    def tell(self, number: int, seen: Seen, values: Sequence[float], limits: Mapping[str, float], pruned: bool) -> None:
        """Finish a trial. One that another worker finished meanwhile stays as it is.

        Args:
            number: Of the trial.
            seen: Its scores.
            values: Of its objectives; unused for one that was pruned or failed.
            limits: How far each constraint is missed; negative where it is met.
            pruned: Whether it was stopped early.
        """
        trial = self._running[number]
        attributes: dict[str, Any] = {
            "scores": {label: {str(t): v for t, v in row.items()} for label, row in seen.scores.items()},
            "objective": {str(task): value for task, value in seen.objective.items()},
        }
        with guarded(self.address):
            try:
                for name, value in attributes.items():
                    keep(self.study._storage, trial, name, value)
                if seen.cause:
                    trial.set_user_attr(CAUSE, seen.cause)
                if seen.cause:
                    self.study.tell(trial, state=TrialState.FAIL)
                elif pruned:
                    self.study.tell(trial, state=TrialState.PRUNED)
                else:
                    for name, value in limits.items():
                        trial.set_constraint(name, value)
                    self.study.tell(trial, list(values))
            except (ValueError, optuna.exceptions.UpdateFinishedTrialError):
                if self._find(number).state == TrialState.RUNNING:
                    raise
        self._forget(number)

    def running(self, number: int) -> optuna.Trial:
        """A trial that was asked for and not yet told."""
        return self._running[number]

    def give_back(self) -> None:
        """Let what is running wait for the next worker; after an interruption."""
        with guarded(self.address):
            for number in list(self._running):
                self._release(self._find(number))
                self._forget(number)

    def rows(self) -> list[TrialRow]:
        """All trials so far, as plain data; what was stopped, or only waits, is left out."""
        with guarded(self.address):
            trials = [trial for trial in self._counted() if trial.state.is_finished()]
        return [read_row(trial, self.space.steps) for trial in trials]

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

    def _sampler(self) -> BaseSampler:
        return self.study.sampler if isinstance(self.study.sampler, Known) else Known(self.study.sampler)

    def _batch(self, trials: Sequence[FrozenTrial]) -> tuple[list[int], int]:
        """First and last number (exclusive) of an interrupted batch, and how much of it is left; or of none, and all.

        New trials come only after it: they would not know its scores, as they would have without the interruption.
        """
        waiting = {trial.number: trial for trial in trials if trial.state == TrialState.WAITING}
        bounds: list[int] = next((t.user_attrs[BATCH] for t in waiting.values() if BATCH in t.user_attrs), [])
        if not bounds:
            return [], self.at_once
        asked = {trial.number for trial in trials} - waiting.keys()
        # Where others asked at the same time, some of its numbers lie beyond.
        beyond = {number for number, trial in waiting.items() if trial.user_attrs.get(BATCH) == bounds}
        return bounds, len({*range(*bounds)} - asked | beyond)

    def _draw(self, trial: optuna.Trial, bounds: list[int]) -> Asked | None:
        """What the trial is; none if it cannot be drawn, or if another worker took it up as well, and finished it."""
        try:
            return self._sign(trial, bounds)
        except optuna.exceptions.UpdateFinishedTrialError:
            self._forget(trial.number)
            return None

    def _sign(self, trial: optuna.Trial, bounds: list[int]) -> Asked | None:
        self._running[trial.number] = trial
        trial.set_user_attr(WORKER, self.worker)
        trial.set_user_attr(BATCH, bounds)
        if RECIPE in trial.user_attrs:
            self._reported[trial.number] = self._find(trial.number)
        try:
            point = self.space.draw(lambda name, parameter: _suggest(trial, name, parameter))
        except PagoptError as error:
            self.tell(trial.number, Seen(cause=str(error)), [], {}, pruned=False)
            return None
        trial.set_user_attr("steps", point.steps)
        keep(self.study._storage, trial, RECIPE, point.recipe.to_dict())
        trial.set_user_attr(RECIPE, recipe_words(point.recipe))
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
            gone = not is_alive(owner) if owner else old
            # Another worker may have taken it back at the same moment, and up.
            if trial.number not in self._running and gone and self._find(trial.number).user_attrs.get(WORKER) == owner:
                self._release(trial)

    def _release(self, trial: FrozenTrial) -> None:
        """Let a trial wait, through the storage, since it may be another process's."""
        try:
            self.study._storage.set_trial_user_attr(trial._trial_id, WORKER, "")
            self.study._storage.set_trial_state_values(trial._trial_id, TrialState.WAITING)
        except optuna.exceptions.UpdateFinishedTrialError:
            return  # finished at the same moment

    def _drop(self, number: int) -> None:
        """Tell a trial as failed that counts as none."""
        self.study._storage.set_trial_user_attr(self._find(number)._trial_id, STOPPED, NOTHING_LEFT)
        self.study.tell(number, state=TrialState.FAIL)
        self._forget(number)

    def _forget(self, number: int) -> None:
        self._running.pop(number, None)
        self._reported.pop(number, None)

    def _find(self, number: int) -> FrozenTrial:
        return next(trial for trial in self.study.get_trials(deepcopy=False) if trial.number == number)


def _suggest(trial: optuna.Trial, name: str, parameter: Parameter) -> Value:
    if parameter.values:
        return cast(Value, trial.suggest_categorical(name, list(parameter.values)))
    if parameter.whole:
        step = int(parameter.step or 1)
        return trial.suggest_int(name, int(parameter.low), int(parameter.high), step=step, log=parameter.log)
    return trial.suggest_float(name, parameter.low, parameter.high, step=parameter.step, log=parameter.log)
