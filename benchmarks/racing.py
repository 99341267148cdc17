"""Racing against the exhaustive search: how many images, and is what it finds as good on held-out tasks?

``python -m benchmarks.racing --out build/racing``. Eight searches on the embedded model, with different styles, rewards
and seeds, each once by the exhaustive search (the paper's) and once by racing, over the same store. What is drawn is
kept, and the same command goes on. Differences are given in standard deviations of the unguided images' scores, so that
rewards can be compared.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pagopt.experiment import Run
from pagopt.files import write_text
from pagopt.folder import Folder
from pagopt.reward import RewardSpec
from pagopt.search import HeadHunter, Racing, Search
from pagopt.search.budget import Allowance
from pagopt.study import Study

__all__ = ["SEARCHES", "main"]

CONCEPTS = Path("tools/emoji/concepts.txt")
HELD_OUT = 32
SEARCHES: list[tuple[str, RewardSpec]] = [
    ("flat", RewardSpec("colorfulness")),
    ("ink", RewardSpec("clip")),
    ("glossy", RewardSpec("style")),
    ("cartoon", RewardSpec("sharpness")),
    ("glossy", RewardSpec("brightness", -1.0)),
    ("flat", RewardSpec("clip")),
    ("ink", RewardSpec("style")),
    ("cartoon", RewardSpec("colorfulness")),
]


def study_of(number: int, tasks: int, steps: int, rounds: int, heads: int) -> Study:
    """One of the searches; prompts are drawn from all concepts by its number."""
    style, reward = SEARCHES[number]
    lines = CONCEPTS.read_text(encoding="utf-8").splitlines()
    names = [line.strip().replace("-", " ") for line in lines if line.strip() and not line.startswith("#")]
    chosen = random.Random(number).sample(names, tasks + HELD_OUT)
    return Study(
        prompts=chosen[:tasks],
        held_out_prompts=chosen[tasks:],
        seeds=list(range(100 * number, 100 * number + tasks)),
        reward=[reward],
        style=style,
        rounds=rounds,
        heads_per_round=heads,
        steps=steps,
        scale=2.0,
        cfg_scales=[],
        compare_layers=False,
    )


def compare(number: int, out: Path, options: Any) -> dict[str, Any]:
    """Run one search both ways."""
    study = study_of(number, options.tasks, options.steps, options.rounds, options.heads)
    folder = Folder(out / f"{number}", {"racing": number, **study.to_dict()})
    run = Run(study, f"racing {number}", folder, options.batch, {"accelerator": "auto"})
    try:
        run.measure_baseline()
        found, asked = {}, {}
        ways: dict[str, Search] = {
            "exhaustive": HeadHunter(options.rounds, options.heads),
            "racing": Racing(options.rounds, options.heads, seed=number),
        }
        for name, search in ways.items():
            run.progress.label(f"search {number + 1}: {name}")
            allowance = Allowance(run.rank, len(run.tasks))
            found[name] = search.run(allowance, run.pool, study.recipe(), len(run.tasks))
            asked[name] = allowance.asked
        recipes = [recipe for recipe, _ in found.values()]
        table = run.objective.combine(run.evaluator(recipes, study.held_out_tasks()), run.baseline)
    finally:
        run.close()
    unguided = next(iter(run.baseline.values()))
    gain = (table[1] - table[0]) / float(unguided.std(ddof=1))
    first = {name: set(rounds[0].chosen) for name, (_, rounds) in found.items()}
    return {
        "search": f"{study.style}, {SEARCHES[number][1].name}",
        "images": asked,
        "heads": {name: [str(head) for head in recipe.heads] for name, (recipe, _) in found.items()},
        "common": len(first["exhaustive"] & first["racing"]),
        "expected right": found["racing"][1][0].right,
        "scores": table.mean(axis=1).tolist(),
        "gain": gain.tolist(),
    }


def interval(values: Sequence[float], seed: int = 0, draws: int = 10_000) -> tuple[float, float]:
    """95 % interval of the mean, by bootstrap."""
    rows = np.asarray(values)
    means = rows[np.random.default_rng(seed).integers(len(rows), size=(draws, len(rows)))].mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def show(done: Sequence[dict[str, Any]]) -> None:
    """Print the table and the sums, as Markdown."""
    print(
        "\n| search | images, exhaustive | racing | share | of round 1's heads in common | racing - exhaustive (sd) |"
    )
    print("|---|---|---|---|---|---|")
    for row in done:
        images, (low, high) = row["images"], interval(row["gain"])
        print(
            f"| {row['search']} | {images['exhaustive']:,} | {images['racing']:,} "
            f"| {images['racing'] / images['exhaustive']:.1%} | {row['common']} "
            f"| {np.mean(row['gain']):+.3f} ({low:+.3f} to {high:+.3f}) |"
        )
    low, high = interval([float(np.mean(row["gain"])) for row in done])
    pooled = interval([value for row in done for value in row["gain"]])
    share = np.mean([row["images"]["racing"] / row["images"]["exhaustive"] for row in done])
    common = np.mean([row["common"] for row in done])
    gain = np.mean([np.mean(row["gain"]) for row in done])
    print(
        f"\n{len(done)} searches: racing asked for {share:.1%} of the images and had {common:.2f} heads of round 1 in "
        f"common; racing - exhaustive {gain:+.3f} sd, 95 % interval over searches {low:+.3f} to {high:+.3f}, over all "
        f"held-out images {pooled[0]:+.3f} to {pooled[1]:+.3f}"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is missing, and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.racing", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("build/racing"))
    parser.add_argument("--searches", type=int, nargs="+", default=list(range(len(SEARCHES))))
    parser.add_argument("--tasks", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--heads", type=int, default=3)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--batch", type=int, default=32)
    options = parser.parse_args(arguments)
    done = []
    for number in options.searches:
        file = options.out / f"{number}.json"
        if not file.exists():
            write_text(file, json.dumps(compare(number, options.out, options), indent=1) + "\n")
        done.append(json.loads(file.read_text(encoding="utf-8")))
    show(done)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
