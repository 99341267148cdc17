"""A study, run: search, honest comparison on held-out tasks, and the folder that it leaves.

The folder holds ``config.yaml`` (what was asked for), ``store/`` (all images and scores), ``results.json``,
``recipe.json``, ``scores.csv``, ``sheet.png`` and ``report.html``. Running the same study in the same folder again
goes on where it stopped, or returns at once when it is finished.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

import pagopt
from pagopt.errors import StudyError
from pagopt.evaluate import Evaluator, Progress, make_trainer
from pagopt.files import write_text
from pagopt.heads import HeadMap
from pagopt.models import family_of, load_pipeline
from pagopt.recipe import Provenance, Recipe
from pagopt.render import Renderer, Task
from pagopt.report import write_report, write_sheet
from pagopt.results import Estimate, Method, Results, Round, load_results
from pagopt.reward import Objective
from pagopt.search import HeadHunter
from pagopt.store import Store
from pagopt.study import Study
from pagopt.summary import evidence, paired_test, scores_table

__all__ = ["Folder", "run_study"]

FOUND = "HeadHunter"


class Folder:
    """The folder of a run, which belongs to one study.

    Args:
        path: The folder; it is created.
        config: What the study asks for, as plain data.

    Raises:
        StudyError: If the folder holds something else.
    """

    def __init__(self, path: Path, config: dict[str, Any]) -> None:
        self.path = path
        self.config = config
        known = path / "config.yaml"
        if known.exists():
            self._check(yaml.safe_load(known.read_text(encoding="utf-8")))
        elif path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise StudyError(f"{path} is not empty and holds no pagopt run; choose another folder with --out")

    def claim(self) -> None:
        """Write the configuration, so that the folder belongs to this study from now on."""
        try:
            write_text(self.path / "config.yaml", yaml.safe_dump(self.config, sort_keys=False, allow_unicode=True))
        except OSError as error:
            raise StudyError(
                f"cannot write to {self.path}: {error.strerror}; choose another folder with --out"
            ) from error

    def results(self) -> Results | None:
        """The results, if the run is finished."""
        path = self.path / "results.json"
        return load_results(path) if path.exists() else None

    def _check(self, other: Any) -> None:
        if not isinstance(other, dict):
            raise StudyError(f"{self.path / 'config.yaml'} is damaged; choose another folder with --out")
        names = [name for name in {**self.config, **other} if self.config.get(name) != other.get(name)]
        if names:
            changes = "\n".join(f"  {n}: there {other.get(n)!r}, now {self.config.get(n)!r}" for n in sorted(names))
            raise StudyError(
                f"{self.path} holds the run of another study:\n{changes}\n"
                "Give the same options to go on with that one, or another folder with --out."
            )


@dataclass
class Candidate:
    """A row of the comparison before it is scored on held-out tasks."""

    name: str
    recipe: Recipe


def run_study(
    study: Study, name: str, out: Path, batch_size: int = 16, trainer: dict[str, Any] | None = None
) -> Results:
    """Run a study, or go on with it, or return what it found.

    Args:
        study: What to search for.
        name: What the study is called in its results.
        out: Its folder.
        batch_size: Images in one batch, on each process.
        trainer: Options of Lightning's ``Trainer``.

    Returns:
        The results, which also lie in the folder.

    Raises:
        PagoptError: With what to do about it; everything finished is kept.
    """
    options = trainer or {}
    folder = Folder(out, {"study": name, **study.to_dict(), "precision": str(options.get("precision") or "32-true")})
    finished = folder.results()
    if finished is not None:
        return finished
    run = Run(study, name, folder, batch_size, options)
    try:
        return run()
    finally:
        run.close()


class Run:
    """One run of a study; see :func:`run_study`."""

    def __init__(self, study: Study, name: str, folder: Folder, batch_size: int, options: dict[str, Any]) -> None:
        self.study = study
        self.name = name
        self.folder = folder
        self.objective = Objective(study.specs)
        watch = Objective(study.watch).rewards if study.watch else {}
        self.searcher = HeadHunter(study.rounds, study.heads_per_round)
        pipe = load_pipeline(study.model)
        self.head_map: HeadMap = family_of(pipe).head_map(pipe.transformer)
        self.pool = self.head_map.select(study.heads)
        self.renderer = Renderer(pipe, study.steps, study.height, study.width, study.distilled_guidance, study.compile)
        self.trainer = make_trainer(**options)
        if self.trainer.is_global_zero:
            folder.claim()
        self.progress = Progress(self._jobs(), disable=not self.trainer.is_global_zero)
        self.trainer.callbacks.append(self.progress)
        self.store = Store(folder.path / "store")
        self.evaluator = Evaluator(
            self.renderer, self.objective.rewards, self.store, self.trainer, batch_size, self.progress
        )
        every = dict(self.objective.rewards)
        for label, reward in watch.items():
            if reward.key() not in {known.key() for known in every.values()}:
                every[f"{label} (watched)" if label in every else label] = reward
        self.judge = Evaluator(self.renderer, every, self.store, self.trainer, batch_size, self.progress)
        self.tasks: list[Task] = study.tasks()
        self.baseline: dict[str, NDArray[np.float64]] = {}

    def close(self) -> None:
        """Close the bar and the store."""
        self.progress.close()
        self.store.close()

    def __call__(self) -> Results:
        """Search, compare, write."""
        start = time.monotonic()
        study, plain = self.study, Recipe(scale=0.0, cfg=1.0)
        self.progress.label("no guidance")
        self.baseline = {k: table[0] for k, table in self.evaluator([plain], self.tasks).items()}
        methods = [Candidate("no guidance", plain)]
        if study.cfg_scales:
            self.progress.label("CFG")
            methods.append(self._best([Candidate(f"CFG {g:g}", Recipe(scale=0.0, cfg=g)) for g in study.cfg_scales]))
        if study.compare_layers:
            self.progress.label("single layers")
            layers = {head.block for head in self.pool}
            base = study.recipe()
            methods.append(
                self._best(
                    [
                        Candidate(f"best layer L{layer}", base.replace(heads=self.head_map.layer(layer)))
                        for layer in sorted(layers)
                    ]
                )
            )
        self.progress.label("round 1")
        recipe, rounds = self.searcher.run(self.scores, self.pool, study.recipe(), self._on_round)
        methods.append(Candidate(FOUND, recipe))
        self.progress.label("held-out tasks")
        results = self._results(methods, rounds, time.monotonic() - start)
        if self.trainer.is_global_zero:
            try:
                self._write(results)
            except OSError as error:
                why = f"cannot write to {self.folder.path}: {error.strerror}"
                raise StudyError(f"{why}. The images and scores are kept; make room and run again.") from error
        return results

    def scores(self, recipes: Sequence[Recipe]) -> NDArray[np.float64]:
        """The objective on the search tasks, shape ``(n_recipes, n_tasks)``."""
        return self.objective.combine(self.evaluator(recipes, self.tasks), self.baseline)

    def _jobs(self) -> int:
        """How many images the whole run looks at, for the bar."""
        study = self.study
        layers = len({head.block for head in self.pool}) if study.compare_layers else 0
        recipes = 1 + len(study.cfg_scales) + layers + self.searcher.candidates(len(self.pool))
        methods = 2 + bool(study.cfg_scales) + study.compare_layers
        return recipes * len(study.prompts) + methods * len(study.held_out_prompts)

    def _best(self, candidates: Sequence[Candidate]) -> Candidate:
        means = self.scores([candidate.recipe for candidate in candidates]).mean(axis=1)
        return candidates[int(np.argmax(means))]

    def _on_round(self, done: Round) -> None:
        self.progress.label(f"round {done.number + 1}" if done.number < self.searcher.rounds else "held-out tasks")

    def _results(self, candidates: Sequence[Candidate], rounds: list[Round], seconds: float) -> Results:
        tasks = self.study.held_out_tasks() or self.tasks
        recipes = [candidate.recipe for candidate in candidates]
        tables = self.judge(recipes, tasks)
        objective = self.objective.combine({label: tables[label] for label in self.objective.rewards}, self.baseline)
        methods = [
            Method(
                name=candidate.name,
                recipe=candidate.recipe.to_dict(),
                objective=tuple(objective[i].tolist()),
                rewards={label: tuple(table[i].tolist()) for label, table in tables.items()},
                images=tuple(keys),
            )
            for i, (candidate, keys) in enumerate(zip(candidates, self.judge.keys(recipes, tasks), strict=True))
        ]
        return Results(
            study=self.name,
            model=self.study.model,
            fingerprint=self.renderer.fingerprint,
            pagopt=pagopt.__version__,
            layers=self.head_map.blocks,
            heads=max(site.heads for site in self.head_map.sites),
            steps=self.study.steps,
            objective=self.objective.describe(),
            search_tasks=[(task.prompt, task.seed) for task in self.tasks],
            held_out_tasks=[(task.prompt, task.seed) for task in tasks],
            rounds=rounds,
            methods=methods,
            tests=[paired_test(methods[-1], other) for other in methods[:-1]],
            images_generated=self.evaluator.images_generated + self.judge.images_generated,
            seconds=round(seconds, 1),
            baseline=Estimate.of(
                self.objective.combine({k: row[None] for k, row in self.baseline.items()}, self.baseline)
            ),
        )

    def _write(self, results: Results) -> None:
        """The files a user wants; ``results.json`` comes last, because it says that the run is finished."""
        path = self.folder.path
        provenance = Provenance(
            model=results.model,
            fingerprint=results.fingerprint,
            objective=results.objective,
            evidence=evidence(results),
            study=results.study,
            pagopt=results.pagopt,
        )
        results.recipe.save(path / "recipe.json", provenance)
        write_text(path / "scores.csv", scores_table(results))
        write_sheet(results, self.store.get_image, path / "sheet.png")
        write_report(results, self.store.get_image, path / "report.html")
        results.save(path / "results.json")
