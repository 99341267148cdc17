"""The trials of a tuning as SVG: the best so far, the objective or a reward over each parameter, and what mattered.

Filled: complete trials; hollow: those that were stopped early; ringed: the result.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from markupsafe import Markup

from pagopt.report.charts import NAME
from pagopt.report.reading import counted
from pagopt.report.svg import Scale, figure, pad, scale, tag, ticks
from pagopt.tuning.importance import Importances
from pagopt.tuning.lens import Lens, is_log, settings
from pagopt.tuning.outcome import TrialRow

__all__ = ["draw_history", "draw_importances", "draw_parameter", "marks", "point", "said"]

WIDTH, HEIGHT = 340.0, 236.0
LONG = 520.0
LEFT, RIGHT, TOP, BOTTOM = 46.0, 12.0, 14.0, 36.0
LINE = 14.0
NEAR = 0.1
"""Width of the window that the curves are means over, as a share of the axis."""


def draw_history(lens: Lens) -> Markup:
    """Every trial, and the best so far."""
    rows = lens.levels(lens.tuned.trials)
    numbers = [float(row.number) for row, _ in rows]
    parts, x, y = _axes(lens, [level for _, level in rows], "trial", pad(numbers, 0.02), width=LONG)
    best, line = -math.inf, []
    for row, level in rows:
        if row.is_feasible:
            best = max(best, level)
        if math.isfinite(best):
            line.append(f"{x(row.number):.1f},{y(best):.1f}")
    parts.append(tag("polyline", points=" ".join(line), class_="found line"))
    parts += [point(lens, row, level, x(row.number), y(level)) for row, level in rows]
    return figure(LONG, HEIGHT, f"{lens.name} of {len(rows)} trials in their order, and the best so far", parts)


def draw_parameter(lens: Lens, name: str) -> Markup:
    """Every trial over one parameter, and the mean of neighbours."""
    rows = [(row, level) for row, level in lens.levels(lens.tuned.trials) if name in row.parameters]
    values = [row.parameters[name] for row, _ in rows]
    levels = [level for _, level in rows]
    label, deep = f"{lens.name} of {len(rows)} trials over {name}", 1
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        log = is_log(lens.tuned, name)
        at = [math.log2(value) if log else float(value) for value in values]
        extent = pad(at, 0.04)
        parts, x, y = _axes(lens, levels, name, extent, marks(extent, log))
        parts += _curve(at, levels, extent, x, y)
        places = [x(value) for value in at]
    else:
        words = list(dict.fromkeys(map(str, values)))
        deep = math.ceil((NAME * max(map(len, words)) + 8) * (len(words) + 0.2) / (WIDTH - LEFT - RIGHT))
        parts, x, y = _axes(lens, levels, name, (-0.6, len(words) - 0.4), list(enumerate(words)), deep=deep)
        for place, word in enumerate(words):
            mean = float(np.mean([level for value, level in zip(values, levels, strict=True) if str(value) == word]))
            parts.append(tag("line", x1=x(place - 0.3), x2=x(place + 0.3), y1=y(mean), y2=y(mean), class_="found line"))
        lift = [((row.number * 7) % 11 - 5) * 0.025 for row, _ in rows]
        places = [x(words.index(str(value)) + more) for value, more in zip(values, lift, strict=True)]
    parts += [point(lens, row, level, place, y(level)) for (row, level), place in zip(rows, places, strict=True)]
    return figure(WIDTH, HEIGHT + (deep - 1) * LINE, label, parts)


def draw_importances(found: Importances) -> Markup:
    """A bar for each parameter, with a tick where chance ends."""
    width, left, step = 520.0, 12.0 + 7.2 * max(len(item.name) for item in found.items), 26.0
    most = max(max(item.value, item.chance) for item in found.items)
    total = sum(item.value for item in found.items) or 1.0
    x = scale(0, most or 1.0, left, width - 60)
    parts, words = [], []
    for index, item in enumerate(found.items):
        y = step * index + 4
        words.append(f"{item.name} {item.value / total:.0%} (chance: up to {item.chance / total:.0%})")
        solid = "found" if item.value > item.chance else "none"
        title = tag("title", words[-1])
        parts.append(tag("text", item.name, x=left - 10, y=y + 13, text_anchor="end", class_="name"))
        parts.append(
            tag("rect", title, x=left, y=y, width=max(1.0, x(item.value) - left), height=16.0, rx=2.0, class_=solid)
        )
        parts.append(tag("line", x1=x(item.chance), x2=x(item.chance), y1=y - 3, y2=y + 19, class_="chance"))
        parts.append(tag("text", f"{item.value / total:.0%}", x=x(max(item.value, item.chance)) + 8, y=y + 13))
    return figure(width, step * len(found.items) + 4, "Importances: " + "; ".join(words), parts)


def marks(extent: tuple[float, float], log: bool) -> list[tuple[float, str]]:
    """Where an axis gets labels; of a logarithmic one in powers of two."""
    if not log:
        return ticks(*extent)
    powers = range(math.ceil(extent[0] - 1e-9), math.floor(extent[1] + 1e-9) + 1)
    return [(float(power), f"{2.0**power:g}") for power in powers]


def said(lens: Lens, row: TrialRow, level: float) -> str:
    """A trial in one line."""
    words = f"trial {row.number}{f' ({row.label})' if row.label else ''}: {settings(row)}: {lens.name} {level:.4g}"
    return words + (f", by the {counted(len(row.objective), 'task')} that it saw" if row.state == "pruned" else "")


def point(lens: Lens, row: TrialRow, level: float, x: float, y: float) -> Markup:
    """A trial as a dot."""
    kind = "pruned" if row.state == "pruned" else "done" if row.is_feasible else "misses"
    dot = tag("circle", tag("title", said(lens, row, level)), cx=x, cy=y, r=4.0, class_=kind, data_trial=row.number)
    ring = row.number in lens.tuned.best
    return tag("circle", cx=x, cy=y, r=7.0, class_="ring") + dot if ring else dot


def _curve(
    at: Sequence[float], levels: Sequence[float], extent: tuple[float, float], x: Scale, y: Scale
) -> list[Markup]:
    """The mean of neighbours, weighted by a Gaussian; where there are enough of them."""
    if len(set(at)) < 5:
        return []
    places = np.linspace(min(at), max(at), 48)
    weights = np.exp(-0.5 * ((places[:, None] - np.array(at)) / (NEAR * (extent[1] - extent[0]))) ** 2)
    means = (weights @ np.array(levels)) / weights.sum(axis=1)
    line = [
        f"{x(place):.1f},{y(mean):.1f}"
        for place, mean, weight in zip(places.tolist(), means.tolist(), weights.sum(axis=1).tolist(), strict=True)
        if weight > 0.5
    ]
    return [tag("polyline", points=" ".join(line), class_="found line trend")]


def _axes(
    lens: Lens,
    levels: Sequence[float],
    name: str,
    extent: tuple[float, float],
    across: Sequence[tuple[float, str]] | None = None,
    width: float = WIDTH,
    deep: int = 1,
) -> tuple[list[Markup], Scale, Scale]:
    """Grid, labels (below it in so many lines by turns) and the two reference lines."""
    known = [(lens.reference(method), kind) for method, kind in (("no guidance", "base"), ("as it was", "was"))]
    known = [(value, kind) for value, kind in known if math.isfinite(value)]
    low, high = pad([*levels, *(value for value, _ in known)], 0.08)
    x, y = scale(*extent, LEFT, width - RIGHT), scale(low, high, HEIGHT - BOTTOM, TOP)
    parts = []
    for value, text in ticks(low, high):
        parts.append(tag("line", x1=LEFT, x2=width - RIGHT, y1=y(value), y2=y(value), class_="grid"))
        parts.append(tag("text", text, x=LEFT - 6, y=y(value) + 4, text_anchor="end"))
    for number, (value, text) in enumerate(ticks(*extent) if across is None else across):
        below = HEIGHT - BOTTOM + 16 + number % deep * LINE
        parts.append(tag("text", text, x=x(value), y=below, text_anchor="middle"))
    below = HEIGHT - 4 + (deep - 1) * LINE
    parts.append(tag("text", name, x=width - RIGHT, y=below, text_anchor="end", class_="name"))
    parts += [tag("line", x1=LEFT, x2=width - RIGHT, y1=y(value), y2=y(value), class_=kind) for value, kind in known]
    return parts, x, y
