"""The page that a person looks at after a tuning: one HTML file that needs no network and no other file."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pagopt.recipe import Recipe
from pagopt.report.parts import comparison, render
from pagopt.report.pictures import data_uris
from pagopt.report.reading import counted, decimals, measured, number, read_rows
from pagopt.report.scoremap import draw_legend
from pagopt.results import Estimate, Results
from pagopt.tuning.importance import importances
from pagopt.tuning.lens import Lens, lenses, settings, shown_value
from pagopt.tuning.outcome import TrialRow, Tuned, TunedMethod
from pagopt.tuning.picture import draw_history, draw_importances, draw_parameter
from pagopt.tuning.plane import draw_front, draw_map, goal_name, map_limit, strengths_and_scales
from pagopt.tuning.words import story

__all__ = ["as_results", "write_page"]

PANELS = 12
"""Parameters that get a curve: the most important ones."""

DOTS = 15_000
"""Dots that all curves together may have; beyond it there are curves of the objective alone."""

PICTURED = 150
"""Trials whose picture is on the page: the first ones, and the result's."""

SMALL = 96
"""Longest side of a trial's picture in pixels."""

BYTES = 600_000
CARD = 6
"""Held-out pictures of a point of the front: the first ones."""


def write_page(tuned: Tuned, image: Callable[[str], Image.Image], path: Path, combine: str = "sum") -> None:
    """Write the page of a tuning.

    Args:
        tuned: What the tuning left behind.
        image: Gives the picture of a store key.
        path: Where to write; replaced atomically.
        combine: How the study combines its rewards.

    Raises:
        OSError: If it cannot be written.
    """
    results = as_results(tuned, combine)
    fronts = [one for one in tuned.methods if one.trial is not None] if len(tuned.goals) > 1 else []
    noun = "first recipe" if fronts else "tuned recipe"
    context = comparison(results, image, noun, [key for one in fronts for key in one.method.images[:CARD]])
    known = lenses(tuned, combine)
    thumbs = _thumbnails(tuned, image)
    found = importances(tuned)
    several = set(tuned.held_out_tasks) <= set(tuned.search_tasks)
    context |= {
        "tuned": tuned,
        "story": story(tuned, results, read_rows(results)),
        "kind": "tasks of the trials (none were held out)" if several else "held-out tasks",
        "costs": [one.cost for one in tuned.methods][: len(results.methods)],
        "maps": _maps(known),
        "curves": _curves(tuned, known, [item.name for item in found.items]),
        "importances": draw_importances(found) if found.items else "",
        "importance": found.sentence,
        "history": draw_history(known[0]),
        "fronts": _fronts(tuned, known[0], thumbs),
        "cards": [_card(tuned, one, place, context["album"], known[0]) for place, one in enumerate(fronts, 1)],
        "trials": _trials(tuned, known[0], thumbs),
        "parameters": list(dict.fromkeys(name for row in tuned.trials for name in row.parameters)),
        "goals": [goal_name(goal, known[0]) for goal in tuned.goals],
        "steps": tuned.trial(tuned.best[0]).steps,
        "thumbs": thumbs,
        "stopped": any(row.state == "pruned" for row in tuned.trials),
        # Not what was drawn: a run that goes on finds most of it in the store.
        "judged": sum(len(row.objective) for row in tuned.trials) + len(tuned.methods) * len(tuned.held_out_tasks),
    }
    render("tuning.html.jinja", context, path, "pagopt.tuning")


def as_results(tuned: Tuned, combine: str = "sum") -> Results:
    """The comparison as a search's, without rounds: the last method is the result, or the front's first."""
    first = next(one for one in tuned.methods if one.trial is not None)
    methods = [one.method for one in tuned.methods if one.trial is None] + [first.method]
    tests = tuned.tests[first.method.name]
    return Results(
        study=tuned.tuning,
        model=tuned.model,
        fingerprint=tuned.fingerprint,
        pagopt=tuned.pagopt,
        layers=0,
        heads=0,
        steps=first.steps,
        objective=tuned.objective,
        search_tasks=tuned.search_tasks,
        held_out_tasks=tuned.held_out_tasks,
        rounds=[],
        methods=methods,
        tests=[test for test in tests if not (tuned.is_unchanged and test.against == "as it was")],
        images_generated=tuned.images_generated,
        seconds=tuned.seconds,
        baseline=tuned.baseline,
        combine=combine,
    )


def _thumbnails(tuned: Tuned, image: Callable[[str], Image.Image]) -> dict[int, str]:
    """Small pictures of trials, as addresses."""
    rows = [row for row in tuned.trials if row.picture]
    chosen = {row.number: row.picture for row in rows[:PICTURED]}
    chosen |= {row.number: row.picture for row in rows if row.number in tuned.best}
    small = {}
    for key in dict.fromkeys(chosen.values()):
        small[key] = image(key).convert("RGB")
        small[key].thumbnail((SMALL, SMALL), Image.Resampling.LANCZOS)
    uris = data_uris(small, BYTES)
    return {trial: uris[key] for trial, key in chosen.items()}


def _maps(known: list[Lens]) -> list[dict[str, Any]]:
    """Strength against scale, through every lens that knows what no guidance gives."""
    places = strengths_and_scales(known[0].tuned)
    maps = []
    for lens in known:
        middle = lens.reference("no guidance")
        if places and math.isfinite(middle) and len(lens.levels([row for row, _, _ in places])) > 3:
            legend = draw_legend(map_limit(lens), "no guidance")
            maps.append({"lens": lens, "svg": draw_map(lens, places), "legend": legend, "middle": f"{middle:.4g}"})
    return maps


def _curves(tuned: Tuned, known: list[Lens], order: list[str]) -> dict[str, Any]:
    """A panel for each parameter that varies, through every lens; the most important ones first."""
    values: dict[str, set[Any]] = {}
    for row in tuned.trials:
        for name, value in row.parameters.items() if row.objective else ():
            values.setdefault(name, set()).add(value)
    names = [name for name, found in values.items() if len(found) > 1]
    if len(names) > PANELS:
        names.sort(key=lambda name: order.index(name) if name in order else len(order))
    shown = names[:PANELS]
    through = known if len(known) * len(shown) * len(tuned.trials) <= DOTS else known[:1]
    panels = [{"lens": lens, "svgs": [draw_parameter(lens, name) for name in shown]} for lens in through]
    return {"panels": panels if shown else [], "left": len(names) - len(shown)}


def _fronts(tuned: Tuned, lens: Lens, thumbs: Mapping[int, str]) -> list[Any]:
    """The first goal against each other one; the second goals across."""
    return [draw_front(tuned, lens, (goal, 0), thumbs) for goal in range(1, len(tuned.goals))]


def _card(tuned: Tuned, one: TunedMethod, place: int, album: Any, lens: Lens) -> dict[str, Any]:
    """A point of the front: what it does, what it is worth on held-out tasks, and pictures."""
    assert one.trial is not None
    row = tuned.trial(one.trial)
    values = []
    for goal in tuned.goals:
        if goal.name == "cost":
            values.append((goal_name(goal, lens), str(one.cost)))
            continue
        scores = one.method.objective if goal.name == "objective" else one.method.rewards[goal.name]
        estimate = Estimate.of(scores, tuned.held_out_prompts)
        values.append((goal_name(goal, lens), measured(estimate.mean, estimate.se, decimals([estimate.se]))))
    shots = []
    for key, (prompt, seed) in list(zip(one.method.images, tuned.held_out_tasks, strict=True))[:CARD]:
        width, height = album.sizes[key]
        shots.append({"uri": album.uris[key], "width": width, "height": height, "prompt": prompt, "seed": seed})
    heads = " ".join(str(head) for head in Recipe.from_dict(row.recipe).heads)
    return {
        "place": place,
        "trial": row.number,
        "label": row.label,
        "settings": settings(row),
        "heads": heads or "none",
        "values": values,
        "shots": shots,
    }


def _trials(tuned: Tuned, lens: Lens, thumbs: Mapping[int, str]) -> list[dict[str, Any]]:
    names = list(dict.fromkeys(name for row in tuned.trials for name in row.parameters))
    errors = [Estimate.of(list(row.objective.values())).se for row in tuned.trials if row.objective]
    places = decimals(errors) + 1
    return [
        {
            "row": row,
            "uri": thumbs.get(row.number, ""),
            "note": _note(tuned, row),
            "best": row.number in tuned.best,
            "values": [(f"{value!r}", f"{value:.5g}") for value in row.values] or [("", "")] * len(tuned.goals),
            "level": _level(lens, row, places),
            "tasks": len(row.objective),
            "parameters": [
                (row.parameters.get(name, ""), shown_value(row.parameters[name]) if name in row.parameters else "")
                for name in names
            ],
        }
        for row in tuned.trials
    ]


def _level(lens: Lens, row: TrialRow, places: int) -> tuple[str, str]:
    """To sort by, and to read."""
    level = lens.level(row)
    if not math.isfinite(level):
        return "", ""
    return repr(float(level)), ("about " if row.state == "pruned" else "") + number(float(np.round(level, 9)), places)


def _note(tuned: Tuned, row: TrialRow) -> str:
    words = [row.label] if row.label else []
    if row.number in tuned.best:
        words.append("result" if len(tuned.goals) == 1 else f"front {tuned.best.index(row.number) + 1}")
    if row.state == "pruned":
        words.append(f"stopped after {counted(len(row.objective), 'task')}")
    missed = [name for name, miss in row.limits.items() if miss > 0]
    if missed:
        words.append(f"misses {', '.join(missed)}")
    if row.state == "fail":
        words.append(f"failed: {row.cause}")
    return "; ".join(words)
