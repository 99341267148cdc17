"""A comparison, run: choose the baselines on the search's tasks, draw everything on new ones, write what came out."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pagopt
from pagopt.comparison import verdict
from pagopt.comparison.baselines import Baselines, Row
from pagopt.comparison.comparison import Comparison
from pagopt.comparison.folder import Folder
from pagopt.comparison.outcome import Measure, Outcome, Standing
from pagopt.comparison.reference import Distances, Extractor, first_extractor, measure, read_references
from pagopt.comparison.statistics import Difference, difference
from pagopt.errors import PagoptError, RecipeError, StudyError
from pagopt.evaluate import Evaluator, Progress, at_load, make_trainer, precision_of, together
from pagopt.models import family_of, load_model
from pagopt.paired import holm, standard_error
from pagopt.recipe import PLAIN
from pagopt.render import Renderer
from pagopt.reward import Objective, load_reward
from pagopt.room import check_offload
from pagopt.store import Store
from pagopt.targets import make_target

__all__ = ["run_comparison"]


def run_comparison(
    comparison: Comparison,
    out: str | Path,
    store: str | Path | None = None,
    batch_size: int = 16,
    trainer: dict[str, Any] | None = None,
    offload: str | None = None,
) -> Outcome:
    """Compare recipes with their baselines, or go on with it.

    Args:
        comparison: What with what.
        out: Folder for tables and pictures; the files of an earlier comparison in it are replaced.
        store: Folder for images and scores, which may be a search's own; by default ``out / "store"``.
        batch_size: Images in one batch, on each process.
        trainer: Options of Lightning's ``Trainer``.
        offload: Keep networks off the GPU while they are not needed: "model" or "sequential".

    Returns:
        What came out, which also lies in the folder.

    Raises:
        PagoptError: With what to do about it; everything finished is kept.
    """
    if batch_size < 1:
        raise StudyError(f"batch_size must be at least 1, not {batch_size}")
    run = Run(comparison, Folder(Path(out)), Path(store or Path(out) / "store"), batch_size, trainer or {}, offload)
    try:
        return run()
    finally:
        run.close()


class Run:
    """One run of a comparison; see :func:`run_comparison`."""

    def __init__(
        self,
        comparison: Comparison,
        folder: Folder,
        store: Path,
        batch_size: int,
        options: dict[str, Any],
        offload: str | None = None,
    ) -> None:
        self.comparison, self.folder = comparison, folder
        self.tasks = comparison.tasks()
        self.references = read_references(comparison.reference) if comparison.reference is not None else []
        self.objective = Objective(comparison.specs())
        for reward in self.objective.rewards.values():
            reward.check_prompts(comparison.prompts)
        self.labels = self.objective.labels
        self.signs = {label: 1.0 if weight > 0 else -1.0 for label, weight in self.objective.weights.items()}
        self.extractor = self._extractor() if self.references else None
        dtype, remaining = at_load(comparison.dtype, options)
        self.trainer = make_trainer(**remaining)  # before the model is loaded, since that may take minutes
        check_offload(offload, self.trainer.strategy.root_device)
        pipe, self.weights = load_model(comparison.drawn_model(), *comparison.asked_weights(dtype))
        self.head_map = family_of(pipe).head_map(pipe.transformer)
        self.renderer = Renderer(
            pipe,
            comparison.drawn_steps(),
            comparison.height,
            comparison.width,
            comparison.distilled_guidance,
            comparison.compile,
            offload,
        )
        self._check_recipes()
        self.renderer.check_cfg(
            (*comparison.cfg_scales, *(entrant.recipe.cfg or 1.0 for entrant in comparison.entrants))
        )
        self.baselines = Baselines(comparison, self.head_map, self.renderer.steps, self.signs)
        self.leads = self.trainer.is_global_zero
        if self.leads:
            folder.claim(self._config(store, precision_of(options)))
        self.store = Store(store)
        self.progress = Progress(self.baselines.jobs(), disable=not self.leads)
        self.trainer.callbacks.append(self.progress)
        first = {self.labels[0]: self.objective.rewards[self.labels[0]]}
        self.judge, self.picker = (
            Evaluator(self.renderer, rewards, self.store, self.trainer, batch_size, self.progress)
            for rewards in (self.objective.rewards, first)
        )

    def close(self) -> None:
        """Close the bar and the store."""
        self.progress.close()
        self.store.close()

    def __call__(self) -> Outcome:
        """Choose, draw, judge, write."""
        start = time.monotonic()
        choices, rows = self.baselines.choose(self.judge, self.picker, self.progress.label)
        # Which scales were chosen decides how many rows there are.
        further = max(0, sum(row.kind == "cfg" for row in rows) - 1) * len(self.tasks)
        self.progress.bar.total = self.baselines.jobs() + further
        rows.insert(0, self.baselines.row("no guidance", "none", PLAIN))
        words: list[str] = []
        if self.comparison.best_of:
            self.progress.label("best of N")
            bests, words = self.baselines.best_of(self.picker)
            rows += bests
        rows += [self.baselines.row(e.label, "recipe", e.recipe) for e in self.comparison.entrants]
        self.progress.label("new prompts")
        standings = self._standings(rows)
        outcome = Outcome(
            pagopt=pagopt.__version__,
            model=self.comparison.drawn_model(),
            fingerprint=self.renderer.fingerprint,
            steps=self.renderer.steps,
            rewards=self._measures(),
            tasks=tuple((task.prompt, task.seed) for task in self.tasks),
            tuning_tasks=tuple((task.prompt, task.seed) for task in self.baselines.tuning),
            choices=tuple(choices),
            standings=standings,
            differences=self._differences(standings),
        )
        outcome = dataclasses.replace(outcome, distances=self._distances(outcome))
        outcome = dataclasses.replace(
            outcome,
            warnings=verdict.warnings(outcome),
            notes=verdict.notes(self.comparison, outcome, words),
            images_generated=self.judge.images_generated + self.picker.images_generated,
            seconds=round(time.monotonic() - start, 1),
        )
        if self.leads:
            self.folder.save(outcome, self.store.get_image)
        return outcome

    def _standings(self, rows: Sequence[Row]) -> tuple[Standing, ...]:
        """Every row, judged by every reward; what shares its tasks is drawn together."""
        groups = [task.prompt for task in self.tasks]
        together = [row for row in rows if row.kind != "best-of"]
        shared = self.judge([row.recipe for row in together], self.tasks)
        of_shared = iter({label: shared[label][i] for label in self.labels} for i in range(len(together)))
        scores = [
            {label: table[0] for label, table in self.judge([row.recipe], row.tasks).items()}
            if row.kind == "best-of"
            else next(of_shared)
            for row in rows
        ]
        return tuple(
            Standing(
                name=row.name,
                kind=row.kind,
                recipe=row.recipe.to_dict(),
                compute=row.compute,
                scores={label: tuple(values.tolist()) for label, values in own.items()},
                means={label: float(values.mean()) for label, values in own.items()},
                errors={label: standard_error(values, groups) for label, values in own.items()},
                images=tuple(self.judge.keys([row.recipe], row.tasks)[0]),
                seeds=tuple(task.seed for task in row.tasks),
            )
            for row, own in zip(rows, scores, strict=True)
        )

    def _differences(self, standings: Sequence[Standing]) -> tuple[Difference, ...]:
        """Each recipe against each baseline, but for the best-of-N that another recipe pays for; corrected."""
        groups = [task.prompt for task in self.tasks]
        found = [
            difference((one.name, other.name, label), one.scores[label], other.scores[label], groups, self.signs[label])
            for one in standings
            if one.kind == "recipe"
            for other in standings
            if other.kind not in {"recipe", "best-of"} or (other.kind == "best-of" and other.compute == one.compute)
            for label in self.labels
        ]
        corrected = holm([one.p_value for one in found])
        return tuple(dataclasses.replace(one, corrected=p) for one, p in zip(found, corrected, strict=True))

    def _distances(self, outcome: Outcome) -> Distances | None:
        if self.extractor is None:
            return None
        self.progress.label("distances")
        found = None
        if self.leads:
            drawn = {s.name: [self.store.get_image(key) for key in s.images] for s in outcome.standings}
            baselines = ["no guidance", *filter(None, [outcome.tuned(self.labels[0])])]
            pairs = [(entrant.label, name) for entrant in self.comparison.entrants for name in baselines]
            device = self.trainer.strategy.root_device
            found = measure(self.extractor, self.references, drawn, len(self.comparison.prompts), pairs, device)
        with together():
            return self.trainer.strategy.broadcast(found) if self.trainer.world_size > 1 else found

    def _measures(self) -> tuple[Measure, ...]:
        return tuple(
            Measure(
                label,
                spec.name,
                dict(spec.args),
                self.signs[label] > 0,
                tuple(
                    entrant.label
                    for entrant in self.comparison.entrants
                    if any((term.name, term.args) == (spec.name, spec.args) for term in entrant.objective())
                ),
            )
            for label, spec in zip(self.labels, self.objective.specs, strict=True)
        )

    def _extractor(self) -> Extractor:
        """Features by the reward that was asked for, or by the first that has some."""
        spec = self.comparison.features
        if spec is not None:
            return Extractor(load_reward(spec.name, **spec.args))
        searched = {measure.label for measure in self._measures() if measure.searched}
        if (extractor := first_extractor(self.objective.rewards, searched)) is not None:
            return extractor
        raise StudyError(
            f"none of the rewards {', '.join(self.labels)} has features to measure distances to the reference in: give "
            "--features NAME, a reward with a method features(images), such as judge or clip"
        )

    def _check_recipes(self) -> None:
        for entrant in self.comparison.entrants:
            known = entrant.provenance
            other = known is not None and known.fingerprint != self.renderer.fingerprint
            if known is not None and other and not self.comparison.allow_other_model:
                raise StudyError(
                    f"the recipe {entrant.label} was found on another model: {known.model} with fingerprint "
                    f"{known.fingerprint or '(none)'}, and {self.comparison.drawn_model()} has "
                    f"{self.renderer.fingerprint} (other weights, or held in another form, which --dtype and "
                    "--quantize say). Its heads may mean something else here. Give the model that it was found on by "
                    "--model; --allow_other_model compares all the same"
                )
            try:
                self.head_map.check(entrant.recipe.heads)
                make_target(entrant.recipe.target, dict(entrant.recipe.target_options), entrant.recipe.path)
            except PagoptError as error:
                raise RecipeError(f"the recipe {entrant.label} does not fit this model: {error}") from error

    def _config(self, store: Path, precision: str) -> dict[str, Any]:
        """What was asked for, as plain data."""
        c = self.comparison
        return {
            "evaluate": {entrant.label: entrant.recipe.to_dict() for entrant in c.entrants},
            "rewards": self.objective.describe(),
            "prompts": list(c.prompts),
            "seeds": c.seeds,
            "first_seed": c.first_seed,
            "tuning_tasks": [list(task) for task in self.baselines.tuning],
            "cfg_scales": list(c.cfg_scales),
            "compare_layers": c.compare_layers,
            "best_of": c.best_of,
            "model": c.drawn_model(),
            "steps": self.renderer.steps,
            "height": self.renderer.height,
            "width": self.renderer.width,
            "distilled_guidance": c.distilled_guidance,
            "reference": str(c.reference) if c.reference else None,
            "features": self.extractor.reward.name if self.extractor else None,
            "store": str(store),
            "precision": precision,
            **self.weights.to_dict(),
        }
