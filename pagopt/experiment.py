"""A study, run: search, honest comparison on held-out tasks, and the folder that it leaves.

The folder holds ``config.yaml`` (what was asked for), ``store/`` (all images and scores), ``results.json``,
``recipe.json``, ``scores.csv``, ``sheet.png`` and ``report.html``. Running the same study in the same folder again
goes on where it stopped, or returns at once when it is finished.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import pagopt
from pagopt.combine import Ranking
from pagopt.errors import StudyError
from pagopt.evaluate import Evaluator, Progress, at_load, make_trainer, together
from pagopt.files import write_text
from pagopt.folder import Folder, configuration
from pagopt.heads import HeadMap
from pagopt.looks import looks_table
from pagopt.models import family_of, load_model, model_files
from pagopt.recipe import PLAIN, Provenance, Recipe
from pagopt.render import Renderer
from pagopt.report import guards, write_report, write_sheet
from pagopt.results import Estimate, Method, Results, Round
from pagopt.reward import Objective, Reward
from pagopt.room import check_offload
from pagopt.search import TITLES
from pagopt.search.budget import Budget, Spending, search_within
from pagopt.search.candidates import found_order
from pagopt.store import Store
from pagopt.study import Study
from pagopt.summary import evidence, held_out_means, paired_test, scores_table

__all__ = ["Run", "run_study"]


class Candidate(NamedTuple):
    """A row of the comparison before it is scored on held-out tasks."""

    name: str
    recipe: Recipe


def run_study(
    study: Study,
    name: str,
    out: str | Path,
    batch_size: int = 16,
    trainer: dict[str, Any] | None = None,
    store: str | Path | None = None,
    offload: str | None = None,
) -> Results:
    """Run a study, or go on with it, or return what it found.

    Args:
        study: What to search for.
        name: What the study is called in its results.
        out: Its folder.
        batch_size: Images in one batch, on each process.
        trainer: Options of Lightning's ``Trainer``.
        store: Folder for images and scores, which several searches may share at once; by default ``out / "store"``.
        offload: Keep networks off the GPU while they are not needed: "model" or "sequential".

    Returns:
        The results, which also lie in the folder.

    Raises:
        PagoptError: With what to do about it; everything finished is kept.
    """
    options = trainer or {}
    folder = Folder(Path(out), configuration(study, name, options))
    finished = folder.finished(study)
    if finished is not None:
        return finished
    run = Run(study, name, folder, batch_size, options, store=store, offload=offload)
    try:
        return run()
    finally:
        run.close()


class Run:
    """One run of a study; see :func:`run_study`. With ``quiet`` it shows no bar and does not claim its folder.

    ``check``, for what is no search, may refuse model or study before the folder is touched. A search refuses too few
    heads for its rounds there, and a budget that pays for nothing.
    """

    def __init__(
        self,
        study: Study,
        name: str,
        folder: Folder,
        batch_size: int,
        options: dict[str, Any],
        quiet: bool = False,
        store: str | Path | None = None,
        offload: str | None = None,
        check: Callable[[Run], None] | None = None,
    ) -> None:
        self.study, self.name, self.folder = study, name, folder
        self.objective = Objective(study.specs, study.combine)
        self.own_code, self.model_files = study.own_code(), model_files(study.model)  # they may change during the run
        watch = Objective(study.watched).rewards if study.watch else {}
        self.tasks, self.searcher = study.tasks(), study.searcher()
        self.budget = Budget() if study.budget is None else Budget.parse(study.budget)
        for reward in (*self.objective.rewards.values(), *watch.values()):
            reward.check_prompts([task.prompt for task in (*self.tasks, *study.held_out_tasks())])
        dtype, options = at_load(study.dtype, options)
        self.trainer = make_trainer(**options)  # before the model is loaded, since that may take minutes
        check_offload(offload, self.trainer.strategy.root_device)
        pipe, self.weights = load_model(study.model, dtype, study.quantize)
        self.model_files = self.model_files or model_files(study.model)  # it may only now have come from the hub
        self.head_map: HeadMap = family_of(pipe).head_map(pipe.transformer)
        self.pool = self.head_map.select(study.heads)
        self.layers = sorted({head.block for head in self.pool})
        settings = (study.steps, study.height, study.width, study.distilled_guidance, study.compile, offload)
        self.renderer = Renderer(pipe, *settings)
        self.renderer.check_cfg((study.cfg, *study.cfg_scales))
        self.images = {} if check else study.images(self.pool)
        self.fixed = sum(images for stage, images in self.images.items() if stage != "search")
        if check is None:
            self.budget.left(self.fixed)
        else:
            check(self)
        if self.trainer.is_global_zero and not quiet:
            folder.claim()
        self.progress = Progress(sum(self.images.values()), disable=quiet or not self.trainer.is_global_zero)
        self.trainer.callbacks.append(self.progress)
        self.store, self.batch_size = Store(store or folder.path / "store"), batch_size
        self.evaluator = self._evaluator(self.renderer, self.objective.rewards)
        every = dict(self.objective.rewards)
        for label, reward in watch.items():
            if reward.key() not in {known.key() for known in every.values()}:
                every[f"{label} (watched)" if label in every else label] = reward
        self.cheaper: dict[int, Evaluator] = {}
        self.judge = self._evaluator(self.renderer, every)
        self.judge.acted = True  # whether anything does is known before
        self.baseline: dict[str, NDArray[np.float64]] = {}

    def close(self) -> None:
        """Close the bar and the store."""
        self.progress.close()
        self.store.close()

    def __call__(self) -> Results:
        """Search, compare, write."""
        start = time.monotonic()
        study = self.study
        self.progress.label("no guidance")
        self.measure_baseline()
        methods = [Candidate("no guidance", PLAIN)]
        if study.cfg_scales:
            self.progress.label("CFG")
            methods.append(self._best([Candidate(f"CFG {g:g}", Recipe(scale=0.0, cfg=g)) for g in study.cfg_scales]))
        if study.compare_layers:
            self.progress.label("single layers")
            base, every = study.recipe(), {site.block for site in self.head_map.sites}
            among = "" if len(self.layers) == len(every) else f" (of {len(self.layers)})"
            methods.append(
                self._best(
                    [
                        Candidate(f"best layer L{layer}{among}", base.replace(heads=self.head_map.layer(layer)))
                        for layer in self.layers
                    ]
                )
            )
        recipe, rounds = self._search(start)
        methods.append(Candidate(TITLES[study.search], recipe))
        self.progress.label("held-out tasks" if study.held_out_prompts else "comparison")
        results = self._results(methods, rounds, start)
        if self.trainer.is_global_zero:
            try:
                self.folder.check()
                self._write(results)
            except OSError as error:
                why = f"cannot write to {self.folder.path}: {error.strerror}"
                raise StudyError(f"{why}. The images and scores are kept; make room and run again.") from error
        return results

    def measure_baseline(self) -> None:
        """Score the search tasks without guidance."""
        self.baseline = {k: table[0] for k, table in self.evaluator([PLAIN], self.tasks).items()}

    def rank(self, recipes: Sequence[Recipe], tasks: Sequence[int] | None = None, part: float = 1.0) -> Ranking:
        """The recipes in the objective's order; see :class:`pagopt.search.Evaluate`."""
        chosen = self.tasks if tasks is None else [self.tasks[i] for i in tasks]
        evaluator = self.evaluator if part == 1 else self._at_steps(round(part * self.study.steps))
        return self.objective.rank(evaluator(recipes, chosen), self.baseline)

    def _at_steps(self, steps: int) -> Evaluator:
        """The evaluator for images with fewer steps."""
        if steps not in self.cheaper:
            self.cheaper[steps] = self._evaluator(self.renderer.at_steps(steps), self.objective.rewards)
        return self.cheaper[steps]

    def _evaluator(self, renderer: Renderer, rewards: Mapping[str, Reward]) -> Evaluator:
        return Evaluator(renderer, rewards, self.store, self.trainer, self.batch_size, self.progress, strict=False)

    def _search(self, start: float) -> tuple[Recipe, list[Round]]:
        """Search within the budget."""
        self.progress.label("round 1")
        spending = Spending(
            fixed=self.fixed,
            reserved=self.images["held-out tasks"],
            drawn=self.evaluator.images_generated,
            start=start,
            agree=self._agree,
        )
        recipe, tasks = self.study.recipe(), len(self.tasks)
        return search_within(self.budget, spending, self.searcher, self.rank, self.pool, recipe, tasks, self._on_round)

    def _on_round(self, done: Round) -> None:
        if done.number < self.study.rounds:
            self.progress.label(f"round {done.number + 1}")
        elif self.study.search == "refinement":
            self.progress.label("refinement")

    def _agree(self, value: Any) -> Any:
        """The first process's value, since clocks differ."""
        with together():
            return self.trainer.strategy.broadcast(value) if self.trainer.world_size > 1 else value

    def _best(self, candidates: Sequence[Candidate]) -> Candidate:
        return candidates[int(self.rank([candidate.recipe for candidate in candidates]).order[0])]

    def _results(self, candidates: Sequence[Candidate], rounds: list[Round], start: float) -> Results:
        tasks = self.study.held_out_tasks() or self.tasks
        prompts = [task.prompt for task in tasks]
        recipes = [candidate.recipe for candidate in candidates]
        # The bar knew only the most that a search may ask for.
        self.progress.expect(self.progress.done + len(recipes) * len(tasks))
        tables = self.judge(recipes, tasks)
        objective = self.objective.combine({label: tables[label] for label in self.objective.rewards}, self.baseline)
        methods = [
            Method(
                name=candidate.name,
                recipe=candidate.recipe.to_dict(),
                objective=tuple(objective[i].tolist()),
                rewards={label: tuple(table[i].tolist()) for label, table in tables.items()},
                images=tuple(keys),
                looks=looks_table(self.judge.looks(keys)),
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
            tests=[paired_test(methods[-1], other, prompts) for other in methods[:-1]],
            images_generated=sum(one.images_generated for one in (self.evaluator, self.judge, *self.cheaper.values())),
            seconds=round(time.monotonic() - start, 1),
            baseline=Estimate.of(
                self.objective.combine({k: row[None] for k, row in self.baseline.items()}, self.baseline)
            ),
            combine=self.study.combine,
            limits=self.objective.limits(self.baseline),
            # The first method is no guidance.
            held_out_limits=self.objective.limits(self.baseline, held_out_means(methods[0], prompts)),
            weights=self.weights.to_dict(),
            own_code=self.own_code,
            model_files=self.model_files,
        )

    def _write(self, results: Results) -> None:
        """The files a user wants; ``results.json`` comes last, because it says that the run is finished."""
        path = self.folder.path
        provenance = Provenance(
            model=results.model,
            fingerprint=results.fingerprint,
            objective=results.objective,
            evidence={
                **evidence(results),
                "order": [str(head) for head in found_order(results.rounds)],
                "looks": guards.describe(results, guards.read_guards(results)),
            },
            study=results.study,
            pagopt=results.pagopt,
        )
        results.recipe.save(path / "recipe.json", provenance)
        write_text(path / "scores.csv", scores_table(results))
        write_sheet(results, self.store.get_image, path / "sheet.png")
        write_report(results, self.store.get_image, path / "report.html")
        results.save(path / "results.json")
