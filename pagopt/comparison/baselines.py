"""What a recipe has to beat: CFG and a layer chosen on the search's own tasks, and best-of-N at equal compute."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pagopt.comparison.comparison import Comparison
from pagopt.comparison.compute import block_evaluations, pictures_for
from pagopt.comparison.outcome import Choice
from pagopt.errors import StudyError
from pagopt.evaluate import Evaluator
from pagopt.heads import HeadMap
from pagopt.recipe import PLAIN, Recipe
from pagopt.report.reading import counted
from pagopt.task import Task

__all__ = ["Baselines", "Row"]


@dataclass(frozen=True)
class Row:
    """A method before its pictures are judged.

    Attributes:
        name: In the tables.
        kind: As in :class:`pagopt.comparison.outcome.Standing`.
        recipe: What it does.
        compute: Block evaluations for one picture, in those of an unguided one.
        tasks: What it draws; best-of-N has seeds of its own.
    """

    name: str
    kind: str
    recipe: Recipe
    compute: float
    tasks: Sequence[Task]


class Baselines:
    """Makes the rows that recipes are compared with.

    Args:
        comparison: What is compared.
        heads: The heads of the model.
        steps: Inference steps.
        signs: For each reward 1, or -1 where lower is better. The first chooses the layer and the best of N.

    Raises:
        StudyError: If a recipe is called what a baseline is.
    """

    def __init__(self, comparison: Comparison, heads: HeadMap, steps: int, signs: Mapping[str, float]) -> None:
        self.comparison, self.heads, self.steps, self.signs = comparison, heads, steps, signs
        self.first = next(iter(signs))
        self.tasks, self.tuning = comparison.tasks(), comparison.tuning_tasks()
        self.costs: dict[float, list[str]] = {}
        """The recipes' labels by what they cost."""
        for entrant in comparison.entrants:
            self.costs.setdefault(self.compute(entrant.recipe), []).append(entrant.label)
        # As many digits as tell the costs apart: 17 always do.
        names = ([f"best of {cost:.{digits}g}" for cost in self.costs] for digits in range(3, 18))
        self.bests = dict(zip(self.costs, next(some for some in names if len(set(some)) == len(some)), strict=True))
        taken = {"no guidance", *map(_cfg, comparison.cfg_scales), *self.layers(), *self.bests.values()}
        for entrant in comparison.entrants:
            if entrant.label in taken:
                raise StudyError(f"a recipe is called {entrant.label!r}, as a baseline is: give it another name")

    def compute(self, recipe: Recipe) -> float:
        """What a picture costs, in unguided ones."""
        blocks = self.heads.blocks
        return block_evaluations(recipe, blocks, self.steps) / block_evaluations(PLAIN, blocks, self.steps)

    def row(self, name: str, kind: str, recipe: Recipe) -> Row:
        """A method that draws the tasks as they are."""
        return Row(name, kind, recipe, self.compute(recipe), self.tasks)

    def layers(self) -> dict[str, Recipe]:
        """Every layer with the settings of the recipes, by name."""
        bases = self.comparison.layers_of()
        return {
            f"best layer L{layer}" + (f" (as {label})" if len(bases) > 1 else ""): base.replace(
                heads=self.heads.layer(layer)
            )
            for label, base in bases.items()
            for layer in sorted({site.block for site in self.heads.sites})
        }

    def choose(self, judge: Evaluator, picker: Evaluator, say: Callable[[str], None]) -> tuple[list[Choice], list[Row]]:
        """The best CFG for each reward and the best layer for the first, on the search's tasks.

        Args:
            judge: Scores by all rewards.
            picker: Scores by the first.
            say: Told what is going on.
        """
        choices: list[Choice] = []
        rows: list[Row] = []
        if not self.tuning or not (self.comparison.cfg_scales or self.comparison.compare_layers):
            return choices, rows
        say("CFG, on the search's tasks")
        unguided = {label: float(table.mean()) for label, table in judge([PLAIN], self.tuning).items()}
        if self.comparison.cfg_scales:
            scales = sorted(self.comparison.cfg_scales)
            recipes = {_cfg(scale): Recipe(scale=0.0, cfg=scale) for scale in scales}
            scores = judge(list(recipes.values()), self.tuning)
            edge = _cfg(scales[-1]) if len(scales) > 1 else ""
            choices = [self._choice("cfg", label, recipes, scores[label], unguided, edge) for label in self.signs]
            best = {choice.method for choice in choices}
            rows = [self.row(name, "cfg", recipe) for name, recipe in recipes.items() if name in best]
        if self.comparison.compare_layers:
            say("single layers, on the search's tasks")
            layers = self.layers()
            scores = picker(list(layers.values()), self.tuning)
            choices.append(self._choice("layer", self.first, layers, scores[self.first], unguided))
            rows.append(self.row(choices[-1].method, "layer", layers[choices[-1].method]))
        return choices, rows

    def best_of(self, picker: Evaluator) -> tuple[list[Row], list[str]]:
        """For each cost of a recipe, the best of as many unguided pictures, and how they were drawn, in words."""
        rows, words = [], []
        for compute, labels in self.costs.items():
            counts = pictures_for(compute, len(self.tasks))
            drawn = [self.comparison.further(task, n) for task, n in zip(self.tasks, counts, strict=True)]
            scores = picker([PLAIN], [task for tasks in drawn for task in tasks])[self.first][0]
            rows.append(Row(self.bests[compute], "best-of", PLAIN, compute, self.pick(drawn, scores.tolist())))
            shares = ", ".join(f"{n} for {counted(times, 'task')}" for n, times in sorted(Counter(counts).items()))
            words.append(
                f"{rows[-1].name}: {counted(sum(counts), 'unguided picture')} for {counted(len(self.tasks), 'task')}, "
                f"which is what the block evaluations of {', '.join(labels)} pay for ({shares}); of each task's "
                "pictures the best is taken."
            )
        return rows, words

    def pick(self, drawn: Sequence[Sequence[Task]], scores: Sequence[float]) -> list[Task]:
        """The best of each task's pictures by the first reward; a tie goes to the first.

        Args:
            drawn: For each task its own and further ones.
            scores: Of all of them, in this order.
        """
        left = iter(scores)
        return [max(tasks, key=lambda _: self.signs[self.first] * next(left)) for tasks in drawn]

    def jobs(self) -> int:
        """How many images all methods look at."""
        c = self.comparison
        tuning = baselines = 0
        if self.tuning:
            layers = len(self.layers()) if c.compare_layers else 0
            tuning = (1 + len(c.cfg_scales) + layers) * len(self.tuning)
            baselines = bool(c.cfg_scales) + c.compare_layers
        best_of = [sum(pictures_for(cost, len(self.tasks))) + len(self.tasks) for cost in self.costs if c.best_of]
        return tuning + sum(best_of) + (1 + baselines + len(c.entrants)) * len(self.tasks)

    def _choice(
        self,
        kind: str,
        label: str,
        recipes: Mapping[str, Recipe],
        scores: NDArray[np.float64],
        unguided: Mapping[str, float],
        edge: str = "",
    ) -> Choice:
        means = dict(zip(recipes, scores.mean(axis=1).tolist(), strict=True))
        sign = self.signs[label]
        best = max(means, key=lambda name: sign * means[name])
        beats = sign * means[best] > sign * unguided[label]
        return Choice(kind, label, best, means, unguided[label], beats, best == edge)


def _cfg(scale: float) -> str:
    return f"CFG {scale:g}"
