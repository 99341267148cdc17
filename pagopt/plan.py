"""What a study will cost, before it is paid: images, block evaluations, time and memory, and what the store has.

The images of the exhaustive search are exact; the other searches state the most that they ask for. Times come from
batches that are drawn and scored on this machine, one or a few for each kind of picture.
"""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from pagopt.combine import Ranking
from pagopt.comparison.compute import block_evaluations
from pagopt.errors import UnknownName
from pagopt.experiment import Run
from pagopt.recipe import PLAIN, Recipe
from pagopt.render import Job, Task

__all__ = ["GPUS", "SHARE", "Plan", "Stage", "make_plan"]

GPUS = {"a100": 312e12, "h100": 989e12, "h200": 989e12, "l40s": 362e12, "rtx4090": 165e12}
"""Dense bfloat16 operations a second that the makers state, without sparsity."""


SHARE = 0.4
"""The part of that rate which is assumed for an estimate: large batches, compiled blocks."""


@dataclass(frozen=True)
class Stage:
    """A part of the run.

    Attributes:
        name: "no guidance", "CFG", "single layers", "round 1", ..., "held-out tasks".
        images: How many it looks at; of a search that may end earlier, the most.
        stored: How many of them the store has, scored; of later rounds as far as the store decides them.
        evaluations: Block evaluations of one image, on average.
        seconds: Time of one image here, drawn and scored, on one process.
    """

    name: str
    images: int
    stored: int
    evaluations: float
    seconds: float


@dataclass(frozen=True)
class Plan:
    """All of it.

    Attributes:
        stages: In the order of the run.
        exact: Whether the numbers of images are exact, not only the most.
        processes: Over how many processes the images are spread.
        operations: Floating-point operations of one unguided image: the transformer's and the decoder's.
        blocks: Block evaluations of one unguided image.
        weights: Bytes of all networks.
        peak: Bytes in use at the peak of the trial batches on a GPU; ``None`` on a CPU.
    """

    stages: tuple[Stage, ...]
    exact: bool
    processes: int
    operations: int
    blocks: int
    weights: int
    peak: int | None

    @property
    def images(self) -> int:
        """Images of the whole run."""
        return sum(stage.images for stage in self.stages)

    @property
    def stored(self) -> int:
        """Those that the store has."""
        return sum(stage.stored for stage in self.stages)

    @property
    def evaluations(self) -> float:
        """Block evaluations that are left."""
        return sum((stage.images - stage.stored) * stage.evaluations for stage in self.stages)

    @property
    def seconds(self) -> float:
        """Time that is left, on this machine."""
        return sum((stage.images - stage.stored) * stage.seconds for stage in self.stages) / self.processes

    def seconds_on(self, gpu: str) -> float:
        """Time that is left on one GPU of this name, if it reaches ``SHARE`` of its maker's rate.

        Raises:
            UnknownName: If its rate is not known here.
        """
        if gpu not in GPUS:
            raise UnknownName("GPU", gpu, GPUS)
        return self.evaluations / self.blocks * self.operations / (SHARE * GPUS[gpu])


def make_plan(run: Run) -> Plan:
    """Work out what a run will cost; a few batches are drawn for it, and nothing is stored.

    Args:
        run: A study in its folder.
    """
    study, blocks, tasks = run.study, run.head_map.blocks, run.tasks
    base = study.recipe()
    layers = [base.replace(heads=run.head_map.layer(layer)) for layer in run.layers]
    cfg = [Recipe(scale=0.0, cfg=scale) for scale in study.cfg_scales]
    singles = [base.replace(heads=(head,)) for head in run.pool]
    # What later rounds draw: some heads, here spread over the pool, and one more.
    several = sorted({run.pool[i * len(run.pool) // 4] for i in range(4)})[: study.rounds * study.heads_per_round]
    found = [base.replace(heads=(*several, head)) for head in run.pool if head not in several]
    found = found or [base.replace(heads=tuple(several))]

    def cost(recipes: Sequence[Recipe]) -> float:
        return statistics.fmean(block_evaluations(recipe, blocks, study.steps) for recipe in recipes)

    trial = Trial(run)
    seconds = {"none": trial.seconds([PLAIN]), "one": trial.seconds(singles), "several": trial.seconds(found)}
    stages = [Stage("no guidance", len(tasks), stored(run, [PLAIN], tasks), cost([PLAIN]), seconds["none"])]
    if cfg:
        seconds["cfg"] = trial.seconds(cfg)
        stages.append(Stage("CFG", len(cfg) * len(tasks), stored(run, cfg, tasks), cost(cfg), seconds["cfg"]))
    if study.compare_layers:
        here = stored(run, layers, tasks)
        stages.append(Stage("single layers", len(layers) * len(tasks), here, cost(layers), seconds["one"]))
    images, first = run.searched(), min(1.0, 1 / study.rounds)
    stages.append(
        Stage(
            "search",
            images,
            min(images, replayed(run)),
            first * cost(singles) + (1 - first) * cost(found),
            first * seconds["one"] + (1 - first) * seconds["several"],
        )
    )
    if run.held_out_images():
        rows = {"none": [PLAIN], "cfg": cfg, "one": layers if study.compare_layers else [], "several": found}
        kinds = [kind for kind, recipes in rows.items() if recipes]
        evaluations = statistics.fmean(cost(rows[kind]) for kind in kinds)
        here = stored(run, [PLAIN], study.held_out_tasks())
        pace = statistics.fmean(seconds[kind] for kind in kinds)
        stages.append(Stage("held-out tasks", run.held_out_images(), here, evaluations, pace))
    return Plan(
        tuple(stages),
        exact=study.search == "exhaustive" and study.budget is None,
        processes=run.trainer.world_size,
        operations=operations(run),
        blocks=block_evaluations(PLAIN, blocks, study.steps),
        weights=sum(p.numel() * p.element_size() for m in run.renderer.modules().values() for p in m.parameters()),
        peak=trial.peak(),
    )


class Missing(Exception):
    """The store does not decide the search any further."""


def stored(run: Run, recipes: Sequence[Recipe], tasks: Sequence[Task]) -> int:
    """How many of these images the store has, with the scores of the search's rewards."""
    return len(recipes) * len(tasks) - run.evaluator.missing(recipes, tasks)


def replayed(run: Run) -> int:
    """How many images of the search the store has, followed round by round as far as it decides them."""
    if stored(run, [PLAIN], run.tasks) < len(run.tasks):
        return 0
    run.measure_baseline()
    found = 0

    def read(recipes: Sequence[Recipe], tasks: Sequence[int] | None = None, part: float = 1.0) -> Ranking:
        nonlocal found
        if part != 1:
            raise Missing  # what was drawn with fewer steps is not looked up
        chosen = run.tasks if tasks is None else [run.tasks[i] for i in tasks]
        here = stored(run, recipes, chosen)
        found += here
        if here < len(recipes) * len(chosen):
            raise Missing
        return run.rank(recipes, tasks)

    with contextlib.suppress(Missing):
        run.searcher.run(read, run.pool, run.study.recipe(), len(run.tasks))
    return found


class Trial:
    """Draws and scores batches as the run will, without keeping them."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.device = run.trainer.strategy.root_device
        run.evaluator.module.to(self.device)
        for reward in run.evaluator.rewards.values():
            reward.move(self.device)
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        self._draw([PLAIN])  # the first batch of a process is slow

    def seconds(self, recipes: Sequence[Recipe]) -> float:
        """Time of one image, over at least a second of batches."""
        if self.run.study.compile:
            self._draw(recipes)
        images, begin = 0, time.perf_counter()
        while not images or time.perf_counter() - begin < 1.0:
            images += self._draw(recipes)
        return (time.perf_counter() - begin) / images

    def peak(self) -> int | None:
        """Bytes of GPU memory in use at most."""
        return torch.cuda.max_memory_allocated(self.device) if self.device.type == "cuda" else None

    def _draw(self, recipes: Sequence[Recipe]) -> int:
        run, size = self.run, self.run.evaluator.batch_size
        # Many candidates of one task, as in the search; or many tasks, where there is one recipe.
        jobs = [
            Job(recipes[i * len(recipes) // size], run.tasks[0] if len(recipes) > 1 else run.tasks[i % len(run.tasks)])
            for i in range(size)
        ]
        with run.trainer.precision_plugin.predict_step_context(), torch.inference_mode():
            images = run.renderer.render(jobs)
            for reward in run.evaluator.rewards.values():
                reward(images, [job.task.prompt for job in jobs])
        return size


def operations(run: Run) -> int:
    """Floating-point operations of an unguided image, a multiplication and an addition being two."""
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        run.renderer.render([Job(PLAIN, run.tasks[0])])
    return int(counter.get_total_flops())
