"""Whether compiled blocks stay compiled: graphs after a warm-up, and after many changes of recipe and batch.

The exit status is 1 if a change made a new graph.

    python -m benchmarks.recompilations --model emoji --batch 8 --steps 2
"""

from __future__ import annotations

import random
import sys
from collections.abc import Sequence
from typing import Any

import torch
from torch._dynamo.utils import counters

from benchmarks.common import Model, options_of, tasks
from benchmarks.report import Report, seconds
from pagopt.recipe import Recipe


def add(parser: Any) -> None:
    """Options of this benchmark alone."""
    parser.add_argument("--changes", type=int, default=50)
    parser.set_defaults(compile=True)


def graphs() -> int:
    """Graphs that were compiled in this process since the last reset."""
    return int(counters["stats"]["unique_graphs"])


def random_recipe(model: Model, draw: random.Random) -> Recipe:
    """One to three heads, each with a strength of its own."""
    heads = draw.sample(model.heads, draw.randint(1, 3))
    return Recipe(heads, strength=[draw.uniform(0.1, 1) for _ in heads], scale=draw.uniform(0.5, 4))


def main(argv: Sequence[str] | None = None) -> int:
    """Count and print; 1 if there were new graphs."""
    options = options_of(__doc__, argv, add)
    model = Model(options)
    torch._dynamo.reset()
    counters.clear()
    made: list[Any] = []
    warm_up = seconds(lambda: made.append(model.compile(options)), options.device)
    before, draw = graphs(), random.Random(0)
    times = []
    for _ in range(options.changes):
        recipes = [random_recipe(model, draw) for _ in range(draw.randint(1, options.batch))]
        given = draw.choice((tasks(len(recipes)), tasks(1) * len(recipes)))
        times.append(seconds(lambda: model.draw(recipes, given, made[0]), options.device))  # noqa: B023
    after = graphs()
    row = {
        "graphs after the warm-up": before,
        "changes": options.changes,
        "new graphs": after - before,
        "graphs, x warm-up": after / before,
        "graph breaks": sum(counters["graph_break"].values()),
        "slowest change, x the warm-up's seconds": max(times) / warm_up,
    }
    report = Report(f"Recompilations, {model.name}", options)
    report.table(f"Batches of 1 to {options.batch} images, heads and strengths at random", [row])
    report.notes[0] = "The warm-up sees every block with and without perturbation, for one row and for several."
    report.finish()
    return int(after > before)


if __name__ == "__main__":
    sys.exit(main())
