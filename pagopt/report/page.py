"""From results to the page of a search: gathers what the template shows, and writes one file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

from pagopt.report import charts, scoremap
from pagopt.report.parts import SHOWN, comparison, render
from pagopt.report.reading import decimals, measured, number, read_rows, signed
from pagopt.report.story import tell
from pagopt.results import Estimate, Results, Round
from pagopt.summary import passing

__all__ = ["SHOWN", "write_report"]


def write_report(results: Results, image: Callable[[str], Image.Image], path: str | Path) -> None:
    """Write the page of a search: one HTML file that needs no network and no other file.

    Args:
        results: What the search left behind. The last method is the found recipe.
        image: Gives the picture of a store key.
        path: Where to write; replaced atomically.
    """
    rows = read_rows(results)
    context = {
        **comparison(results, image, "found recipe"),
        "story": tell(results, rows),
        "kind": "search tasks (none were held out)" if _nothing_held_out(results) else "held-out tasks",
        "curve": charts.draw_rounds(results, rows),
        "maps": _maps(results),
    }
    render("report.html.jinja", context, path)


def _nothing_held_out(results: Results) -> bool:
    return set(results.held_out_tasks) <= set(results.search_tasks)


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
