"""Tuning against the paper's grid: is what `tune` finds as good on held-out tasks, for a third of the images?

``python -m benchmarks.tuning --out build/tuning``. Five studies on the embedded model with prompts, seeds, styles and
rewards of their own. The grid (arXiv 2506.10978) has u in .2 .4 .6 .8 1 and w in 2 4 6 8, each with and without CFG.
`tune` looks for (u, w, g, interval) on the same tasks by its defaults, until a third of the grid's images are judged or
its 40 trials are done. The best of each meet on prompts and seeds that neither saw. What is drawn is kept, and the same
command goes on. The objective is in standard deviations of the unguided pictures' scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.tuning_common import HEADS, STUDIES, Judge, differences, judged, main_of, tune_within
from pagopt.recipe import PLAIN, Recipe
from pagopt.tuning import Tuning

__all__ = ["GRID", "SPACE", "main"]

GRID = [
    Recipe(HEADS, strength=u, scale=w, cfg=g)
    for g in (1.0, 2.0)
    for u in (0.2, 0.4, 0.6, 0.8, 1.0)
    for w in (2.0, 4.0, 6.0, 8.0)
]
SPACE: dict[str, Any] = {
    "strength": [0, 1],
    "scale": {"low": 0.5, "high": 8, "log": True},
    "cfg": [1, 3],
    "start": [0, 0.3],
    "stop": [0.5, 1],
}


def compare(number: int, options: Any) -> dict[str, Any]:
    """One study, both ways."""
    judge = Judge(number, options)
    try:
        judge.run.progress.label(f"study {number}: the grid")
        grid = judge.search(GRID)
        limit = grid.size // 3
        tuning = Tuning(judge.study, recipe=HEADS, space=SPACE, trials=40, tuning_seed=number)
        tuned = tune_within(tuning, "tuned", judge.folder, limit, 40, options.batch)
        best = GRID[int(grid.mean(axis=1).argmax())]
        unseen = judge.unseen({"no guidance": PLAIN, "grid": best, "tuned": tuned.recipe})
    finally:
        judge.close()
    return {
        "study": f"{number}: {STUDIES[number % len(STUDIES)][0]}, {STUDIES[number % len(STUDIES)][1]} + clip",
        "images": {"grid": grid.size, "tuned": judged(tuned)},
        "trials": len(tuned.trials),
        "pruned": sum(row.state == "pruned" for row in tuned.trials),
        "search": {"grid": float(grid.mean(axis=1).max()), "tuned": tuned.trial(tuned.best[0]).values[0]},
        "recipes": {"grid": best.to_dict(), "tuned": tuned.recipe.to_dict()},
        "unseen": unseen,
    }


def show(done: Sequence[dict[str, Any]]) -> None:
    """Print the tables, as Markdown."""
    gains = differences(done, "tuned", "grid")
    print("\n| study | images, grid | tuned | trials (pruned) | no guidance | grid | tuned | tuned - grid, 95 % |")
    print("|---|---|---|---|---|---|---|---|")
    for row in done:
        means = {name: float(np.mean(values)) for name, values in row["unseen"].items()}
        gain, low, high = gains[row["study"]]
        print(
            f"| {row['study']} | {row['images']['grid']} | {row['images']['tuned']} | {row['trials']} "
            f"({row['pruned']}) | {means['no guidance']:+.2f} | {means['grid']:+.2f} | {means['tuned']:+.2f} "
            f"| {gain:+.3f} ({low:+.3f} to {high:+.3f}) |"
        )
    print("\n| study | the grid's best | found by tune |\n|---|---|---|")
    for row in done:
        print(f"| {row['study']} | {_words(row, 'grid')} | {_words(row, 'tuned')} |")
    share = sum(row["images"]["tuned"] for row in done) / sum(row["images"]["grid"] for row in done)
    for name in ("all pictures", "studies"):
        gain, low, high = gains[name]
        print(f"\ntuned - grid over {name}: {gain:+.3f} ({low:+.3f} to {high:+.3f}) for {share:.1%} of the images")


def _words(row: dict[str, Any], name: str) -> str:
    recipe = row["recipes"][name]
    start, stop = recipe["interval"]
    return (
        f"u {recipe['strength']:.2f}, w {recipe['scale']:.2f}, g {recipe['cfg']:.2f}, {start:.2f} to {stop:.2f}: "
        f"{row['search'][name]:+.2f} on its own tasks"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is missing, and print."""
    done, _ = main_of(__doc__ or "", arguments, compare, "build/tuning")
    show(done)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
