"""What the pages of searches and of tunings share: pictures side by side, the comparison, the looks, the frame."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from pagopt.files import write_text
from pagopt.looks import looks_table
from pagopt.report import charts, guards
from pagopt.report.palette import diverging_css
from pagopt.report.pictures import Album, collect
from pagopt.report.reading import (
    Row,
    counted,
    decimals,
    measured,
    number,
    objective_name,
    p_text,
    read_rows,
    signed,
    value_name,
)
from pagopt.results import Estimate, Results
from pagopt.summary import held_out_means, missed

__all__ = ["SHOWN", "comparison", "render"]

SHOWN = 24
"""Held-out tasks whose pictures are shown: the first ones, never chosen ones."""


def render(template: str, context: Mapping[str, Any], path: str | Path, package: str = "pagopt.report") -> None:
    """Write a page.

    Args:
        template: Its file.
        context: What it shows.
        path: Where to write; replaced atomically.
        package: Where the template lies; it may use those of this package, too.
    """
    places = [PackageLoader(name, "") for name in dict.fromkeys([package, "pagopt.report"])]
    environment = Environment(
        loader=ChoiceLoader(places), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.globals["counted"] = counted
    write_text(path, environment.get_template(template).render(context))


def comparison(
    results: Results, image: Callable[[str], Image.Image], noun: str, more: Sequence[str] = ()
) -> dict[str, Any]:
    """What both pages show of methods on held-out tasks.

    Args:
        results: The methods, the found one last; rounds are not looked at.
        image: Gives the picture of a store key.
        noun: What the last method is called: "found recipe".
        more: Store keys of further pictures for the page's album.
    """
    rows = read_rows(results)
    album = collect([*(key for method in results.methods for key in method.images), *more], image)
    results = _measured(results, album)
    checks = guards.read_guards(results)
    return {
        "results": results,
        "rows": rows,
        "album": album,
        "noun": noun,
        "costs": [],
        "objective": objective_name(results.objective, results.combine),
        "value": value_name(results.objective, results.combine),
        "strips": _strips(results, rows, album),
        "shown": min(SHOWN, len(results.held_out_tasks)),
        "table": _table(results, rows),
        "differences": charts.draw_differences(results, rows, noun),
        "guards": checks,
        "notice": guards.notice(results, checks, noun),
        "moved": [(guard, _moved(guard, results, rows, album)) for guard in checks if guard.jumped],
        "recipe": _one_key_a_line(rows[-1].recipe.to_dict()),
        "duration": _duration(results.seconds),
        "light_colours": Markup(diverging_css(dark=False)),
        "dark_colours": Markup(diverging_css(dark=True)),
        "number": number,
        "measured": measured,
        "change": _change,
    }


def _measured(results: Results, album: Album) -> Results:
    """The results with the looks of their pictures, also those of a version that did not keep them."""
    if all(method.looks for method in results.methods):
        return results
    methods = [
        dataclasses.replace(method, looks=looks_table([album.looks[key] for key in method.images]))
        for method in results.methods
    ]
    return dataclasses.replace(results, methods=methods)


def _change(guard: guards.Guard) -> str:
    """How much a measure moved: as a share of its unguided value, but for twins, which are a share themselves."""
    text = signed(100 * guard.share, 0)
    return f"{text} {'points' if guard.measure == 'twins' else '%'}" if math.isfinite(guard.share) else text


def _moved(guard: guards.Guard, results: Results, rows: list[Row], album: Album) -> list[dict[str, Any]]:
    """The tasks in which a measure moved most: without guidance and with the found recipe."""
    base = next((index for index, row in enumerate(rows) if row.role == "none"), 0)
    tasks = []
    for index in guard.most:
        prompt, seed = results.held_out_tasks[index]
        shots = []
        for at in (base, len(rows) - 1):
            key = results.methods[at].images[index]
            width, height = album.sizes[key]
            value = number(results.methods[at].looks[guard.measure][index], 3)
            shots.append({"row": rows[at], "uri": album.uris[key], "width": width, "height": height, "value": value})
        tasks.append({"prompt": prompt, "seed": seed, "shots": shots})
    return tasks


def _strips(results: Results, rows: list[Row], album: Album) -> list[list[dict[str, Any]]]:
    """The tasks in their order, broken into strips of at most eight columns and about equal length."""
    spread = (row.objective.se * math.sqrt(len(results.held_out_tasks)) for row in rows)
    places = decimals(spread)
    tasks = []
    for index, (prompt, seed) in enumerate(results.held_out_tasks[:SHOWN]):
        shots = []
        for row, method in zip(rows, results.methods, strict=True):
            key = method.images[index]
            width, height = album.sizes[key]
            score = number(method.objective[index], places)
            shots.append({"row": row, "uri": album.uris[key], "width": width, "height": height, "score": score})
        tasks.append({"prompt": prompt, "seed": seed, "shots": shots})
    count = math.ceil(len(tasks) / 8) or 1
    size = math.ceil(len(tasks) / count)
    return [tasks[start : start + size] for start in range(0, len(tasks), size)] if tasks else []


def _table(results: Results, rows: list[Row]) -> dict[str, Any]:
    """The comparison: a column for each reward, and one for the objective unless a reward is the objective."""
    names = list(results.methods[-1].rewards)
    same = [n for n in names if all(m.objective == m.rewards.get(n) for m in results.methods)]
    columns: list[tuple[str, bool, list[str]]] = []
    if not same:
        columns.append(
            (value_name(results.objective, results.combine), True, _estimates([row.objective for row in rows]))
        )
    for name in sorted(names, key=lambda n: n not in same[:1]):
        columns.append((name, name in same[:1], _estimates([row.rewards[name] for row in rows])))
    if results.held_out_limits:
        prompts = results.held_out_prompts
        misses = [missed(results.held_out_limits, held_out_means(method, prompts)) for method in results.methods]
        columns.append(("thresholds", False, [f"misses {', '.join(words)}" if words else "met" for words in misses]))
    lines = []
    for index, row in enumerate(rows):
        test = row.test
        places = decimals([test.se]) if test else 0
        difference = measured(test.difference, test.se, places, sign=True) if test else ""
        cells = [(texts[index], is_objective) for _, is_objective, texts in columns]
        probability = p_text(test.p_value).removeprefix("p = ").removeprefix("p ") if test else ""
        wins = f"{test.wins:.0%}" if test else ""
        lines.append({"row": row, "cells": cells, "difference": difference, "p": probability, "wins": wins})
    return {"columns": [(name, is_objective) for name, is_objective, _ in columns], "lines": lines}


def _estimates(estimates: list[Estimate]) -> list[str]:
    places = decimals(e.se for e in estimates)
    return [measured(e.mean, e.se, places) for e in estimates]


def _one_key_a_line(data: dict[str, Any]) -> str:
    lines = (f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in data.items())
    return "{\n" + ",\n".join(lines) + "\n}"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"
