"""The trials of a tuning as one SVG: the best so far, the objective over each parameter, strength against scale."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from markupsafe import Markup

from pagopt.report.palette import diverging_css, step_class
from pagopt.report.svg import Scale, figure, pad, scale, tag, ticks
from pagopt.tuning.outcome import TrialRow, Tuned

__all__ = ["draw_curves"]

WIDTH, HEIGHT = 340.0, 250.0
LEFT, RIGHT, TOP, BOTTOM = 52.0, 14.0, 40.0, 40.0
STYLE = """
svg{background:#fff;font:11px system-ui,sans-serif}text{fill:#6e6e73}.title{fill:#1d1d1f;font-size:13px}
.grid{stroke:#e8e6e1}.base{stroke:#6e6e73;stroke-dasharray:2 3}.was{stroke:#6a4c9c;stroke-dasharray:6 3}
.done{fill:#c8500f;fill-opacity:.55}.pruned{fill:none;stroke:#9a9a9f}.best{fill:none;stroke:#1d1d1f;stroke-width:1.8}
.line{fill:none;stroke:#c8500f;stroke-width:1.8}.word{fill:#6a4c9c}.cell{stroke:#6e6e73;stroke-width:.5}
"""


def draw_curves(tuned: Tuned) -> str:
    """All panels. Filled: complete trials; hollow: pruned ones; ringed: the result."""
    rows = [row for row in tuned.trials if row.objective]
    names = list(dict.fromkeys(name for row in rows for name in row.parameters))
    panels = [_history(tuned, rows)]
    panels += [_parameter(tuned, rows, name) for name in names]
    if {"strength", "scale"} <= set(names):
        panels.append(_map(tuned, rows))
    if len(tuned.goals) > 1:
        panels.append(_front(tuned))
    columns = min(3, len(panels))
    parts = [tag("style", Markup(STYLE + diverging_css(dark=False)))]
    for index, panel in enumerate(panels):
        place = f"translate({index % columns * WIDTH:g} {index // columns * HEIGHT:g})"
        parts.append(tag("g", *panel, transform=place))
    lines = -(-len(panels) // columns)
    label = f"{tuned.tuning}: {len(tuned.trials)} trials"
    drawn = figure(columns * WIDTH, lines * HEIGHT, label, parts)
    return str(drawn).replace("<svg", '<svg xmlns="http://www.w3.org/2000/svg"', 1) + "\n"


def _history(tuned: Tuned, rows: Sequence[TrialRow]) -> list[Markup]:
    numbers = [float(row.number) for row in rows]
    parts, x, y = _axes(tuned, rows, "the best so far", "trial", pad(numbers, 0.03))
    best, line = -math.inf, []
    for row in rows:
        if row.is_feasible:
            best = max(best, row.values[0])
        if math.isfinite(best):
            line.append(f"{x(row.number):.1f},{y(best):.1f}")
    parts.append(tag("polyline", points=" ".join(line), class_="line"))
    return parts + [_point(tuned, row, x(row.number), y(_level(tuned, row))) for row in rows]


def _parameter(tuned: Tuned, rows: Sequence[TrialRow], name: str) -> list[Markup]:
    able = [row for row in rows if name in row.parameters]
    values = [row.parameters[name] for row in able]
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        log = min(values) > 0 and max(values) / min(values) > 8
        at = [math.log2(value) if log else float(value) for value in values]
        parts, x, y = _axes(tuned, rows, f"over {name}", name, pad(at, 0.04), log=log)
        places = [x(value) for value in at]
    else:
        words = list(dict.fromkeys(map(str, values)))
        parts, x, y = _axes(tuned, rows, f"over {name}", name, (-0.6, len(words) - 0.4), words=words)
        lift = [((row.number * 7) % 11 - 5) * 0.025 for row in able]
        places = [x(words.index(str(value)) + more) for value, more in zip(values, lift, strict=True)]
    return parts + [_point(tuned, row, place, y(_level(tuned, row))) for row, place in zip(able, places, strict=True)]


def _map(tuned: Tuned, rows: Sequence[TrialRow]) -> list[Markup]:
    """Strength against scale: orange is better than no guidance, violet is worse."""
    able = [row for row in rows if {"strength", "scale"} <= set(row.parameters)]
    strengths, scales = ([float(row.parameters[name]) for row in able] for name in ("strength", "scale"))
    x = scale(*pad(strengths, 0.05), LEFT, WIDTH - RIGHT)
    low, high = pad(scales, 0.05)
    y = scale(low, high, HEIGHT - BOTTOM, TOP)
    gains = [_level(tuned, row) - tuned.baseline.mean for row in able]
    limit = max((abs(gain) for gain in gains), default=1.0) or 1.0
    parts = [tag("text", "strength and scale", x=LEFT, y=16, class_="title")]
    parts.append(tag("text", f"orange: above no guidance, up to {limit:.2g}", x=LEFT, y=30))
    for value, text in ticks(low, high):
        parts.append(tag("line", x1=LEFT, x2=WIDTH - RIGHT, y1=y(value), y2=y(value), class_="grid"))
        parts.append(tag("text", text, x=LEFT - 6, y=y(value) + 4, text_anchor="end"))
    for value, text in ticks(*pad(strengths, 0.05)):
        parts.append(tag("text", text, x=x(value), y=HEIGHT - BOTTOM + 14, text_anchor="middle"))
    parts.append(tag("text", "strength", x=WIDTH - RIGHT, y=HEIGHT - 8, text_anchor="end"))
    parts.append(tag("text", "scale", x=8, y=TOP - 4))
    for row, u, w, gain in zip(able, strengths, scales, gains, strict=True):
        ring = " best" if row.number in tuned.best else " cell"
        words = tag("title", f"trial {row.number}: strength {u:.3g}, scale {w:.3g}: {_level(tuned, row):.4g}")
        parts.append(tag("circle", words, cx=x(u), cy=y(w), r=6.5, class_=step_class(gain, limit)))
        parts.append(tag("circle", cx=x(u), cy=y(w), r=6.5, fill="none", class_=ring.strip()))
    return parts


def _front(tuned: Tuned) -> list[Markup]:
    """The first two goals of the complete trials."""
    rows = [row for row in tuned.trials if row.values]
    across, up = tuned.goals[1], tuned.goals[0]
    points = [(row.values[1], row.values[0]) for row in rows]
    x = scale(*pad([point[0] for point in points], 0.06), LEFT, WIDTH - RIGHT)
    low, high = pad([point[1] for point in points], 0.08)
    y = scale(low, high, HEIGHT - BOTTOM, TOP)
    parts = [tag("text", f"{up.name} and {across.name}", x=LEFT, y=16, class_="title")]
    for value, text in ticks(low, high):
        parts.append(tag("line", x1=LEFT, x2=WIDTH - RIGHT, y1=y(value), y2=y(value), class_="grid"))
        parts.append(tag("text", text, x=LEFT - 6, y=y(value) + 4, text_anchor="end"))
    for value, text in ticks(*pad([point[0] for point in points], 0.06), 4):
        parts.append(tag("text", text, x=x(value), y=HEIGHT - BOTTOM + 14, text_anchor="middle"))
    better = "more" if across.higher else "less"
    parts.append(tag("text", f"{across.name} ({better} is better)", x=WIDTH - RIGHT, y=HEIGHT - 8, text_anchor="end"))
    return parts + [_point(tuned, row, x(point[0]), y(point[1])) for row, point in zip(rows, points, strict=True)]


def _axes(
    tuned: Tuned,
    rows: Sequence[TrialRow],
    title: str,
    name: str,
    extent: tuple[float, float],
    log: bool = False,
    words: Sequence[str] = (),
) -> tuple[list[Markup], Scale, Scale]:
    """Grid, labels and the two reference lines of a panel whose vertical axis is the first objective."""
    values = [_level(tuned, row) for row in rows]
    low, high = pad([*values, tuned.baseline.mean, tuned.as_it_was.mean], 0.08)
    x, y = scale(*extent, LEFT, WIDTH - RIGHT), scale(low, high, HEIGHT - BOTTOM, TOP)
    parts = [tag("text", title, x=LEFT, y=16, class_="title")]
    for value, text in ticks(low, high):
        parts.append(tag("line", x1=LEFT, x2=WIDTH - RIGHT, y1=y(value), y2=y(value), class_="grid"))
        parts.append(tag("text", text, x=LEFT - 6, y=y(value) + 4, text_anchor="end"))
    if words:
        marks = [(float(place), text) for place, text in enumerate(words)]
    elif log:
        powers = range(math.ceil(extent[0] - 1e-9), math.floor(extent[1] + 1e-9) + 1)
        marks = [(float(power), f"{2.0**power:g}") for power in powers]
    else:
        marks = ticks(*extent)
    for value, text in marks:
        parts.append(tag("text", text, x=x(value), y=HEIGHT - BOTTOM + 14, text_anchor="middle"))
    parts.append(tag("text", name, x=WIDTH - RIGHT, y=HEIGHT - 8, text_anchor="end"))
    for value, kind in ((tuned.baseline.mean, "base"), (tuned.as_it_was.mean, "was")):
        parts.append(tag("line", x1=LEFT, x2=WIDTH - RIGHT, y1=y(value), y2=y(value), class_=kind))
    parts.append(tag("text", "dotted: no guidance", x=LEFT, y=30))
    parts.append(tag("text", "dashed: as it was", x=LEFT + 120, y=30, class_="word"))
    return parts, x, y


def _level(tuned: Tuned, row: TrialRow) -> float:
    """The objective over all tasks; of a trial that saw some of them, by its difference to the result on those.

    The mean of what it saw would say more about how hard these tasks are.
    """
    best = tuned.trial(tuned.best[0]).objective
    gain = np.mean([value - best[task] for task, value in row.objective.items()])
    return float(np.mean(list(best.values())) + gain)


def _point(tuned: Tuned, row: TrialRow, x: float, y: float) -> Markup:
    kind = "best" if row.number in tuned.best else "done" if row.state == "complete" else "pruned"
    words = ", ".join(f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.parameters.items())
    title = tag(
        "title", f"trial {row.number}{f' ({row.label})' if row.label else ''}: {words}: {_level(tuned, row):.4g}"
    )
    ring = tag("circle", cx=x, cy=y, r=6.0, class_="best") if kind == "best" else Markup("")
    return ring + tag("circle", title, cx=x, cy=y, r=3.6, class_="done" if kind == "best" else kind)
