"""What came of a tuning: the best trials, the comparison on held-out tasks, and the files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from pagopt.combine import fronts
from pagopt.errors import StudyError
from pagopt.files import write_png, write_text
from pagopt.heads import Head
from pagopt.looks import looks_table
from pagopt.recipe import PLAIN, Provenance, Recipe
from pagopt.report import draw_sheet
from pagopt.results import Method, PairedTest
from pagopt.summary import judged, paired_test, tested
from pagopt.task import Task
from pagopt.tuning.outcome import Goal, TrialRow, Tuned, TunedMethod, trials_csv
from pagopt.tuning.page import write_page

if TYPE_CHECKING:
    from pagopt.tuning.run import TuningRun

__all__ = ["chosen", "compare", "write"]

COLUMNS = 8  # of the sheet


def chosen(rows: Sequence[TrialRow], goals: Sequence[Goal]) -> list[int]:
    """The numbers of the best trial, or of the Pareto front's trials, best by the first goal first.

    Trials that keep to all constraints come before others; equal points count once, the earlier trial.

    Raises:
        StudyError: If no trial is complete.
    """
    complete = [row for row in rows if row.state == "complete"]
    if not complete:
        raise StudyError("no trial was completed; raise --trials to go on")
    able = [row for row in complete if row.is_feasible] or complete
    signs = [1.0 if goal.higher else -1.0 for goal in goals]
    points = np.array([[sign * value for sign, value in zip(signs, row.values, strict=True)] for row in able])
    if len(goals) == 1:
        return [able[int(points[:, 0].argmax())].number]
    front = [int(index) for index in np.flatnonzero(fronts(points) == 0)]
    once = {tuple(points[index]): index for index in reversed(front)}
    return [able[index].number for index in sorted(once.values(), key=lambda index: (*(-points[index]), index))]


def compare(
    run: TuningRun, best: Sequence[TrialRow], tasks: Sequence[Task]
) -> tuple[list[TunedMethod], dict[str, list[PairedTest]]]:
    """No guidance, the best CFG, the recipe as it was and the tuned ones, on these tasks.

    The CFG scale is chosen on the search tasks.
    """
    steps = run.tuning.study.steps
    entries: list[tuple[str, Recipe, int, int | None]] = [("no guidance", PLAIN, steps, None)]
    scales = run.tuning.study.cfg_scales
    if scales:
        ways = [Recipe(scale=0.0, cfg=scale) for scale in scales]
        means = run.scoring.combined(run.scoring.evaluator(steps)(ways, run.run.tasks)).mean(axis=1)
        entries.append((f"CFG {scales[int(means.argmax())]:g}", ways[int(means.argmax())], steps, None))
    entries.append(("as it was", run.start.recipe, steps, None))
    others = len(entries)
    for place, row in enumerate(best, 1):
        name = "tuned" if len(run.goals) == 1 else f"front {place} (trial {row.number})"
        entries.append((name, Recipe.from_dict(row.recipe), row.steps, row.number))
    methods: dict[int, TunedMethod] = {}
    for same in dict.fromkeys(entry[2] for entry in entries):
        places = [place for place, entry in enumerate(entries) if entry[2] == same]
        judge = run.scoring.evaluator(same, judge=True)
        recipes = [entries[place][1] for place in places]
        tables = judge(recipes, tasks)
        tables |= run.scoring.shares(recipes, tasks, judge)
        objective = run.scoring.combined(tables)
        keys = judge.keys(recipes, tasks)
        for index, place in enumerate(places):
            name, recipe, _, trial = entries[place]
            method = Method(
                name=name,
                recipe=recipe.to_dict(),
                objective=tuple(objective[index].tolist()),
                rewards={label: tuple(table[index].tolist()) for label, table in tables.items()},
                images=tuple(keys[index]),
                looks=looks_table(judge.looks(keys[index])),
            )
            methods[place] = TunedMethod(method, same, run.scoring.cost(recipe, same), trial)
    every = [methods[place] for place in sorted(methods)]
    prompts = [task.prompt for task in tasks]
    tests = {
        one.method.name: [paired_test(one.method, other.method, prompts) for other in every[:others]]
        for one in every[others:]
    }
    return every, tests


def write(
    tuned: Tuned,
    path: Path,
    image: Callable[[str], Image.Image],
    combine: str,
    order: Sequence[Head] | None = None,
) -> None:
    """Write the folder's files; ``results.json`` last.

    Args:
        tuned: What came of it.
        path: The folder.
        image: Gives the picture of a store key.
        combine: How the study combines its rewards.
        order: The start's heads in the order in which they were found, if that is known.

    Raises:
        OSError: If a file cannot be written.
    """
    tuned.recipe.save(path / "recipe.json", _provenance(tuned, tuned.best[0], combine, order))
    if len(tuned.goals) > 1:
        front = path / "front"
        for old in front.glob("*.json") if front.is_dir() else ():
            old.unlink()
        for place, number in enumerate(tuned.best, 1):
            recipe = Recipe.from_dict(tuned.trial(number).recipe)
            recipe.save(front / f"{place:02}.json", _provenance(tuned, number, combine, order))
    write_text(path / "trials.csv", trials_csv(tuned.trials, tuned.goals))
    write_page(tuned, image, path / "report.html", combine)
    rows = [[image(key) for key in one.method.images[:COLUMNS]] for one in tuned.methods]
    names = [one.method.name for one in tuned.methods]
    write_png(path / "sheet.png", draw_sheet(rows, names, [prompt for prompt, _ in tuned.held_out_tasks[:COLUMNS]]))
    tuned.save(path / "results.json")


def _provenance(tuned: Tuned, number: int, combine: str, order: Sequence[Head] | None) -> Provenance:
    row = tuned.trial(number)
    kept = Recipe.from_dict(row.recipe).heads
    own = next(one.method.name for one in tuned.methods if one.trial == number)
    shown = [one.method for one in tuned.methods if one.trial in {None, number}]
    evidence: dict[str, Any] = {
        "steps": row.steps,
        **tuned.weights,
        **({"combine": combine} if combine != "sum" else {}),
        **({"order": [str(head) for head in order if head in kept]} if order and set(kept) <= set(order) else {}),
        "search_tasks": [list(task) for task in tuned.search_tasks],
        "held_out_tasks": [list(task) for task in tuned.held_out_tasks],
        "held_out": judged(shown, tuned.held_out_prompts),
        "tests": tested(tuned.tests[own]),
        "tuning": {
            "from": tuned.start,
            "trial": number,
            "trials": len(tuned.trials),
            "values": {goal.name: value for goal, value in zip(tuned.goals, row.values, strict=True)},
            **tuned.settings,
        },
    }
    return Provenance(
        model=tuned.model,
        fingerprint=tuned.fingerprint,
        objective=tuned.objective,
        evidence=evidence,
        study=tuned.tuning,
        pagopt=tuned.pagopt,
    )
