"""The plan of an atlas: every head alone, and every layer, with the same prompts and seeds."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence

from pagopt.atlas import Atlas
from pagopt.atlas.run import AtlasRun
from pagopt.comparison.compute import block_evaluations
from pagopt.heads import Head
from pagopt.models.outline import outline_of
from pagopt.models.weights import Weights, bytes_of
from pagopt.plan.plan import Plan, Stage
from pagopt.plan.trial import Trial, operations
from pagopt.recipe import PLAIN, Recipe

__all__ = ["make_atlas_plan", "outline_atlas_plan"]


def make_atlas_plan(run: AtlasRun, clock: Callable[[], float] = time.perf_counter) -> Plan:
    """Work out what an atlas will cost; a few batches are drawn for it, and nothing is kept.

    Args:
        run: An atlas in its folder.
        clock: What the batches are timed by; see :class:`pagopt.plan.Trial`.
    """
    kinds = _kinds(run.atlas, run.entries)
    trial = Trial(run.evaluator, run.tasks, clock=clock)
    try:
        paces = {name: trial.seconds(recipes, run.tasks) for name, recipes in kinds.items()}
        peak = trial.peak()
    finally:
        trial.close()
    images = {name: len(recipes) * len(run.tasks) for name, recipes in kinds.items()}
    have = {name: images[name] - run.evaluator.missing(recipes, run.tasks) for name, recipes in kinds.items()}
    blocks, steps = run.heads.blocks, run.atlas.steps
    return Plan(
        tuple(Stage(name, images[name], have[name], _cost(kinds[name], blocks, steps), paces[name]) for name in kinds),
        exact=True,
        processes=run.trainer.world_size,
        operations=operations(run.renderer, run.tasks[0]),
        blocks=block_evaluations(PLAIN, blocks, steps),
        weights=sum(map(bytes_of, run.renderer.modules().values())),
        peak=peak,
    )


def outline_atlas_plan(atlas: Atlas, weights: Weights, processes: int = 1) -> Plan:
    """The plan of an atlas whose model is not here, from its configuration: without times, and without a store.

    Args:
        atlas: What is drawn.
        weights: How the model's are to be held.
        processes: Over how many the images are spread.
    """
    outline = outline_of(atlas.model)
    blocks, steps, tasks = outline.head_map.blocks, atlas.steps, len(atlas.tasks())
    kinds = _kinds(atlas, atlas.entries(outline.head_map))
    return Plan(
        tuple(Stage(name, len(some) * tasks, 0, _cost(some, blocks, steps)) for name, some in kinds.items()),
        exact=True,
        processes=processes,
        operations=outline.operations(steps, atlas.height, atlas.width),
        blocks=block_evaluations(PLAIN, blocks, steps),
        weights=weights.bytes_in(outline.transformer, (outline.vae,)),
        peak=None,
    )


def _kinds(atlas: Atlas, entries: Mapping[str, tuple[Head, ...]]) -> dict[str, list[Recipe]]:
    """The recipes by stage."""
    plain, *perturbed = atlas.recipes(entries)
    layers = [name for name in entries if "." not in name]
    return {
        "no guidance": [plain],
        "single heads": perturbed[: len(entries) - len(layers)],
        **({"single layers": perturbed[-len(layers) :]} if layers else {}),
    }


def _cost(recipes: Sequence[Recipe], blocks: int, steps: int) -> float:
    return statistics.fmean(block_evaluations(recipe, blocks, steps) for recipe in recipes)
