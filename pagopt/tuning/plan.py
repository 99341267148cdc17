"""The plan of a tuning: trials x tasks, and the comparison at the end."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import optuna

from pagopt.comparison.compute import block_evaluations
from pagopt.models.outline import outline_of
from pagopt.models.weights import Weights, bytes_of
from pagopt.plan import Plan, Stage, Trial, operations
from pagopt.plan.search import stored
from pagopt.recipe import PLAIN, Recipe
from pagopt.tuning.ledger import STOPPED
from pagopt.tuning.parameter import Parameter, Value
from pagopt.tuning.run import TuningRun
from pagopt.tuning.space import Point, Space
from pagopt.tuning.start import find_start, first_points
from pagopt.tuning.storage import DATABASE, address_of, file_of, guarded, open_storage
from pagopt.tuning.tuning import Tuning

__all__ = ["finished_trials", "make_tuning_plan", "outline_tuning_plan", "random_points"]

POINTS = 64
"""Points of the space that stand for the trials to come."""

SHORT = 0.7
"""Seconds that each of some groups of them is drawn for, at least."""


class Parts:
    """The stages of a tuning.

    Args:
        tuning: What is tuned.
        space: What varies.
        blocks: Of the model.

    Attributes:
        images: By stage, at most, in the order of the run; each where it is drawn first.
        points: Some of the space, drawn at random.
        repeats: Of each trial that no sampler gives, whether the stage before draws the same pictures.
    """

    def __init__(self, tuning: Tuning, space: Space, blocks: int) -> None:
        study = tuning.study
        self.tuning, self.space, self.blocks, self.steps = tuning, space, blocks, study.steps
        self.points = random_points(space, POINTS, tuning.tuning_seed)
        self.cfg = [Recipe(scale=0.0, cfg=scale) for scale in study.cfg_scales]
        self.goals = 1 + len(tuning.objectives)
        best = tuning.trials if self.goals > 1 else 1  # how many lie on the front is not known before
        tasks = len(study.prompts)
        before = [_drawn(PLAIN), _drawn(space.recipe)]
        points = first_points(space)[0].values()
        self.repeats = [point.steps == study.steps and _drawn(point.recipe) in before for point in points]
        self.images = {
            "no guidance, as it was": 2 * tasks,
            "trials": self.new(tuning.trials) * tasks,
            "CFG": len(self.cfg) * tasks,
            "held-out tasks": (2 + bool(self.cfg) + best) * len(study.held_out_prompts),
        }

    @property
    def exact(self) -> bool:
        """Whether every image is known before: nothing is pruned, and one trial is the best."""
        return self.tuning.pruner == "none" and self.goals == 1

    def new(self, trials: int) -> int:
        """How many of the first trials draw pictures of their own."""
        return trials - sum(self.repeats[:trials])

    def names(self) -> list[str]:
        """The stages that draw something."""
        return [name for name, images in self.images.items() if images]

    def cost(self, name: str) -> float:
        """Block evaluations of one image, on average; of trials, over the space."""
        of_trials = statistics.fmean(block_evaluations(p.recipe, self.blocks, p.steps) for p in self.points)
        first = [PLAIN, self.space.recipe]
        rows = {"no guidance, as it was": first, "CFG": self.cfg, "held-out tasks": [*first, *self.cfg[:1]]}
        if name == "trials":
            return of_trials
        fixed = [block_evaluations(recipe, self.blocks, self.steps) for recipe in rows[name]]
        if name != "held-out tasks":
            return statistics.fmean(fixed)
        best = self.tuning.trials if self.goals > 1 else 1
        return (sum(fixed) + best * of_trials) / (len(fixed) + best)


def make_tuning_plan(run: TuningRun, done: int = 0, clock: Callable[[], float] = time.perf_counter) -> Plan:
    """Work out what a tuning will cost; a few batches are drawn for it, and nothing is kept.

    Args:
        run: A tuning in its folder.
        done: Trials that are finished already.
        clock: What the batches are timed by; see :class:`pagopt.plan.Trial`.
    """
    tuning, whole = run.tuning, run.run
    parts = Parts(tuning, run.space, whole.head_map.blocks)
    tasks, held_out = whole.tasks, tuning.study.held_out_tasks()
    rewards, start = run.scoring.rewards, run.start.recipe
    trial = Trial(whole.evaluator, tasks, rewards, whole.judge.rewards, clock)
    try:
        paces = {"no guidance, as it was": trial.seconds([PLAIN, start], tasks)}
        rung = [tasks[task] for task in max(run.slices, key=len)]  # what most trials are drawn on at once
        groups = _by_steps(parts.points[: 4 * tuning.at_once], tuning.at_once)
        taken = [
            len(points)
            * trial.seconds(
                [point.recipe for point in points],
                rung,
                renderer=run.scoring.evaluator(points[0].steps).renderer,
                least=SHORT,
            )
            for points in groups
        ]
        paces["trials"] = sum(taken) / sum(map(len, groups))
        if parts.cfg:
            paces["CFG"] = trial.seconds(parts.cfg, tasks)
        last = [PLAIN, *parts.cfg[:1], start]
        paces["held-out tasks"] = trial.seconds(last, held_out or tasks, run.scoring.every)
        peak = trial.peak()
    finally:
        trial.close()
    have = dict.fromkeys(parts.images, 0)
    evaluator = run.scoring.evaluator(tuning.study.steps)
    have["no guidance, as it was"] = 2 * len(tasks) - evaluator.missing([PLAIN, start], tasks)
    have["CFG"] = len(parts.cfg) * len(tasks) - evaluator.missing(parts.cfg, tasks) if parts.cfg else 0
    have["trials"] = parts.new(done) * len(tasks)
    if held_out:
        have["held-out tasks"] = stored(whole, [PLAIN, start], held_out)
    return Plan(
        tuple(Stage(name, parts.images[name], have[name], parts.cost(name), paces[name]) for name in parts.names()),
        exact=parts.exact,
        processes=run.trainer.world_size,
        operations=operations(whole.renderer, tasks[0]),
        blocks=block_evaluations(PLAIN, parts.blocks, tuning.study.steps),
        weights=sum(map(bytes_of, whole.renderer.modules().values())),
        peak=peak,
    )


def outline_tuning_plan(tuning: Tuning, weights: Weights, processes: int = 1) -> Plan:
    """The plan of a tuning whose model is not here, from its configuration: without times, and without a store.

    Args:
        tuning: What is tuned.
        weights: How the model's are to be held.
        processes: Over how many the images are spread.
    """
    start, study = find_start(tuning), tuning.study
    outline = outline_of(study.model)
    outline.head_map.check(start.recipe.heads)
    parts = Parts(tuning, Space(tuning.space, start.recipe, start.order, study.steps), outline.head_map.blocks)
    return Plan(
        tuple(Stage(name, parts.images[name], 0, parts.cost(name)) for name in parts.names()),
        exact=parts.exact,
        processes=processes,
        operations=outline.operations(study.steps, study.height, study.width),
        blocks=block_evaluations(PLAIN, parts.blocks, study.steps),
        weights=weights.bytes_in(outline.transformer, (outline.vae,)),
        peak=None,
    )


def finished_trials(storage: str | Path | None, out: Path, study_name: str) -> int:
    """How many trials an Optuna study has finished; 0 where there is none.

    Args:
        storage: As for :func:`pagopt.tuning.tune`; ``None`` is the one in ``out``.
        out: The folder of the run.
        study_name: Of the Optuna study.

    Raises:
        StudyError: If the storage cannot be reached.
    """
    address = address_of(storage or out / DATABASE)
    file = file_of(address)
    if file is not None and not file.exists():
        return 0  # opening it would make it
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with guarded(address):
        try:
            study = optuna.load_study(study_name=study_name, storage=open_storage(address))
        except KeyError:
            return 0
        trials = study.get_trials(deepcopy=False)
    return sum(trial.state.is_finished() and STOPPED not in trial.user_attrs for trial in trials)


def random_points(space: Space, number: int, seed: int) -> list[Point]:
    """Points of a space, drawn at random as a sampler that knows nothing would."""
    chance = np.random.default_rng(seed)

    def ask(name: str, parameter: Parameter) -> Value:
        if parameter.values:
            return parameter.values[int(chance.integers(len(parameter.values)))]
        low, high = parameter.low, parameter.high
        if parameter.step:
            value = low + parameter.step * int(chance.integers(math.floor((high - low) / parameter.step + 1e-9) + 1))
        elif parameter.log:
            value = math.exp(chance.uniform(math.log(low), math.log(high)))
        else:
            value = chance.uniform(low, high)
        return min(int(high), round(value)) if parameter.whole else min(high, max(low, float(value)))

    return [space.draw(ask) for _ in range(number)]


def _drawn(recipe: Recipe) -> Recipe:
    """One recipe for all that draw the same pictures."""
    return Recipe(scale=0.0, cfg=recipe.cfg or 1.0) if recipe.is_plain else recipe.replace(cfg=recipe.cfg or 1.0)


def _by_steps(points: Sequence[Point], at_once: int) -> list[list[Point]]:
    """Batches of points, each divided by steps, as the run does it."""
    batches = [points[i : i + at_once] for i in range(0, len(points), at_once)]
    return [
        [point for point in batch if point.steps == steps]
        for batch in batches
        for steps in dict.fromkeys(point.steps for point in batch)
    ]
