"""From results to the page: gathers what the template shows, renders it, writes one file."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from pagopt.files import write_text
from pagopt.looks import looks_table
from pagopt.report import charts, guards, scoremap
from pagopt.report.palette import diverging_css
from pagopt.report.pictures import Album, collect
from pagopt.report.reading import Row, decimals, measured, number, objective_name, p_text, read_rows, signed, value_name
from pagopt.report.story import tell
from pagopt.results import Estimate, Results, Round
from pagopt.summary import held_out_means, missed, passing

__all__ = ["SHOWN", "write_report"]

SHOWN = 24
"""Held-out tasks whose pictures are shown: the first ones, never chosen ones."""


def write_report(results: Results, image: Callable[[str], Image.Image], path: Path) -> None:
    """Write the page of a search: one HTML file that needs no network and no other file.

    Args:
        results: What the search left behind. The last method is the found recipe.
        image: Gives the picture of a store key.
        path: Where to write; replaced atomically.
    """
    loader = PackageLoader("pagopt.report", "")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    write_text(path, environment.get_template("report.html.jinja").render(_context(results, image)))


def _context(results: Results, image: Callable[[str], Image.Image]) -> dict[str, Any]:
    rows = read_rows(results)
    album = collect([key for method in results.methods for key in method.images], image)
    results = _measured(results, album)
    checks = guards.read_guards(results)
    return {
        "results": results,
        "rows": rows,
        "story": tell(results, rows),
        "objective": objective_name(results.objective, results.combine),
        "value": value_name(results.objective, results.combine),
        "strips": _strips(results, rows, album),
        "kind": "search tasks (none were held out)" if _nothing_held_out(results) else "held-out tasks",
        "shown": min(SHOWN, len(results.held_out_tasks)),
        "table": _table(results, rows),
        "differences": charts.draw_differences(results, rows),
        "curve": charts.draw_rounds(results, rows),
        "maps": _maps(results),
        "guards": checks,
        "notice": guards.notice(results, checks),
        "moved": [(guard, _moved(guard, results, rows, album)) for guard in checks if guard.jumped],
        "recipe": _one_key_a_line(rows[-1].recipe.to_dict()),
        "duration": _duration(results.seconds),
        "light_colours": Markup(diverging_css(dark=False)),
        "dark_colours": Markup(diverging_css(dark=True)),
        "number": number,
        "measured": measured,
        "percent": lambda share: f"{signed(100 * share, 0)} %" if math.isfinite(share) else "\N{EN DASH}",
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


def _nothing_held_out(results: Results) -> bool:
    return set(results.held_out_tasks) <= set(results.search_tasks)


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
        misses = [missed(results.held_out_limits, held_out_means(method)) for method in results.methods]
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


def _maps(results: Results) -> dict[str, Any]:
    middle = scoremap.centres(results)
    limit = scoremap.common_limit(results.rounds, middle)
    rounds = []
    for item, centre in zip(results.rounds, middle, strict=True):
        places = decimals(score.se for score in item.scores.values()) + 1
        met = passing(results, item) if results.limits else None
        top = []
        for name in item.ranked()[:10]:
            score = item.scores[name]
            cells = [measured(score.mean, score.se, places), signed(score.mean - centre[0], places)]
            cells += [measured(part.mean, part.se, decimals([part.se]) + 1) for part in _parts(item, name)]
            if met is not None:
                cells.append("yes" if name in met else "no")
            top.append((name, cells))
        rounds.append(
            {
                "number": item.number,
                "svg": scoremap.draw_map(item, centre, limit, results.layers, results.heads),
                "centre": f"{number(centre[0], places)} ({centre[1]})",
                "chosen": item.chosen,
                "note": item.note,
                "top": top,
                "columns": ["Score", "Against base", *item.parts, *(["Passes"] if met is not None else [])],
            }
        )
    return {"rounds": rounds, "legend": scoremap.draw_legend(limit)}


def _parts(item: Round, head: str) -> list[Estimate]:
    return [scores[head] for scores in item.parts.values()]


def _one_key_a_line(data: dict[str, Any]) -> str:
    lines = (f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in data.items())
    return "{\n" + ",\n".join(lines) + "\n}"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"
