"""What the paper's search costs, against its authors' loop: arithmetic on races in made-up worlds, not a measurement.

``python -m benchmarks.bill``. The protocol is that of the paper for a style on Stable Diffusion 3: 576 heads in 24
blocks, 5 tasks, 5 rounds of 3 heads. The authors' loop evaluates all blocks twice for every image, and draws every
image. pagopt's searches are run here in worlds of as many heads whose scores are made up
(``tests/search/landscape.py``), and every image they ask for is billed with its block evaluations, ``L + (L - l)`` a
step, and with its part of the steps.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pagopt.recipe import Recipe
from pagopt.search import HeadHunter, Racing, Search
from tests.search.landscape import World

__all__ = ["main"]

BLOCKS, HEADS, TASKS, ROUNDS, EACH = 24, 24, 5, 5, 3
SEARCHES: dict[str, Search] = {
    "exhaustive": HeadHunter(ROUNDS, EACH),
    "racing": Racing(ROUNDS, EACH),
    "racing, fewer starters": Racing(ROUNDS, EACH, share=0.16, start=0.2, rescue=0.05),
    "racing, first look with half the steps": Racing(ROUNDS, EACH, share=0.16, start=0.2, rescue=0.05, cheap=0.5),
    "racing, first look with a quarter": Racing(ROUNDS, EACH, share=0.14, start=0.2, rescue=0.05, cheap=0.25),
}


class Bill:
    """A world that writes down what its images cost, in evaluations of all blocks over all steps."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.images = 0.0
        self.passes = 0.0

    def __call__(
        self, recipes: Sequence[Recipe], tasks: Sequence[int] | None = None, part: float = 1.0
    ) -> NDArray[np.float64]:
        count = TASKS if tasks is None else len(tasks)
        for recipe in recipes:
            first = min(head.block for head in recipe.heads)
            self.passes += part * count * (BLOCKS + BLOCKS - first) / BLOCKS
            self.images += part * count
        return self.world(recipes, tasks, part)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the bill of every search, and what it found."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bill", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--worlds", type=int, default=5)
    parser.add_argument("--noise", type=float, default=1.0, help="of a head from task to task, its effect being 1")
    options = parser.parse_args(arguments)
    loop = 2.0 * HeadHunter(ROUNDS, EACH).images(BLOCKS * HEADS, TASKS)
    print("| search | images (of all steps) | passes of the model | the authors' loop costs | found, true worth |")
    print("|---|---|---|---|---|")
    for name, search in SEARCHES.items():
        images, passes, worth = [], [], []
        for seed in range(options.worlds):
            bill = Bill(World(seed, BLOCKS * HEADS, TASKS, options.noise, heads_per_block=HEADS))
            recipe, _ = search.run(bill, bill.world.pool, Recipe(), TASKS)
            images.append(bill.images)
            passes.append(bill.passes)
            worth.append(bill.world.truth(recipe.heads))
        print(
            f"| {name} | {statistics.fmean(images):,.0f} | {statistics.fmean(passes):,.0f} "
            f"| {loop / statistics.fmean(passes):.1f} times as much | {statistics.fmean(worth):.1f} |",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
