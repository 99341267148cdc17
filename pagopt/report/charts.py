"""Two charts: the differences on held-out tasks, and the score over the rounds beside what held up."""

from __future__ import annotations

import math
from collections.abc import Sequence

from markupsafe import Markup

from pagopt.report.reading import Row, decimals, measured
from pagopt.report.svg import Scale, figure, pad, scale, spread, tag, ticks
from pagopt.results import Results

__all__ = ["NAME", "draw_differences", "draw_rounds"]

NAME, DIGIT = 6.4, 7.3
"""About how wide a character of a name is, and of a number at an axis, in pixels; fonts differ."""


def draw_differences(results: Results, rows: Sequence[Row], noun: str) -> Markup:
    """The found recipe (``noun``) minus each other method: a dot for each task, the mean with two standard errors."""
    tested = [(row, row.test) for row in rows if row.test is not None]
    values = {
        row.name: [a - b for a, b in zip(results.methods[-1].objective, method.objective, strict=True)]
        for row, method in zip(rows, results.methods, strict=True)
    }
    shown = [value for row, _ in tested for value in values[row.name]]
    low, high = pad([0.0, *shown])
    left = max(128.0, 36 + NAME * max((len(row.name) for row, _ in tested), default=0))
    width, step, top = left + 392, 46.0, 24.0
    bottom = top + step * len(tested)
    x = scale(low, high, left, width - 12)
    parts = _grid(low, high, x, top - 8, bottom)
    parts.append(tag("line", x1=x(0), x2=x(0), y1=top - 8, y2=bottom, class_="axis"))
    parts.append(tag("text", f"{noun} better \N{RIGHTWARDS ARROW}", x=x(0) + 6, y=top - 12, class_="small"))
    places = decimals(test.se for _, test in tested)
    words = []
    for index, (row, test) in enumerate(tested):
        y = top + step * (index + 0.5)
        parts.append(tag("text", f"vs {row.name}", x=left - 12, y=y + 4, text_anchor="end", class_="name"))
        for task, value in enumerate(values[row.name]):
            lift = ((task * 7) % 11 - 5) * 1.9
            parts.append(tag("circle", cx=x(value), cy=y + lift, r=2.2, class_=f"{row.role} faint"))
        text = measured(test.difference, test.se, places, sign=True)
        if math.isfinite(test.se):
            ends = (x(max(low, test.difference - 2 * test.se)), x(min(high, test.difference + 2 * test.se)))
            parts.append(tag("line", x1=ends[0], x2=ends[1], y1=y, y2=y, class_=f"{row.role} bar"))
        words.append(f"vs {row.name} {text}")
        parts.append(
            tag("circle", tag("title", words[-1]), cx=x(test.difference), cy=y, r=5.5, class_=f"{row.role} point")
        )
    return figure(width, bottom + 24, "Paired differences: " + "; ".join(words), parts)


def draw_rounds(results: Results, rows: Sequence[Row]) -> Markup:
    """Left: the selection on the search tasks after each round. Right: the methods on held-out tasks, same axis."""
    curve = [(item.number, item.score.mean, item.score.se) for item in results.rounds]
    levels = [(row, row.objective.mean, row.objective.se) for row in rows]
    points = [(mean, se) for _, mean, se in curve] + [(mean, se) for _, mean, se in levels]
    ends = [mean + sign * (se if math.isfinite(se) else 0) for mean, se in points for sign in (-1, 1)]
    low, high = pad(ends, 0.08)
    marks = ticks(low, high)
    left = max(46.0, 10 + DIGIT * max(len(text) for _, text in marks))
    height, middle, right, top, bottom = 290.0, left + 270, left + 396, 26.0, 262.0
    width = right + max(118.0, 14 + NAME * max(len(row.name) for row in rows))
    y = scale(low, high, bottom, top)
    parts = []
    for value, text in marks:
        parts.append(tag("line", x1=left, x2=right, y1=y(value), y2=y(value), class_="grid"))
        parts.append(tag("text", text, x=left - 8, y=y(value) + 4, text_anchor="end"))
    parts.append(tag("text", "search tasks (selected on)", x=left + 4, y=top - 10, class_="small"))
    parts.append(tag("text", "held-out tasks", x=middle + 16, y=top - 10, class_="small"))
    parts.append(tag("line", x1=middle, x2=middle, y1=top - 4, y2=bottom, class_="axis"))
    x = scale(0, len(curve) + 1, left, middle)
    places = decimals(se for _, se in points)
    line = " ".join(f"{x(i):.1f},{y(mean):.1f}" for i, (_, mean, _) in enumerate(curve, 1))
    if len(curve) > 1:
        parts.append(tag("polyline", points=line, class_="found line"))
    words = []
    for i, (round_number, mean, se) in enumerate(curve, 1):
        parts += _whisker(x(i), mean, se, y, "found")
        text = f"round {round_number}: {measured(mean, se, places)}"
        words.append(text)
        parts.append(tag("circle", tag("title", text), cx=x(i), cy=y(mean), r=4.5, class_="found hollow"))
        if len(curve) <= 12 or i % 2:
            parts.append(tag("text", str(round_number), x=x(i), y=bottom + 17, text_anchor="middle"))
    parts.append(tag("text", "round", x=left - 8, y=bottom + 17, text_anchor="end", class_="small"))
    names = spread([y(mean) for _, mean, _ in levels], 15)
    place = scale(0, len(levels) + 1, middle, right)
    for i, ((row, mean, se), label) in enumerate(zip(levels, names, strict=True), 1):
        parts += _whisker(place(i), mean, se, y, row.role)
        text = f"{row.name}: {measured(mean, se, places)}"
        words.append(text)
        lead = f"{place(i):.1f},{y(mean):.1f} {right:.1f},{y(mean):.1f} {right + 8:.1f},{label:.1f}"
        parts.append(tag("polyline", points=lead, class_=f"{row.role} lead"))
        parts.append(tag("circle", tag("title", text), cx=place(i), cy=y(mean), r=5.0, class_=f"{row.role} point"))
        parts.append(tag("text", row.name, x=right + 12, y=label + 4, class_="name"))
    return figure(width, height, "Score over the rounds, then held-out tasks. " + "; ".join(words), parts)


def _whisker(x: float, mean: float, se: float, y: Scale, role: str) -> list[Markup]:
    if not math.isfinite(se):
        return []
    return [tag("line", x1=x, x2=x, y1=y(mean - se), y2=y(mean + se), class_=f"{role} bar")]


def _grid(low: float, high: float, x: Scale, top: float, bottom: float) -> list[Markup]:
    parts = []
    for value, text in ticks(low, high):
        text = f"+{text}" if value > 0 else text
        parts.append(tag("line", x1=x(value), x2=x(value), y1=top, y2=bottom, class_="grid"))
        parts.append(tag("text", text, x=x(value), y=bottom + 17, text_anchor="middle"))
    return parts
