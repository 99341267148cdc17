"""Trials in the plane: strength against scale, as in the paper (arXiv 2506.10978), and one goal against another."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from markupsafe import Markup

from pagopt.report.palette import step_class
from pagopt.report.reading import number
from pagopt.report.scoremap import full_colour
from pagopt.report.svg import figure, pad, scale, tag, ticks
from pagopt.tuning.lens import Lens, is_log
from pagopt.tuning.outcome import Goal, TrialRow, Tuned
from pagopt.tuning.picture import marks, point, said

__all__ = ["MapOf", "draw_front", "draw_map", "goal_name", "map_limit", "strengths_and_scales"]

WIDTH, HEIGHT = 520.0, 380.0
LEFT, RIGHT, TOP, BOTTOM = 46.0, 14.0, 14.0, 40.0
CELLS = (36, 26)
NEAR = 0.09
"""Width of the window that the coloured ground is a mean over, as a share of the axes."""

MapOf = tuple[TrialRow, float, float]
"""A trial, its strength, its scale."""

THUMB = 38.0


def strengths_and_scales(tuned: Tuned) -> list[MapOf]:
    """Where the trials lie; empty where strength or scale does not vary. Of strengths by head, the mean."""
    found = []
    for row in tuned.trials:
        if not row.objective or not row.recipe:
            continue
        own = row.recipe.get("strength", 0.0)
        mean = float(np.mean(own)) if isinstance(own, list | tuple) and own else own if isinstance(own, float) else 0.0
        strength = row.parameters.get("strength", mean)
        found.append((row, float(strength), float(row.parameters.get("scale", row.recipe.get("scale", 0.0)))))
    log = is_log(tuned, "scale")
    found = [one for one in found if one[2] > 0 or not log]
    varied = all(len({one[axis] for one in found}) > 2 for axis in (1, 2))
    return found if varied else []


def map_limit(lens: Lens) -> float:
    """The distance from no guidance that gets the full colour."""
    middle = lens.reference("no guidance")
    return full_colour([level - middle for _, level in lens.levels(lens.tuned.trials)])


def draw_map(lens: Lens, places: Sequence[MapOf]) -> Markup:
    """Strength against scale: orange is above no guidance, violet below. The ground is a mean of neighbours."""
    log = is_log(lens.tuned, "scale")
    shown = [(row, u, math.log2(w) if log else w, lens.level(row)) for row, u, w in places]
    shown = [one for one in shown if math.isfinite(one[3])]
    middle, limit = lens.reference("no guidance"), map_limit(lens)
    across, up = pad([one[1] for one in shown], 0.05), pad([one[2] for one in shown], 0.06)
    x, y = scale(*across, LEFT, WIDTH - RIGHT), scale(*up, HEIGHT - BOTTOM, TOP)
    parts = _ground(shown, middle, limit, across, up)
    for value, text in marks(up, log):
        parts.append(tag("text", text, x=LEFT - 6, y=y(value) + 4, text_anchor="end"))
    for value, text in ticks(*across):
        parts.append(tag("text", text, x=x(value), y=HEIGHT - BOTTOM + 16, text_anchor="middle"))
    parts.append(tag("text", "strength u", x=WIDTH - RIGHT, y=HEIGHT - 6, text_anchor="end", class_="name"))
    parts.append(tag("text", "scale w", x=LEFT, y=TOP - 3, class_="name"))
    for row, u, w, level in shown:
        title = tag("title", said(lens, row, level))
        if row.number in lens.tuned.best:
            parts.append(tag("circle", cx=x(u), cy=y(w), r=11.0, class_="ring"))
        astray = row.state == "complete" and not row.is_feasible
        kind = f"trial {step_class(level - middle, limit)}{' astray' if astray else ''}"
        parts.append(tag("circle", title, cx=x(u), cy=y(w), r=7.0, class_=kind, data_trial=row.number))
    label = f"{lens.name} over strength and scale, {len(shown)} trials; no guidance is {number(middle, 3)}"
    return figure(WIDTH, HEIGHT, label, parts)


def _ground(
    shown: Sequence[tuple[TrialRow, float, float, float]],
    middle: float,
    limit: float,
    across: tuple[float, float],
    up: tuple[float, float],
) -> list[Markup]:
    """Cells, coloured where trials are near."""
    at = np.array([[one[1], one[2]] for one in shown])
    at = (at - (across[0], up[0])) / (across[1] - across[0], up[1] - up[0])
    levels = np.array([one[3] for one in shown])
    width, height = (WIDTH - LEFT - RIGHT) / CELLS[0], (HEIGHT - TOP - BOTTOM) / CELLS[1]
    box = {"x": LEFT, "y": TOP, "width": WIDTH - LEFT - RIGHT, "height": HEIGHT - TOP - BOTTOM, "rx": 4.0}
    cells = []
    for i in range(CELLS[0]):
        for j in range(CELLS[1]):
            centre = np.array([(i + 0.5) / CELLS[0], 1 - (j + 0.5) / CELLS[1]])
            weights = np.exp(-0.5 * (((at - centre) / NEAR) ** 2).sum(axis=1))
            if weights.sum() < 0.2:
                continue
            colour = step_class(float(weights @ levels / weights.sum()) - middle, limit)
            corner = {"x": LEFT + i * width, "y": TOP + j * height, "width": width + 0.5, "height": height + 0.5}
            cells.append(tag("rect", class_=colour, **corner))
    return [tag("rect", class_="bare", **box), tag("g", *cells, class_="ground")]


def draw_front(tuned: Tuned, lens: Lens, goals: tuple[int, int], pictures: Mapping[int, str]) -> Markup:
    """Two goals of the complete trials, with pictures at the points of the front.

    Args:
        tuned: The tuning.
        lens: Of the objective, for the words.
        goals: Which goal is across, which up.
        pictures: Addresses of pictures by number of the trial.
    """
    rows = [row for row in tuned.trials if row.values]
    across, up = (tuned.goals[goal] for goal in goals)
    points = {row.number: (row.values[goals[0]], row.values[goals[1]]) for row in rows}
    left, right = pad([at[0] for at in points.values()], 0.08)
    low, high = pad([at[1] for at in points.values()], 0.12)
    x, y = scale(left, right, LEFT + 6, WIDTH - RIGHT), scale(low, high, HEIGHT - BOTTOM, TOP)
    parts = []
    for value, text in ticks(low, high):
        parts.append(tag("line", x1=LEFT, x2=WIDTH - RIGHT, y1=y(value), y2=y(value), class_="grid"))
        parts.append(tag("text", text, x=LEFT - 6, y=y(value) + 4, text_anchor="end"))
    for value, text in ticks(left, right, 6):
        parts.append(tag("text", text, x=x(value), y=HEIGHT - BOTTOM + 16, text_anchor="middle"))
    parts.append(tag("text", _axis(across, lens), x=WIDTH - RIGHT, y=HEIGHT - 6, text_anchor="end", class_="name"))
    parts.append(tag("text", _axis(up, lens), x=LEFT, y=TOP - 3, class_="name"))
    others = [row for row in rows if row.number not in tuned.best]
    parts += [point(lens, row, lens.level(row), x(points[row.number][0]), y(points[row.number][1])) for row in others]
    if len(tuned.goals) == 2:
        line = sorted(points[number] for number in tuned.best)
        parts.append(tag("polyline", points=" ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in line), class_="found line"))
    for place, number_ in enumerate(tuned.best, 1):
        row, at = tuned.trial(number_), (x(points[number_][0]), y(points[number_][1]))
        inside = [tag("title", f"front {place}, {said(lens, row, lens.level(row))}")]
        if number_ in pictures:
            corner = {"x": at[0] - THUMB / 2, "y": at[1] - THUMB / 2, "width": THUMB, "height": THUMB}
            inside.append(tag("image", href=pictures[number_], preserveAspectRatio="xMidYMid slice", **corner))
            inside.append(tag("rect", rx=3.0, class_="frame", **corner))
        else:
            inside.append(tag("circle", cx=at[0], cy=at[1], r=8.0, class_="found point"))
        inside.append(tag("text", str(place), x=at[0] + THUMB / 2 + 3, y=at[1] - THUMB / 2 + 9, class_="rank"))
        parts.append(tag("g", *inside, class_="pick", data_pick=place))
    label = (
        f"{goal_name(up, lens)} against {goal_name(across, lens)}: {len(rows)} trials, {len(tuned.best)} on the front"
    )
    return figure(WIDTH, HEIGHT, label, parts)


def goal_name(goal: Goal, lens: Lens) -> str:
    """What a goal is called on the page; ``lens`` is the objective's."""
    return {"objective": lens.name, "cost": "block evaluations"}.get(goal.name, goal.name)


def _axis(goal: Goal, lens: Lens) -> str:
    return f"{goal_name(goal, lens)} ({'more' if goal.higher else 'less'} is better)"
