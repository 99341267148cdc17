"""The map of a round: layers by heads, coloured by what each head adds to the selection so far."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from markupsafe import Markup

from pagopt.heads import Head
from pagopt.report.palette import step_class
from pagopt.report.reading import decimals, measured, number, signed
from pagopt.report.svg import figure, scale, tag
from pagopt.results import Results, Round
from pagopt.search.candidates import HeadScore, head_scores, touched

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
    scores = {head: cell.score for head, cell in said.items()}
    chosen = {head: rank for rank, name in enumerate(item.chosen, start=1) for part in touched(name) for head in part}
    base = {Head.parse(name) for name in item.base}
    sites = sorted({head.site for head in (*scores, *chosen, *base)} - {"attn"})
    rows = [("attn", block) for block in range(layers)]
    rows += [(s, b) for s in sites for b in sorted({h.block for h in (*scores, *base) if h.site == s})]
    cell = 30.0 if heads <= 8 else 20.0 if heads <= 16 else 15.0
    left, top = 34.0, 20.0
    places = decimals(score.se for score in scores.values()) + 1
    parts = [_column_label(h, left + (h + 0.5) * cell, top - 6) for h in range(heads) if heads <= 12 or h % 3 == 0]
    bars = left + heads * cell + 12
    parts.append(tag("text", "layer mean", x=bars + BAR / 2, y=top - 6, text_anchor="middle", class_="small"))
    marks: list[Markup] = []
    y, last = top, "attn"
    for site, block in rows:
        if site != last:
            y, last = y + 22, site
            parts.append(tag("text", f"{site} (image tokens only)", x=left, y=y - 5, class_="small"))
        if heads <= 12 or block % 2 == 0:
            parts.append(tag("text", f"L{block}", x=left - 7, y=y + cell / 2 + 4, text_anchor="end"))
        for h in range(heads):
            head, x = Head(block, h, site), left + h * cell
            rank = chosen.get(head)
            parts.append(_cell(head, x, y, cell, said.get(head), head in base, rank, middle, limit, places))
            if rank is not None:
                marks.append(_outline(x, y, cell, rank))
        mean = [scores[head].mean for head in scores if (head.site, head.block) == (site, block)]
        if mean:
            parts.append(_bar(f"L{block}", statistics.fmean(mean), bars, y, cell, middle, limit, places))
        y += cell
    parts.append(tag("line", x1=bars + BAR / 2, x2=bars + BAR / 2, y1=top, y2=y, class_="axis"))
    best = ", ".join(f"{name} {number(item.scores[name].mean, places)}" for name in item.chosen if name in item.scores)
    label = f"Score of every head in round {item.number}, neutral at {number(middle[0], places)} ({middle[1]})."
    return figure(bars + BAR + 4, y + 4, f"{label} Chosen: {best}.", parts + marks)


def _column_label(head: int, x: float, y: float) -> Markup:
    return tag("text", f"H{head}", x=x, y=y, text_anchor="middle")


def _cell(
    head: Head,
    x: float,
    y: float,
    size: float,
    said: HeadScore | None,
    selected: bool,
    rank: int | None,
    middle: Centre,
    limit: float,
    places: int,
) -> Markup:
    box = {"x": x + 0.75, "y": y + 0.75, "width": size - 1.5, "height": size - 1.5, "rx": 2.0}
    dot = tag("circle", cx=x + size / 2, cy=y + size / 2, r=size * 0.17, class_="dot")
    if said is None and selected:
        return tag("g", tag("title", f"{head}: selected in an earlier round"), tag("rect", class_="had", **box), dot)
    if said is None:
        return tag("rect", tag("title", f"{head}: not a candidate"), class_="x", **box)
    score = said.score
    words = f"{said.words}: {measured(score.mean, score.se, places)}"
    words += f" ({signed(score.mean - middle[0], places)})" + (f", chosen as number {rank}" if rank else "")
    shape = tag("rect", tag("title", words), class_=step_class(score.mean - middle[0], limit), **box)
    return tag("g", tag("title", words), shape, dot) if selected else shape


def _outline(x: float, y: float, size: float, rank: int) -> Markup:
    ring = tag("rect", x=x, y=y, width=size, height=size, rx=3.0, class_="ring")
    text = tag("text", str(rank), x=x + size / 2, y=y + size / 2 + 4, text_anchor="middle", class_="rank")
    return tag("g", ring, text, pointer_events="none") if size >= 15 else ring


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
