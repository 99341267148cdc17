"""A strength for every head against one for all, and soft selection against the greedy search, at equal images.

``python -m benchmarks.tuning_heads --out build/tuning-heads``: the heads that `vivid` finds, tuned with one strength
and with one for each, by two samplers; always with the scale, always over the same number of whole trials.

``python -m benchmarks.tuning_heads --soft --out build/tuning-soft``: all heads of the three best layers. The greedy
search (the paper's Algorithm 1, two rounds of two heads at u = 1) picks four; soft selection draws a strength for each
and keeps the four highest, from nothing, for as many images.

Studies, held-out tasks and units are those of ``benchmarks.tuning``, but with CFG 1.5 throughout: without any, these
heads have little to give by these objectives. What is drawn is kept, and the same command goes on.
"""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.tuning_common import HEADS, STUDIES, Judge, differences, judged, main_of, tune_within
from pagopt.heads import expand_heads
from pagopt.recipe import Recipe
from pagopt.search import HeadHunter
from pagopt.search.budget import Allowance
from pagopt.tuning import Tuned, Tuning

__all__ = ["POOL", "main"]

POOL = "L7.H0-5 L4.H0-5 L3.H0-5"
SCALE = {"low": 0.5, "high": 8, "log": True}
EACH = {"low": 0, "high": 1, "per_head": True}
WAYS: dict[str, tuple[str, dict[str, Any]]] = {
    "one, tpe": ("tpe", {"strength": [0, 1], "scale": SCALE}),
    "each, tpe": ("tpe", {"strength": EACH, "scale": SCALE}),
    "each, gp": ("gp", {"strength": EACH, "scale": SCALE}),
}
SOFT: dict[str, tuple[str, dict[str, Any]]] = {
    "soft, tpe": ("tpe", {"strength": {**EACH, "at_most": 4}}),
    "soft, gp": ("gp", {"strength": {**EACH, "at_most": 4}}),
}


def strengths(number: int, options: Any) -> dict[str, Any]:
    """One study with one strength, and with one for each head."""
    judge = Judge(number, options)
    try:
        images = options.trials * options.tasks
        done = {name: tuned(judge, name, HEADS, way, images, options) for name, way in WAYS.items()}
        images_of = {name: judged(one) for name, one in done.items()}
        return result(number, judge, {name: one.recipe for name, one in done.items()}, images_of)
    finally:
        judge.close()


def soft(number: int, options: Any) -> dict[str, Any]:
    """One study by the greedy search, and by soft selection."""
    judge = Judge(number, options)
    try:
        judge.run.progress.label(f"study {number}: greedy")
        allowance = Allowance(judge.run.rank, options.tasks)
        pool = expand_heads(POOL)
        greedy, _ = HeadHunter(2, 2).run(allowance, pool, judge.study.recipe(), options.tasks)
        images = {"greedy": allowance.asked}
        recipes = {"greedy": greedy}
        for name, way in SOFT.items():
            found = tuned(judge, name, POOL, way, allowance.asked, options)
            recipes[name], images[name] = found.recipe, judged(found)
        return result(number, judge, recipes, images)
    finally:
        judge.close()


def tuned(judge: Judge, name: str, heads: str, way: tuple[str, dict[str, Any]], images: int, options: Any) -> Tuned:
    """A tuning without pruning, so that all have the same number of trials and of images."""
    sampler, space = way
    trials = images // options.tasks
    tuning = Tuning(judge.study, recipe=heads, space=space, sampler=sampler, pruner="none", tuning_seed=options.seed)
    return tune_within(tuning, name.replace(", ", "-"), judge.folder, images, trials, options.batch)


def result(number: int, judge: Judge, recipes: dict[str, Recipe], images: dict[str, int]) -> dict[str, Any]:
    """What a study leaves, as plain data."""
    found = judge.search(list(recipes.values())).mean(axis=1)
    return {
        "study": f"{number}: {STUDIES[number % len(STUDIES)][0]}, {STUDIES[number % len(STUDIES)][1]} + clip",
        "images": images,
        "search": dict(zip(recipes, found.tolist(), strict=True)),
        "recipes": {name: recipe.to_dict() for name, recipe in recipes.items()},
        "unseen": judge.unseen({"no heads": Recipe(scale=0.0, cfg=judge.study.cfg), **recipes}),
    }


def show(done: Sequence[dict[str, Any]]) -> None:
    """Print the tables, as Markdown; differences are to the first way."""
    first, *others = done[0]["recipes"]
    gains = {name: differences(done, name, first) for name in others}
    heads = " | ".join(f"{name} - {first}, 95 %" for name in others)
    print(f"\n| study | images each | no heads | {first} | {heads} |\n|{'---|' * (4 + len(others))}")
    for row in done:
        images = "/".join(str(count) for count in dict.fromkeys(row["images"].values()))
        cells = [f"{np.mean(row['unseen'][name]):+.2f}" for name in ("no heads", first)]
        cells += [_words(gains[name][row["study"]]) for name in others]
        print(f"| {row['study']} | {images} | {' | '.join(cells)} |")
    print(f"\n| study | {' | '.join(f'{name}: found' for name in (first, *others))} |\n|{'---|' * (2 + len(others))}")
    for row in done:
        print(f"| {row['study']} | {' | '.join(_found(row, name) for name in (first, *others))} |")
    for name in others:
        for over in ("all pictures", "studies"):
            print(f"\n{name} - {first} over {over}: {_words(gains[name][over])}")


def _words(gain: tuple[float, float, float]) -> str:
    return f"{gain[0]:+.3f} ({gain[1]:+.3f} to {gain[2]:+.3f})"


def _found(row: dict[str, Any], name: str) -> str:
    recipe = Recipe.from_dict(row["recipes"][name])
    pairs = zip(recipe.heads, recipe.strengths, strict=True)
    if isinstance(recipe.strength, tuple):
        each = ", ".join(f"{head} {u:.2f}" for head, u in pairs)
    else:
        each = f"u {recipe.strength:.2f} at {' '.join(map(str, recipe.heads))}"
    return f"{each}, w {recipe.scale:.2f}: {row['search'][name]:+.2f} on its own tasks"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is missing, and print."""

    def add(parser: ArgumentParser) -> None:
        parser.add_argument("--soft", action="store_true", help="soft selection against the greedy search")
        parser.add_argument("--trials", type=int, default=20, help="of each way, without --soft")
        parser.add_argument("--seed", type=int, default=0, help="of the samplers")
        parser.set_defaults(tasks=12, cfg=1.5)

    def work(number: int, options: Any) -> dict[str, Any]:
        return soft(number, options) if options.soft else strengths(number, options)

    done, _ = main_of(__doc__ or "", arguments, work, "build/tuning-heads", add)
    show(done)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
