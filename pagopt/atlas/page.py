"""An atlas as a page: point at a head and see what it draws, beside the picture without it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup
from PIL import Image

from pagopt.atlas.findings import LEVEL, MOVED, Effect, Findings
from pagopt.heads import MAIN_SITE, Head
from pagopt.recipe import Recipe
from pagopt.report.headgrid import Aside, Cell, Place, draw_cell, draw_grid
from pagopt.report.palette import diverging_css, step_class
from pagopt.report.parts import render
from pagopt.report.pictures import data_uris
from pagopt.report.reading import counted, measured
from pagopt.report.scoremap import draw_legend

__all__ = ["change", "extremes", "shown_prompts", "shown_tasks", "small_pictures", "write_page"]

PICTURES = 1300
"""Pictures in a page, at most; but all of the first prompt."""

PROMPTS = 4
"""Prompts in a page, at most."""

BUDGET = 12_000_000
"""Bytes of all of them."""


def shown_tasks(found: Findings) -> list[int]:
    """The tasks whose pictures are shown: the first prompts, as many as there is room for."""
    return found.shown(shown_prompts(len(found.images)))


def shown_prompts(entries: int) -> int:
    """How many prompts there is room for, with so many heads and layers."""
    return max(1, min(PROMPTS, PICTURES // (1 + entries)))


def small_pictures(found: Findings, image: Callable[[str], Image.Image]) -> dict[str, Image.Image]:
    """Small copies of the pictures that page and images show, by store key.

    Args:
        found: What was drawn.
        image: Gives the picture of a key.
    """
    shown = shown_tasks(found)
    keys = [row[task] for row in (found.plain, *found.images.values()) for task in shown]
    side = 256 if len(keys) <= 400 else 192
    small = {}
    for key in dict.fromkeys(keys):
        picture = image(key).convert("RGB")
        picture.thumbnail((side, side), Image.Resampling.LANCZOS)
        small[key] = picture
    return small


def extremes(found: Findings) -> list[tuple[str, Head, Head]]:
    """By measure, but for how far the pictures moved, the single heads that lower and raise it most."""
    rows = {measure: found.single(measure) for measure in found.effects if measure != MOVED}
    return [
        (measure, min(row, key=lambda h: row[h].mean), max(row, key=lambda h: row[h].mean))
        for measure, row in rows.items()
    ]


def change(found: Findings, measure: str, name: str) -> str:
    """What a head or a layer changes in a measure: "+0.021 ± 0.004"."""
    one = found.effects[measure][name]
    return measured(one.mean, one.se, found.decimals[measure], sign=measure != MOVED)


def write_page(found: Findings, pictures: Mapping[str, Image.Image], path: Path) -> None:
    """Write the page: one HTML file that needs no network and no other file.

    Args:
        found: What to show.
        pictures: By store key, as :func:`small_pictures` gives them.
        path: Where to write; replaced atomically.
    """
    uris = data_uris(dict(pictures), BUDGET)
    moved = found.single(MOVED)
    most = str(max(moved, key=lambda head: moved[head].mean))
    context = {
        "results": {"pagopt": found.pagopt, "study": found.model},
        "found": found,
        "story": _story(found, most),
        "notice": {"kind": ""},
        "most": most,
        "plates": [_plate(found, task, pictures, uris) for task in shown_tasks(found)],
        "words": json.dumps({n: (_words(found, n), found.perturbed[n]) for n in found.images}).replace("<", "\\u003c"),
        "maps": [_map(found, measure) for measure in found.effects],
        "arguments": _arguments(found),
        "layers": bool(found.layers(MOVED)),
        "level": f"{LEVEL:g}",
        "light_colours": Markup(diverging_css(dark=False)),
        "dark_colours": Markup(diverging_css(dark=True)),
    }
    render("atlas.html.jinja", context, path, "pagopt.atlas")


def _story(found: Findings, most: str) -> dict[str, Any]:
    singles = len(found.single(MOVED))
    certain = {str(head) for heads in found.certain().values() for head in heads}
    drawn = f"{counted(len(found.tasks), 'picture')} of each"
    if not found.tested:
        headline = f"Of {singles} heads {most} moves the picture most" if singles > 1 else f"What {most} alone does"
        deck = [f"With {drawn} nothing can be tested: give more prompts or seeds to see what is more than chance."]
    elif certain:
        change = "changes" if len(certain) == 1 else "change"
        headline = f"{len(certain)} of {counted(singles, 'head')} {change} something measurable"
        headline += f"; {most} moves the pictures most" if singles > 1 else ""
        deck = [f"Tested on {drawn}, at {LEVEL:g} for all heads and measures together."]
    else:
        headline = f"Of {singles} heads {most} moves the pictures most" if singles > 1 else f"What {most} alone does"
        deck = [f"With {drawn} no single change is beyond chance yet: more prompts or seeds would tell."]
    return {"verdict": "", "headline": headline, "deck": deck}


def _plate(found: Findings, task: int, pictures: Mapping[str, Image.Image], uris: Mapping[str, str]) -> dict[str, Any]:
    """The table of one prompt's pictures."""
    prompt, seed = found.tasks[task]
    rows = []
    for site, block in found.places():
        names = [str(Head(block, number, site)) for number in range(found.heads)]
        names += [found.layer_places.get((site, block), "")] if found.layers(MOVED) else []
        shots = [(name, uris[found.images[name][task]] if name in found.images else "") for name in names]
        rows.append({"label": f"L{block}" if site == MAIN_SITE else f"L{block} {site}", "shots": shots})
    key = found.plain[task]
    width, height = pictures[key].size
    return {
        "prompt": prompt,
        "seed": seed,
        "plain": uris[key],
        "rows": rows,
        "width": width,
        "height": height,
        "columns": found.heads + bool(found.layers(MOVED)),
    }


def _words(found: Findings, name: str) -> str:
    """What is known of a head or a layer, in a line."""
    parts = []
    for measure, row in found.effects.items():
        parts.append(f"{measure} {change(found, measure, name)}{' *' if row[name].certain else ''}")
    return ", ".join(parts)


def _map(found: Findings, measure: str) -> dict[str, Any]:
    """A measure, head by head."""
    limit, layers = found.limits[measure], found.layers(measure)

    def cell(name: str, one: Effect) -> Cell:
        p = f", p = {one.p:.2g}" if math.isfinite(one.p) else ""
        return Cell(f"{name}: {change(found, measure, name)}{p}", step_class(one.mean, limit), one.certain, link=name)

    def beside(place: Place, left: float, y: float, size: float) -> Markup | None:
        name = found.layer_places.get(place)
        return None if name is None else draw_cell(cell(name, layers[place[1]]), left, y, size)

    cells = {head: cell(str(head), one) for head, one in found.single(measure).items()}
    title = "all" if layers else ""
    grid = draw_grid(cells, found.places(), found.heads, Aside(title, 30.0, beside), f"{measure}, by head", "not drawn")
    moved = measure == MOVED
    certain = [str(head) for head in found.certain().get(measure, ())]
    words = (
        f"how far the pictures move; full colour from {limit:g}" if moved else f"without: {found.means[measure]:.3g}"
    )
    if certain:
        more = f" and {len(certain) - 8} more" if len(certain) > 8 else ""
        words += f"; certain: {', '.join(certain[:8])}{more}"
    legend = "" if moved else draw_legend(limit, "that of the pictures without perturbation")
    return {"measure": measure, "svg": grid, "legend": legend, "words": words}


def _arguments(found: Findings) -> str:
    """What a recipe of these takes beside its heads, as Python."""
    recipe, plain = Recipe.from_dict(found.recipe), Recipe()
    given: dict[str, object] = {"strength": recipe.strength, "scale": recipe.scale}
    for name in ("target", "target_options", "path", "interval"):
        if getattr(recipe, name) != getattr(plain, name):
            given[name] = dict(recipe.target_options) if name == "target_options" else getattr(recipe, name)
    return ", ".join(f"{key}={value!r}" for key, value in given.items())
