"""How the cost of guidance grows with image size, batch and number of heads, beside the block evaluations expected.

A recipe whose first perturbed block is l of L should cost L + (L - l) block evaluations where an unguided image takes L.

    python -m benchmarks.scaling --model emoji --batch 16
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

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


def measure(
    model: Model, pipe: Any, options: Any, batch: int, heads: int = 1, size: int | None = None
) -> dict[str, Any]:
    """One line of a table."""
    recipes, own = model.random_recipes(batch, heads), tasks(batch)
    guided, unguided = partial(model.draw, recipes, own, pipe, size), partial(model.draw, None, own, pipe, size)
    counted = guided() / unguided()  # a warm-up too
    times = take_turns({"guided": guided, "unguided": unguided}, options)
    return {
        "guided / unguided": ratio(times["guided"], times["unguided"]),
        "block evaluations expected": expected(model, recipes),
        "counted": counted,
        "unguided seconds an image": statistics.median(times["unguided"]) / batch,
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print."""
    options = options_of(__doc__, argv, add)
    model, batch = Model(options), options.batch
    pipe = model.compile(options) if options.compile else model.pipe
    report = Report(f"Scaling, {model.name}", options)
    sizes = options.sizes or [options.size // 2, options.size, 2 * options.size]
    batches = options.batches or powers(2, batch)
    counts = options.heads or powers(4, len(model.heads))
    rows = [{"pixels": size, **measure(model, pipe, options, batch, size=size)} for size in sizes]
    report.table(f"Image size: batches of {batch}, one random head a row", rows)
    rows = [{"batch": count, **measure(model, pipe, options, count)} for count in batches]
    report.table(f"Batch: {options.size} pixels, one random head a row", rows)
    rows = [{"heads a row": count, **measure(model, pipe, options, batch, count)} for count in counts]
    report.table(f"Heads: {options.size} pixels, batches of {batch}", rows)
    report.finish()
    return 0


if __name__ == "__main__":
    sys.exit(main())
