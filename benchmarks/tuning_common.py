"""What the benchmarks of tuning share: studies of their own prompts and seeds, budgets in images, held-out tables."""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.racing import interval
from pagopt.experiment import Run
from pagopt.files import write_text
from pagopt.folder import Folder
from pagopt.recipe import Recipe
from pagopt.reward import RewardSpec
from pagopt.study import Study
from pagopt.tuning import Tuned, Tuning, tune

__all__ = ["HEADS", "STUDIES", "Judge", "differences", "judged", "main_of", "study_of", "tune_within"]

HEADS = "L7.H2 L4.H2 L4.H3 L2.H3"
"""What the shipped study `vivid` finds on the embedded model, in this order."""

STUDIES: list[tuple[str, str]] = [
    ("flat", "style"),
    ("ink", "colorfulness"),
    ("glossy", "style"),
    ("cartoon", "colorfulness"),
    ("ink", "style"),
    ("flat", "colorfulness"),
    ("cartoon", "style"),
    ("glossy", "colorfulness"),
    ("glossy", "style"),
    ("flat", "style"),
]
"""Style and reward. Each reward has clip as its partner, by the harmonic mean: neither may be paid for by the other."""

TRAINER = {"accelerator": "auto"}


def study_of(number: int, options: Any) -> Study:
    """One of the studies; prompts and seeds are drawn from all that the model knows by its number."""
    style, reward = STUDIES[number % len(STUDIES)]
    known = json.loads(Path("pagopt/models/emoji/styles.json").read_text(encoding="utf-8"))
    chosen = random.Random(1000 + number).sample(known["concepts"], options.tasks + options.held_out)
    first = 10_000 * (number + 1)
    return Study(
        prompts=chosen[: options.tasks],
        seeds=list(range(first, first + options.tasks)),
        reward=[RewardSpec(reward), RewardSpec("clip")],
        combine="harmonic",
        style=style,
        scale=2.0,
        cfg=options.cfg,
        steps=options.steps,
        cfg_scales=[],
        compare_layers=False,
    )


def judged(tuned: Tuned) -> int:
    """How many pictures its trials were judged by, those included that another method drew, too."""
    return sum(len(row.objective) for row in tuned.trials)


def tune_within(tuning: Tuning, name: str, folder: Path, images: int, most: int, batch: int) -> Tuned:
    """As many trials, batch by batch, as are judged by so many images at most; the same folder goes on.

    Args:
        tuning: What to tune; of its trials as many are run as the images are enough for, at least.
        name: Of the tuning.
        folder: Of the study; what is drawn lies in its ``store``.
        images: The budget.
        most: Trials, at most.
        batch: Images in one batch.

    Returns:
        The last tuning within the budget.
    """
    count = max(tuning.at_once, min(most, images // len(tuning.study.tasks())))
    best: Tuned | None = None
    while count <= most:
        now = replace(tuning, trials=count)
        tuned = tune(now, name, folder / name, batch, trainer=TRAINER, store=folder / "store")
        if judged(tuned) > images:
            break
        best = tuned
        count += min(tuning.at_once, most - count) or most
    if best is None:
        raise SystemExit(f"{name}: {images} images are not enough for {count} trials")
    return best


class Judge:
    """Scores recipes on the tasks of a study and on held-out ones, from the store that its tunings fill."""

    def __init__(self, number: int, options: Any) -> None:
        self.study, self.folder = study_of(number, options), options.out / f"{number}"
        chosen = random.Random(1000 + number).sample(_concepts(), options.tasks + options.held_out)
        first = 10_000 * (number + 1) + 5_000
        self.held_out = replace(
            self.study, prompts=chosen[options.tasks :], seeds=list(range(first, first + options.held_out))
        ).tasks()
        self.run = Run(self.study, f"{number}", Folder(self.folder, {"study": number, **self.study.to_dict()}),
                       options.batch, TRAINER)  # fmt: skip
        self.run.measure_baseline()

    def search(self, recipes: Sequence[Recipe]) -> np.ndarray[Any, np.dtype[np.float64]]:
        """The objective on the search tasks, shape ``(n_recipes, n_tasks)``."""
        return self.run.objective.combine(self.run.evaluator(recipes, self.run.tasks), self.run.baseline)

    def unseen(self, recipes: Mapping[str, Recipe]) -> dict[str, list[float]]:
        """The objective on the held-out tasks."""
        tables = self.run.evaluator(list(recipes.values()), self.held_out)
        rows = self.run.objective.combine(tables, self.run.baseline)
        return {name: row.tolist() for name, row in zip(recipes, rows, strict=True)}

    def close(self) -> None:
        """Let go of the store."""
        self.run.close()


def differences(done: Sequence[Mapping[str, Any]], one: str, other: str) -> dict[str, tuple[float, float, float]]:
    """``one - other`` on held-out tasks, each with its 95 % bootstrap interval: of every study, and over all.

    Returns:
        Mean, low and high for every study by its name; "all pictures", drawn again within their studies; and "studies",
        which are drawn again as wholes.
    """
    rows = [np.subtract(row["unseen"][one], row["unseen"][other]) for row in done]
    found = {row["study"]: (float(gain.mean()), *interval(gain.tolist())) for row, gain in zip(done, rows, strict=True)}
    means = [float(gain.mean()) for gain in rows]
    found["all pictures"] = (float(np.mean(means)), *interval(np.concatenate(rows).tolist()))
    found["studies"] = (float(np.mean(means)), *interval(means))
    return found


def main_of(
    description: str, arguments: Sequence[str] | None, work: Callable[[int, Any], dict[str, Any]], out: str,
    add: Callable[[argparse.ArgumentParser], None] | None = None,
) -> tuple[list[dict[str, Any]], Any]:  # fmt: skip
    """Run the studies that are missing; returns all of them, and the options."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(out))
    parser.add_argument("--studies", type=int, nargs="+", default=list(range(5)), help="by number; they differ in all")
    parser.add_argument("--tasks", type=int, default=16)
    parser.add_argument("--held-out", type=int, default=48)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--cfg", type=float, default=1.0, help="where it is not searched")
    parser.add_argument("--batch", type=int, default=32)
    if add is not None:
        add(parser)
    options = parser.parse_args(arguments)
    done = []
    for number in options.studies:
        file = options.out / f"{number}.json"
        if not file.exists():
            write_text(file, json.dumps(work(number, options), indent=1) + "\n")
        done.append(json.loads(file.read_text(encoding="utf-8")))
    return done, options


def _concepts() -> list[str]:
    known: dict[str, list[str]] = json.loads(Path("pagopt/models/emoji/styles.json").read_text(encoding="utf-8"))
    return known["concepts"]
