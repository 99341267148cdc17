"""The map of a round: layers by heads, coloured by what each head adds to the selection so far."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from markupsafe import Markup

from pagopt.heads import Head
from pagopt.report.headgrid import Aside, Cell, Place, draw_grid, places_of
from pagopt.report.palette import step_class
from pagopt.report.reading import decimals, measured, number, signed
from pagopt.report.svg import figure, scale, tag
from pagopt.results import Results, Round
from pagopt.search.candidates import head_scores, touched

__all__ = ["Centre", "centres", "common_limit", "draw_legend", "draw_map", "full_colour"]

Centre = tuple[float, str]
"""The score that gets the neutral colour, and what it is, in words."""

BAR = 54.0
"""Width of the bars of layer means, in pixels."""


def centres(results: Results) -> list[Centre]:
    """The neutral score of each round: that of its base selection, which in the first round is no guidance."""
    before = [results.baseline, *(item.score for item in results.rounds)]
    words = ["no guidance", *["the selection before the round"] * len(results.rounds)]
    return [(score.mean, text) for score, text, _ in zip(before, words, results.rounds, strict=False)]


def common_limit(rounds: Sequence[Round], middle: Sequence[Centre]) -> float:
    """The distance from the centre that gets the full colour in all rounds.

    It fits the gains (98 % of them are within), for heads that do harm can do much more of it and would fade
    everything else. It is no less than the 60th percentile of all distances.
    """
    return full_colour([s.mean - c[0] for r, c in zip(rounds, middle, strict=True) for s in r.scores.values()])


def full_colour(gaps: Sequence[float]) -> float:
    """The distance from the neutral score that gets the full colour; see :func:`common_limit`."""
    finite = [gap for gap in gaps if math.isfinite(gap)]
    return max(_quantile([gap for gap in finite if gap > 0], 0.98), _quantile([abs(gap) for gap in finite], 0.6)) or 1.0


def _quantile(values: Sequence[float], share: float) -> float:
    return sorted(values)[math.ceil(share * len(values)) - 1] if values else 0.0


def draw_map(item: Round, middle: Centre, limit: float, layers: int, heads: int) -> Markup:
    """One round as SVG.

    Args:
        item: The round.
        middle: Its neutral score.
        limit: Distance from it that gets the full colour.
        layers: Layers of the model, L0 on top.
        heads: Heads of a layer.
    """
    said = head_scores(item)
    chosen = {head: rank for rank, name in enumerate(item.chosen, start=1) for part in touched(name) for head in part}
    base = {Head.parse(name) for name in item.base}
    places = decimals(cell.score.se for cell in said.values()) + 1
    cells = {head: Cell(f"{head}: selected in an earlier round", "had", dot=True) for head in base}
    for head, one in said.items():
        gap = one.score.mean - middle[0]
        words = f"{one.words}: {measured(one.score.mean, one.score.se, places)} ({signed(gap, places)})"
        words += f", chosen as number {chosen[head]}" if head in chosen else ""
        cells[head] = Cell(words, step_class(gap, limit), head in base, chosen.get(head))
    layer = {}
    for place in {(head.site, head.block) for head in said}:
        layer[place] = statistics.fmean(said[head].score.mean for head in said if (head.site, head.block) == place)

    def bar(place: Place, left: float, y: float, size: float) -> Markup | None:
        return _bar(f"L{place[1]}", layer[place], left, y, size, middle, limit, places) if place in layer else None

    best = ", ".join(f"{name} {number(item.scores[name].mean, places)}" for name in item.chosen if name in item.scores)
    label = f"Score of every head in round {item.number}, neutral at {number(middle[0], places)} ({middle[1]})."
    aside = Aside("layer mean", BAR, bar, axis=BAR / 2)
    rows = places_of(layers, [*said, *base])
    return draw_grid(cells, rows, heads, aside, f"{label} Chosen: {best}.", "not a candidate")


def _bar(
    layer: str, mean: float, left: float, y: float, size: float, middle: Centre, limit: float, places: int
) -> Markup:
    zero = left + BAR / 2
    end = scale(-limit, limit, left, left + BAR)(max(-limit, min(limit, mean - middle[0])))
    words = f"{layer}: mean of its heads {number(mean, places)} ({signed(mean - middle[0], places)})"
    shape = {"x": min(zero, end), "width": abs(end - zero), "y": y + size * 0.25, "height": size * 0.5}
    return tag("rect", tag("title", words), class_="p7" if mean > middle[0] else "n7", **shape)


def draw_legend(limit: float, middle: str = "the score of the round's base") -> Markup:
    """The colour scale that all maps share; ``middle`` says what is neutral."""
    width, side, parts = 240.0, 22.0, []
    place = scale(-limit, limit, side, width - side)
    count = 21
    for index in range(count):
        value = limit * (index - 10) / 10
        x = side + (width - 2 * side) * index / count
        parts.append(
            tag(
                "rect", x=x, y=2.0, width=(width - 2 * side) / count + 0.5, height=12.0, class_=step_class(value, limit)
            )
        )
    places = max(1, 1 - math.floor(math.log10(limit))) if limit > 0 else 1
    for value in (-limit, 0.0, limit):
        text = signed(value, places) if value else "0"
        parts.append(tag("text", text, x=place(value), y=29.0, text_anchor="middle"))
    return figure(width, 34, f"Colour scale: score minus {middle}", parts)
