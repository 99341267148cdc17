"""What a person sees of a trial in optuna-dashboard: its pictures as an artifact, and numbers in words of their own."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import optuna
from optuna.artifacts import FileSystemArtifactStore, get_all_artifact_meta, upload_artifact
from optuna.trial import Trial

from pagopt.errors import PagoptError
from pagopt.recipe import PLAIN, Recipe
from pagopt.report import draw_sheet
from pagopt.tuning.outcome import Goal, TrialRow
from pagopt.tuning.seen import Asked, Seen

if TYPE_CHECKING:
    from pagopt.experiment import Run
    from pagopt.tuning.scoring import Scoring

__all__ = ["Artifacts", "facts", "name_metrics"]

COLUMNS = 4  # of a sheet: optuna-dashboard shows it 200 pixels wide
SIDE = 144  # pixels of a picture on it


class Artifacts:
    """Puts a sheet of pictures beside every trial: no guidance above, the trial below, for the first tasks that it saw.

    Args:
        run: Its store has the pictures.
        scoring: Names them.
        slices: Positions of the tasks in the order in which trials see them.
        folder: Where the files go, one a trial; made with the first. Several workers may share it.
    """

    def __init__(self, run: Run, scoring: Scoring, slices: Sequence[Sequence[int]], folder: Path) -> None:
        self.run, self.scoring, self.folder = run, scoring, folder
        self.order = [task for part in slices for task in part]
        self._warned = False

    def attach(self, trial: Trial, one: Asked, seen: Seen, limits: dict[str, float]) -> None:
        """Give a trial that is about to be told its pictures and its numbers.

        Pictures that it has already, since it was interrupted just then, are left as they are. A failure is a warning,
        once a run: the study is worth more than its pictures.
        """
        try:
            for name, value in facts(one, seen, limits, self.scoring.cost(one.recipe, one.steps)).items():
                trial.set_user_attr(name, value)
            if seen.objective and not get_all_artifact_meta(trial, storage=trial.storage):
                self._upload(trial, one, [task for task in self.order if task in seen.objective][:COLUMNS])
        except optuna.exceptions.UpdateFinishedTrialError:  # another worker finished it at the same moment
            return
        except (OSError, PagoptError) as error:
            if not self._warned:
                warnings.warn(
                    f"the pictures of trial {one.number} could not be put into {self.folder}: {error}. The study goes "
                    "on; its report does not need them, optuna-dashboard shows none for this trial",
                    stacklevel=2,
                )
            self._warned = True

    def pictured(self, rows: Sequence[TrialRow]) -> list[TrialRow]:
        """The trials with the store key of their picture for the first task of all."""
        return [replace(row, picture=self._keys(row, self.order[:1])[0]) if row.objective else row for row in rows]

    def _keys(self, one: Asked | TrialRow, tasks: Sequence[int], plain: bool = False) -> list[str]:
        recipe = one.recipe if isinstance(one.recipe, Recipe) else Recipe.from_dict(one.recipe)
        steps = self.scoring.tuning.study.steps if plain else one.steps
        shown = [self.run.tasks[task] for task in tasks]
        return self.scoring.evaluator(steps).keys([PLAIN if plain else recipe], shown)[0]

    def _upload(self, trial: Trial, one: Asked, tasks: Sequence[int]) -> None:
        rows = [[self.run.store.get_image(key) for key in self._keys(one, tasks, plain)] for plain in (True, False)]
        prompts = [self.run.tasks[task].prompt for task in tasks]
        sheet = draw_sheet(rows, ["no guidance", f"trial {one.number}"], prompts, SIDE)
        self.folder.mkdir(parents=True, exist_ok=True)
        # Beside where it goes: a full disk is met here, before the storage says that there is a file.
        with tempfile.TemporaryDirectory(dir=self.folder, prefix=".") as folder:
            path = Path(folder) / f"trial-{one.number:04}.webp"
            sheet.save(path, quality=90, method=4)
            store = FileSystemArtifactStore(self.folder)
            upload_artifact(artifact_store=store, file_path=str(path), study_or_trial=trial, mimetype="image/webp")


def facts(one: Asked, seen: Seen, limits: dict[str, float], cost: int) -> dict[str, Any]:
    """What a reader wants to know of a trial, by name, a number or a few words each."""
    means = {f"mean {label}": float(np.mean(list(row.values()))) for label, row in seen.scores.items()}
    missed = [f"{name} by {miss:.3g}" for name, miss in limits.items() if miss > 0]
    return {
        "tasks": len(seen.objective),
        "block evaluations a picture": cost,
        **{name: float(f"{mean:.6g}") for name, mean in means.items()},
        **({"misses": "; ".join(missed)} if missed else {}),
    }


def name_metrics(study: optuna.Study, goals: Sequence[Goal], objective: str) -> None:
    """Name the values of a study, once, for those who look at it; ``objective`` is what the first one is called."""
    if study.metric_names is None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            study.set_metric_names([objective if goal.name == "objective" else goal.name for goal in goals])
