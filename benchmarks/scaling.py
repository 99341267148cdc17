"""How the cost of guidance grows with image size, batch and number of heads, beside the block evaluations expected.

A recipe whose first perturbed block is l of L should cost L + (L - l) block evaluations, where an unguided image takes
L.

    python -m benchmarks.scaling --model emoji --batch 16
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch

from benchmarks.common import Model, options_of, tasks
from benchmarks.report import Report, ratio, take_turns
from pagopt.recipe import Recipe


def add(parser: Any) -> None:
    """Options of this benchmark alone."""
    parser.add_argument("--sizes", type=int, nargs="+", help="pixels; half, the whole and twice --size")
    parser.add_argument("--batches", type=int, nargs="+", help="images; powers of 2 up to --batch")
    parser.add_argument("--heads", type=int, nargs="+", help="heads a row; powers of 4 up to all")


def powers(base: int, most: int) -> list[int]:
    """1, base, base^2, ... and ``most``."""
    found = [1]
    while found[-1] * base < most:
        found.append(found[-1] * base)
    return sorted({*found, most})


def expected(model: Model, recipes: Sequence[Recipe]) -> float:
    """Block evaluations, x unguided."""
    return statistics.mean((2 * model.blocks - recipe.heads[0].block) / model.blocks for recipe in recipes)


class Measurement:
    """Guided against unguided batches."""

    def __init__(self, options: Any) -> None:
        self.options, self.model = options, Model(options)
        self.pipe = self.model.pipe

    def set_size(self, pixels: int) -> None:
        """Draw images of another size; where blocks are compiled, they are compiled for this one."""
        self.model.size = pixels
        if self.options.compile:
            torch._dynamo.reset()
            self.pipe = self.model.compile(self.options)

    def row(self, label: str, value: int, batch: int, heads: int = 1) -> dict[str, Any]:
        """One line of a table."""
        recipes, own = self.model.random_recipes(batch, heads), tasks(batch)
        guided = partial(self.model.draw, recipes, own, self.pipe)
        unguided = partial(self.model.draw, None, own, self.pipe)
        counted = guided() / unguided()  # a warm-up too
        times = take_turns({"guided": guided, "unguided": unguided}, self.options)
        return {
            label: value,
            "guided / unguided": ratio(times["guided"], times["unguided"]),
            "block evaluations expected": expected(self.model, recipes),
            "counted": counted,
            "unguided seconds an image": statistics.median(times["unguided"]) / batch,
        }


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print."""
    options = options_of(__doc__, argv, add)
    found, pixels, batch = Measurement(options), options.size, options.batch
    report = Report(f"Scaling, {options.model}", options)
    rows = []
    for size in options.sizes or [pixels // 2, pixels, 2 * pixels]:
        found.set_size(size)
        rows.append(found.row("pixels", size, batch))
    report.table(f"Image size: batches of {batch}, one random head a row", rows)
    found.set_size(pixels)
    rows = [found.row("batch", count, count) for count in options.batches or powers(2, batch)]
    report.table(f"Batch: {pixels} pixels, one random head a row", rows)
    counts = options.heads or powers(4, len(found.model.heads))
    rows = [found.row("heads a row", count, batch, count) for count in counts]
    report.table(f"Heads: {pixels} pixels, batches of {batch}", rows)
    report.finish()
    return 0


if __name__ == "__main__":
    sys.exit(main())
