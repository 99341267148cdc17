"""A tuning, run: trials in batches, the best on held-out tasks, and the folder that it leaves.

The folder holds ``config.yaml``, ``store/`` (all images and scores), ``tuning.db`` (the Optuna study, unless it is
kept elsewhere), ``results.json``, ``recipe.json`` (and ``front/`` with several objectives), ``trials.csv``,
``sheet.png``, ``report.html`` and ``artifacts/`` (pictures of every trial, for optuna-dashboard). Running the same
tuning in the same folder again goes on where it stopped.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import optuna

import pagopt
from pagopt.errors import PagoptError, StudyError
from pagopt.evaluate import together
from pagopt.experiment import Run
from pagopt.folder import Folder
from pagopt.models import model_files
from pagopt.recipe import PLAIN
from pagopt.report.reading import value_name
from pagopt.results import Estimate
from pagopt.tuning.artifacts import Artifacts, name_metrics
from pagopt.tuning.ledger import Asked, Ledger, Seen
from pagopt.tuning.methods import make_pruner, make_sampler
from pagopt.tuning.outcome import TrialRow, Tuned, means
from pagopt.tuning.scoring import Beside, Scoring
from pagopt.tuning.space import Space
from pagopt.tuning.start import Start, check_model, first_points, opened
from pagopt.tuning.storage import DATABASE, address_of, guarded, open_storage, open_study
from pagopt.tuning.tuning import Tuning
from pagopt.tuning.verdict import chosen, compare, write

__all__ = ["TuningRun", "opened", "tune"]

T = TypeVar("T")


def tune(
    tuning: Tuning,
    name: str,
    out: str | Path,
    batch_size: int = 16,
    trainer: dict[str, Any] | None = None,
    store: str | Path | None = None,
    storage: str | Path | None = None,
    study_name: str | None = None,
    artifacts: str | Path | None = None,
    offload: str | None = None,
) -> Tuned:
    """Tune a recipe, or go on with it, or return what was found.

    Args:
        tuning: What to tune.
        name: What it is called in its results.
        out: Its folder.
        batch_size: Images in one batch, on each process.
        trainer: Options of Lightning's ``Trainer``.
        store: Folder for images and scores, which several runs may share at once; by default ``out / "store"``.
        storage: Of the Optuna study, which workers may share: a URL, or a file as :func:`.storage.address_of` has it.
        study_name: Of the Optuna study; by default ``name``.
        artifacts: Folder for each trial's pictures, which several workers may share; by default ``out / "artifacts"``.
        offload: Keep networks off the GPU while they are not needed: "model" or "sequential".

    Returns:
        What was found, which also lies in the folder.

    Raises:
        PagoptError: With what to do about it; everything finished is kept.
    """
    options, out = trainer or {}, Path(out)
    address = address_of(storage or out / DATABASE)
    start, space, folder, finished = opened(tuning, name, out, options)
    if finished is not None and len(finished.trials) >= tuning.trials:
        if finished.own_code != tuning.study.own_code():
            raise StudyError(
                f"a reward or model of your own has changed since the tuning in {out} was finished, and its trials "
                "were judged as it was before: tune anew in another folder, with --out; --store may be this one's"
            )
        if finished.model_files in ("", model_files(tuning.study.model)):
            return finished
    run = TuningRun(tuning, name, folder, start, space, batch_size, options, store, offload=offload)
    run.artifacts.folder = Path(artifacts or out / "artifacts")
    try:
        return run(address, study_name or name)
    finally:
        run.close()


class TuningRun:
    """One run of a tuning; see :func:`tune`. With ``quiet`` it shows no bar."""

    def __init__(
        self,
        tuning: Tuning,
        name: str,
        folder: Folder,
        start: Start,
        space: Space,
        batch_size: int,
        options: dict[str, Any],
        store: str | Path | None,
        quiet: bool = False,
        offload: str | None = None,
    ) -> None:
        self.tuning, self.name, self.start, self.space = tuning, name, start, space
        beside = Beside(tuning)  # before the model is loaded, and before there is a bar

        def check(run: Run) -> None:
            check_model(tuning, start, space, run)

        self.run = Run(tuning.study, name, folder, batch_size, options, quiet, store, offload, check)
        self.trainer = self.run.trainer
        try:
            self.scoring = Scoring(tuning, self.run, beside)
        except PagoptError:
            self.close()
            raise
        self.goals = self.scoring.goals
        self.slices = tuning.slices()
        self.artifacts = Artifacts(self.run, self.scoring, self.slices, folder.path / "artifacts")

    def close(self) -> None:
        """Close the bar and the store."""
        self.run.close()

    def __call__(self, address: str, study_name: str) -> Tuned:
        """Try, compare, write."""
        begun = time.monotonic()
        progress, tasks = self.run.progress, self.run.tasks
        held_out = self.tuning.study.held_out_tasks() or tasks
        scales = len(self.tuning.study.cfg_scales)
        rest = (3 + bool(scales)) * len(held_out)
        progress.expect((2 + scales + self.tuning.trials) * len(tasks) + rest)
        if self.trainer.world_size > 1:
            self.scoring.evaluator(self.tuning.study.steps).launch()
        points, left_out = first_points(self.space)
        ledger = self.first(lambda: self._ledger(address, study_name, points), keep=True)
        progress.label("no guidance, as it was")
        first = self.scoring.evaluator(self.tuning.study.steps)([PLAIN, self.start.recipe], tasks)
        self.scoring.measure_by({label: table[0] for label, table in first.items()})
        reference = self.scoring.combined(first)
        try:
            self._trials(ledger)
        except BaseException:
            if ledger is not None:
                ledger.give_back()
            raise
        rows: list[TrialRow] = self.first(lambda: ledger.rows() if ledger else [])
        best = chosen(rows, self.goals)
        progress.expect(progress.done + (scales * len(tasks)) + (2 + bool(scales) + len(best)) * len(held_out))
        progress.label("held-out tasks")
        methods, tests = compare(self, [row for number in best for row in rows if row.number == number], held_out)
        tuned = Tuned(
            tuning=self.name,
            model=self.tuning.study.model,
            fingerprint=self.run.renderer.fingerprint,
            pagopt=pagopt.__version__,
            steps=self.tuning.study.steps,
            start=self.start.label,
            settings=self.tuning.describe(),
            goals=self.goals,
            objective=self.run.objective.describe(),
            search_tasks=[(task.prompt, task.seed) for task in tasks],
            held_out_tasks=[(task.prompt, task.seed) for task in held_out],
            baseline=Estimate.of(reference[0]),
            as_it_was=Estimate.of(reference[1]),
            left_out=left_out,
            trials=self.artifacts.pictured(rows),
            best=best,
            methods=methods,
            tests=tests,
            images_generated=self.scoring.images_generated,
            seconds=round(time.monotonic() - begun, 1),
            references=means(("no guidance", "as it was"), first),
            weights=self.run.weights.to_dict(),
            own_code=self.run.own_code,
            model_files=self.run.model_files,
        )
        if self.trainer.is_global_zero:
            try:
                self.run.folder.check()
                image, combine = self.run.store.get_image, self.tuning.study.combine
                write(tuned, self.run.folder.path, image, combine, self.start.order)
            except OSError as error:
                why = f"cannot write to {self.run.folder.path}: {error.strerror}"
                raise StudyError(f"{why}. Images, scores and trials are kept; make room and run again.") from error
        return tuned

    def first(self, act: Callable[[], T], keep: bool = False) -> Any:
        """What the first process gets, on all processes; with ``keep`` on the first alone, and ``None`` elsewhere.

        An error of the first process is raised on all.
        """
        if self.trainer.world_size == 1:
            return act()
        value: Any = None
        error = ""
        if self.trainer.is_global_zero:
            try:
                value = act()
            except PagoptError as problem:
                error = str(problem)
        with together():
            error, shared = self.trainer.strategy.broadcast((error, None if keep else value))
        if error:
            raise StudyError(error)
        return value if keep else shared

    def _ledger(self, address: str, study_name: str, points: Any) -> Ledger:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        logging.getLogger("alembic").setLevel(logging.WARNING)
        tuning = self.tuning
        study, _ = open_study(
            open_storage(address),
            study_name,
            address,
            ["maximize" if goal.higher else "minimize" for goal in self.goals],
            {
                **{k: v for k, v in self.run.folder.config.items() if k != "tune"},
                "model_fingerprint": self.run.renderer.fingerprint,
                "rewards": self.scoring.keys(),
            },
            make_sampler(tuning.sampler, tuning.sampler_options, tuning.tuning_seed),
            make_pruner(tuning.pruner, tuning.pruner_options),
        )
        name_metrics(study, self.goals, value_name(self.run.objective.describe(), tuning.study.combine))
        ledger = Ledger(study, self.space, tuning.trials, tuning.at_once, tuning.pruner == "wilcoxon", address)
        ledger.begin(points)
        return ledger

    def _trials(self, ledger: Ledger | None) -> None:
        """Ask, draw and tell until there are enough trials."""
        while True:
            batch: list[Asked] = self.first(lambda: ledger.ask() if ledger else [])
            if batch:
                self._try(batch, ledger)
                self.first(lambda: ledger.check() if ledger else None)
            elif self.first(lambda: ledger.is_over() if ledger else True):
                return
            else:
                self.run.progress.label("waiting for other workers")
                self.first(lambda: ledger.wait() if ledger else None)

    def _try(self, batch: Sequence[Asked], ledger: Ledger | None) -> None:
        """Draw a batch of trials in rungs, and tell what came of them."""
        self.run.progress.label(f"trial {batch[-1].number + 1}")
        seen = {one.number: Seen() for one in batch}
        running = list(batch)
        for rung, tasks in enumerate(self.slices):
            found = self.scoring.scores(running, tasks)
            for one in running:
                scores = found[one.number]
                if isinstance(scores, str):
                    seen[one.number].cause = scores
                else:
                    tables = {label: row[None] for label, row in scores.items()}
                    seen[one.number].add(tasks, scores, self.scoring.combined(tables)[0])
            last = rung == len(self.slices) - 1
            left: set[int] = self.first(
                lambda running=running, tasks=tasks, last=last: (  # type: ignore[misc]
                    self._judge(ledger, running, seen, tasks, last) if ledger else set()
                )
            )
            running = [one for one in running if one.number in left]
            if not running:
                break

    def _judge(
        self, ledger: Ledger, running: Sequence[Asked], seen: dict[int, Seen], tasks: Sequence[int], last: bool
    ) -> set[int]:
        """Report a rung, finish what is finished, and return the numbers that go on."""
        left = set()
        for one in running:
            known = seen[one.number]
            # Optuna knows no pruning with several objectives.
            keep = bool(known.cause) or len(self.goals) > 1 or ledger.keep_on(one.number, known, tasks)
            if last and not known.cause:
                self.scoring.complete(one, known)
            if known.cause or last or not keep:
                whole = last and not known.cause
                values, limits = self.scoring.values(one, known) if whole else ([], {})
                with guarded(ledger.address):
                    self.artifacts.attach(ledger.running(one.number), one, known, limits)
                ledger.tell(one.number, known, values, limits, pruned=not last)
            else:
                left.add(one.number)
        return left
