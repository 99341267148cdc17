"""What do the searches find for how many images, in made-up worlds whose truth is known?

``python -m benchmarks.searches``. A world has 48 heads in 8 layers with random effects, random effects of pairs, and
noise from task to task. ``truth`` is what a found recipe is worth on tasks that there could be, from no guidance on, in
standard deviations of a head's effect; ``search`` is its score on the search tasks.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np

from pagopt.recipe import Recipe
from pagopt.search import HeadHunter, Racing, Search
from pagopt.search.layers import LayerSweep
from pagopt.search.lookahead import Lookahead
from pagopt.search.random_subsets import RandomSubsets
from pagopt.search.refinement import Refinement
from tests.search.landscape import World

__all__ = ["SEARCHES", "main"]

SEARCHES: dict[str, Search] = {
    "HeadHunter(3, 3)": HeadHunter(3, 3),
    "HeadHunter(6, 1)": HeadHunter(6, 1),
    "Racing(3, 3)": Racing(3, 3),
    "LayerSweep()": LayerSweep(),
    "LayerSweep(3)": LayerSweep(3),
    "RandomSubsets(9, 139)": RandomSubsets(9, 139),
    "RandomSubsets(9, 138, regress=True)": RandomSubsets(9, 138, regress=True),
    "Lookahead(3)": Lookahead(3),
    "Refinement(HeadHunter(3, 3))": Refinement(HeadHunter(3, 3)),
    "Refinement(Racing(3, 3), budget=2224)": Refinement(Racing(3, 3), budget=139 * 16),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a table for weak and for strong effects of pairs."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.searches", description=__doc__.splitlines()[0])
    parser.add_argument("--worlds", type=int, default=20)
    parser.add_argument("--tasks", type=int, default=16)
    options = parser.parse_args(arguments)
    for pair in (0.2, 1.0):
        print(f"\nEffects of pairs {pair:g} times those of heads, {options.worlds} worlds, {options.tasks} tasks\n")
        print("| search | heads | recipes | truth | search |\n|---|---|---|---|---|")
        for name, search in SEARCHES.items():
            truth, heads, images, scores = [], [], [], []
            for seed in range(options.worlds):
                world = World(seed, tasks=options.tasks, pair=pair)
                recipe, rounds = search.run(world, world.pool, Recipe(), options.tasks)
                truth.append(world.truth(recipe.heads))
                heads.append(len(recipe.heads))
                images.append(len(world.drawn) / options.tasks)
                scores.append(rounds[-1].score.mean - world.task.mean())
            error = np.std(truth, ddof=1) / np.sqrt(len(truth))
            print(
                f"| {name} | {np.mean(heads):.1f} | {np.mean(images):.0f} | {np.mean(truth):.1f} ± {error:.1f} | "
                f"{np.mean(scores):.1f} |",
                flush=True,
            )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
