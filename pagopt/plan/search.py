"""The plan of a search."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable, Sequence
from itertools import combinations
from typing import TypeAlias

from pagopt.combine import Ranking
from pagopt.comparison.compute import block_evaluations
from pagopt.experiment import Run
from pagopt.heads import Head, HeadMap
from pagopt.models.outline import outline_of
from pagopt.models.weights import Weights, bytes_of
from pagopt.plan.plan import Plan, Stage
from pagopt.plan.trial import Trial, operations
from pagopt.recipe import PLAIN, Recipe
from pagopt.search import LayerSweep, Lookahead, RandomSubsets, Refinement
from pagopt.search.budget import Spending, search_within
from pagopt.search.layers import layers_of
from pagopt.search.lookahead import PAIR
from pagopt.study import Study
from pagopt.task import Task

__all__ = ["make_plan", "outline_plan", "stored"]

Heads: TypeAlias = "tuple[Head, ...]"


class Kinds:
    """The recipes that the stages of a search draw, by stage; those of later rounds and of the end made up.

    Args:
        study: What is searched for.
        head_map: The model's heads.

    Attributes:
        search: Of the first round, and of a later one.
        first: The part of the search's images that the first round takes.
    """

    def __init__(self, study: Study, head_map: HeadMap) -> None:
        self.study, self.blocks = study, head_map.blocks
        pool: Sequence[Head] = head_map.select(study.heads)
        base = study.recipe()
        layers = sorted({head.block for head in pool})
        self.images = study.images(pool)
        self.first = share_of_first(study, pool)
        self.search = [[base.replace(heads=heads) for heads in some] for some in candidates(study, pool)]
        self.recipes = {
            "no guidance": [PLAIN],
            "CFG": [Recipe(scale=0.0, cfg=scale) for scale in study.cfg_scales],
            "single layers": [base.replace(heads=head_map.layer(layer)) for layer in layers],
        }
        self.recipes["held-out tasks"] = [
            PLAIN,
            *self.recipes["CFG"][:1],
            *(self.recipes["single layers"][len(layers) // 2 :][:1] if study.compare_layers else []),
            self.search[1][len(self.search[1]) // 2],
        ]

    def names(self) -> list[str]:
        """The stages that draw something, and the search."""
        return [name for name, images in self.images.items() if images or name == "search"]

    def cost(self, name: str) -> float:
        """Block evaluations of one image, on average."""
        if name != "search":
            kinds = self.recipes[name]
            if name == "held-out tasks":  # which layer, and which heads, is not known yet
                rows = ["CFG"] * bool(self.study.cfg_scales) + ["single layers"] * self.study.compare_layers
                found = self._mean(self.search[1])
                return statistics.fmean([self._mean([PLAIN]), *map(self.cost, rows), found])
            return self._mean(kinds)
        return self.first * self._mean(self.search[0]) + (1 - self.first) * self._mean(self.search[1])

    def _mean(self, recipes: Sequence[Recipe]) -> float:
        return statistics.fmean(block_evaluations(recipe, self.blocks, self.study.steps) for recipe in recipes)

    def exact(self) -> bool:
        """Whether every image is known before."""
        return self.study.search == "exhaustive" and self.study.budget is None


def candidates(study: Study, pool: Sequence[Head]) -> tuple[list[Heads], list[Heads]]:
    """The heads of what a search tries in its first round, and of what it tries later.

    What depends on scores, later rounds and the pairs of a lookahead, is made up, with the first head of the pool: none
    is dearer.
    """
    searcher = study.searcher()
    if isinstance(searcher, RandomSubsets):
        subsets = searcher.subsets(pool)
        return subsets, subsets
    if isinstance(searcher, LayerSweep):
        layers = layers_of(pool)
        return layers, [(*layers[0], *layer) for layer in layers[1:]] or layers
    first: list[Heads] = [(head,) for head in pool]
    if isinstance(searcher, Lookahead):
        first += combinations(pool[: searcher.beam], PAIR)
    # Some heads, spread over the pool, and one more.
    several = sorted({pool[i * len(pool) // 4] for i in range(4)})[: study.rounds * study.heads_per_round]
    return first, [(*several, head) for head in pool if head not in several] or [tuple(several)]


def share_of_first(study: Study, pool: Sequence[Head]) -> float:
    """The part of a search's images that its first round takes, about."""
    searcher, tasks = study.searcher(), len(study.prompts)
    if isinstance(searcher, RandomSubsets):
        return 1.0
    if isinstance(searcher, Refinement):
        return searcher.start.images(pool, tasks) / searcher.images(pool, tasks) / study.rounds
    return 1 / study.rounds


def make_plan(run: Run, clock: Callable[[], float] = time.perf_counter) -> Plan:
    """Work out what a run will cost; a few batches are drawn for it, and nothing is kept.

    Args:
        run: A study in its folder.
        clock: What the batches are timed by; see :class:`pagopt.plan.trial.Trial`.
    """
    study, kinds = run.study, Kinds(run.study, run.head_map)
    tasks, held_out = run.tasks, study.held_out_tasks()
    trial = Trial(run.evaluator, tasks, later=run.judge.rewards, clock=clock)
    try:
        paces = {
            name: trial.seconds(recipes, held_out, run.judge.rewards)
            if name == "held-out tasks"
            else trial.seconds(recipes, tasks)
            for name, recipes in kinds.recipes.items()
            if kinds.images[name]
        }
        rounds = [trial.seconds(recipes, tasks) for recipes in kinds.search[: 1 if kinds.first == 1 else 2]]
        peak = trial.peak()
    finally:
        trial.close()
    paces["search"] = kinds.first * rounds[0] + (1 - kinds.first) * rounds[-1]
    have = {name: stored(run, kinds.recipes[name], tasks) for name in ("no guidance", "CFG") if kinds.images[name]}
    if kinds.images["single layers"]:
        have["single layers"] = stored(run, kinds.recipes["single layers"], tasks)
    have["search"] = min(kinds.images["search"], replayed(run))
    if held_out:
        have["held-out tasks"] = stored(run, [PLAIN], held_out)
    return Plan(
        tuple(Stage(name, kinds.images[name], have[name], kinds.cost(name), paces[name]) for name in kinds.names()),
        exact=kinds.exact(),
        processes=run.trainer.world_size,
        operations=operations(run.renderer, tasks[0]),
        blocks=block_evaluations(PLAIN, kinds.blocks, study.steps),
        weights=sum(map(bytes_of, run.renderer.modules().values())),
        peak=peak,
    )


def outline_plan(study: Study, weights: Weights, processes: int = 1) -> Plan:
    """The plan of a study whose model is not here, from its configuration: without times, and without a store.

    Args:
        study: What is searched for.
        weights: How the model's are to be held.
        processes: Over how many the images are spread.
    """
    outline = outline_of(study.model)
    kinds = Kinds(study, outline.head_map)
    return Plan(
        tuple(Stage(name, kinds.images[name], 0, kinds.cost(name)) for name in kinds.names()),
        exact=kinds.exact(),
        processes=processes,
        operations=outline.operations(study.steps, study.height, study.width),
        blocks=block_evaluations(PLAIN, kinds.blocks, study.steps),
        weights=weights.bytes_in(outline.transformer, (outline.vae,)),
        peak=None,
    )


class Missing(Exception):
    """The store does not decide the search any further."""


def stored(run: Run, recipes: Sequence[Recipe], tasks: Sequence[Task]) -> int:
    """How many of these images the store has, with the scores of the search's rewards."""
    return len(recipes) * len(tasks) - run.evaluator.missing(recipes, tasks)


def replayed(run: Run) -> int:
    """How many images of the search the store has, followed round by round as far as it decides them."""
    plain = run.evaluator.stored([PLAIN], run.tasks)
    if plain is None:
        return 0
    baseline = {label: table[0] for label, table in plain.items()}
    found = 0

    def read(recipes: Sequence[Recipe], tasks: Sequence[int] | None = None, part: float = 1.0) -> Ranking:
        nonlocal found
        if part != 1:
            raise Missing  # what was drawn with fewer steps is not looked up
        chosen = run.tasks if tasks is None else [run.tasks[i] for i in tasks]
        found += stored(run, recipes, chosen)
        table = run.evaluator.stored(recipes, chosen)
        if table is None:
            raise Missing
        return run.objective.rank(table, baseline)

    spending = Spending(run.fixed, reserved=0, drawn=0, start=time.monotonic(), agree=lambda value: value)
    recipe, tasks = run.study.recipe(), len(run.tasks)
    with contextlib.suppress(Missing):
        search_within(run.budget, spending, run.searcher, read, run.pool, recipe, tasks, lambda done: None)
    return found
