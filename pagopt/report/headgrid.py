"""A table of heads as SVG: layers down, heads across, a coloured cell each, and something beside every layer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from pagopt.heads import MAIN_SITE, Head
from pagopt.report.svg import figure, tag

__all__ = ["Aside", "Cell", "Place", "draw_cell", "draw_grid", "places_of"]

Place = tuple[str, int]
"""A row: attention site and block."""


@dataclass(frozen=True)
class Cell:
    """One head.

    Attributes:
        words: What is said of it.
        colour: CSS class of its colour; "x" is an empty place.
        dot: Whether it has a dot.
        rank: Its number, with a ring, if it has one.
        link: What a script may find it by, if anything.
    """

    words: str
    colour: str
    dot: bool = False
    rank: int | None = None
    link: str | None = None


@dataclass(frozen=True)
class Aside:
    """What stands to the right of every row.

    Attributes:
        title: Above all of them.
        width: In pixels.
        draw: Draws that of a row: its place, left and top edge and height in pixels.
        axis: Where a vertical line goes through all of them, in pixels from their left, if anywhere.
    """

    title: str
    width: float
    draw: Callable[[Place, float, float, float], Markup | None]
    axis: float | None = None


def places_of(blocks: int, heads: Iterable[Head]) -> list[Place]:
    """The rows: the main site of every block, then those of other sites that hold one of ``heads``."""
    others = sorted({(head.site, head.block) for head in heads if head.site != MAIN_SITE})
    return [(MAIN_SITE, block) for block in range(blocks)] + others


def draw_grid(
    cells: Mapping[Head, Cell], places: Sequence[Place], heads: int, aside: Aside, label: str, empty: str
) -> Markup:
    """The table.

    Args:
        cells: By head.
        places: Rows, from the top; those of one site together.
        heads: Columns.
        aside: What stands to the right.
        label: What a screen reader says.
        empty: What is said of a head without a cell.
    """
    size = 30.0 if heads <= 8 else 20.0 if heads <= 16 else 15.0
    left, top = 34.0, 20.0
    parts = [
        tag("text", f"H{head}", x=left + (head + 0.5) * size, y=top - 6, text_anchor="middle")
        for head in range(heads)
        if heads <= 12 or head % 3 == 0
    ]
    edge = left + heads * size + 12
    parts.append(tag("text", aside.title, x=edge + aside.width / 2, y=top - 6, text_anchor="middle", class_="small"))
    rings: list[Markup] = []
    y, last = top, MAIN_SITE
    for site, block in places:
        if site != last:
            y, last = y + 22, site
            parts.append(tag("text", f"{site} (image tokens only)", x=left, y=y - 5, class_="small"))
        if heads <= 12 or block % 2 == 0:
            parts.append(tag("text", f"L{block}", x=left - 7, y=y + size / 2 + 4, text_anchor="end"))
        for number in range(heads):
            head, x = Head(block, number, site), left + number * size
            cell = cells.get(head, Cell(f"{head}: {empty}", "x"))
            parts.append(draw_cell(cell, x, y, size))
            if cell.rank is not None:
                rings.append(_ring(x, y, size, cell.rank))
        beside = aside.draw((site, block), edge, y, size)
        if beside is not None:
            parts.append(beside)
        y += size
    if aside.axis is not None:
        parts.append(tag("line", x1=edge + aside.axis, x2=edge + aside.axis, y1=top, y2=y, class_="axis"))
    return figure(edge + aside.width + 4, y + 4, label, parts + rings)


def draw_cell(cell: Cell, x: float, y: float, size: float) -> Markup:
    """One cell, with its upper left corner at (x, y)."""
    box = {"x": x + 0.75, "y": y + 0.75, "width": size - 1.5, "height": size - 1.5, "rx": 2.0}
    title = tag("title", cell.words)
    if not cell.dot:
        return tag("rect", title, class_=cell.colour, data_head=cell.link, **box)
    dot = tag("circle", cx=x + size / 2, cy=y + size / 2, r=size * 0.17, class_="dot")
    return tag("g", title, tag("rect", class_=cell.colour, **box), dot, data_head=cell.link)


def _ring(x: float, y: float, size: float, rank: int) -> Markup:
    ring = tag("rect", x=x, y=y, width=size, height=size, rx=3.0, class_="ring")
    text = tag("text", str(rank), x=x + size / 2, y=y + size / 2 + 4, text_anchor="middle", class_="rank")
    return tag("g", ring, text, pointer_events="none")
