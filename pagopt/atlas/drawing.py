"""An atlas as two images, for a README, a paper or a slide. Made to be shown at half their size."""

from __future__ import annotations

import re
from collections.abc import Mapping

from PIL import Image, ImageDraw, ImageFont

from pagopt.atlas.findings import LEVEL, MOVED, Findings
from pagopt.atlas.page import shown_tasks
from pagopt.heads import MAIN_SITE, Head
from pagopt.report.fonts import Font, font_for
from pagopt.report.palette import STEPS, diverging_css, step_class

__all__ = ["draw_effects", "draw_pictures"]

INK, FAINT, LINE = "#1d1d1f", "#6e6e73", "#e3e3e8"
COLOURS = dict(re.findall(r"\.(\w+)\{fill:(#\w+)\}", diverging_css(dark=False)))
MARGIN, GAP = 28, 8
PLAIN = 192  # pixels, longer side of the picture without perturbation
TITLE, HEADER = 44, 30  # pixels, of the lines above a table
WIDEST = 2400  # pixels; what does not fit goes below
PROMPTS = 2


class _Table:
    """Where the cells of one table are: rows are places, columns are heads, with whole layers at the right.

    Args:
        found: Whose heads.
        width: Of a cell, in pixels.
        height: The same.
        gap: Between cells.
    """

    def __init__(self, found: Findings, width: int, height: int, gap: int) -> None:
        self.places, self.heads, self.layers = found.places(), found.heads, found.layer_places
        self.cell, self.gap = (width, height), gap
        long = max(len(_row_name(place)) for place in self.places)
        self.label = 16 + 14 * long
        self.aside = 2 * GAP + width if self.layers else 0
        self.size = (
            self.label + self.heads * (width + gap) - gap + self.aside,
            HEADER + len(self.places) * (height + gap) - gap,
        )

    def at(self, row: int, column: int | None) -> tuple[int, int]:
        """The upper left corner of a cell, from that of the table; no column means the whole layer."""
        width, height = self.cell
        x = self.size[0] - width if column is None else self.label + column * (width + self.gap)
        return x, HEADER + row * (height + self.gap)

    def cells(self, measure_of: Mapping[str, object]) -> dict[str, tuple[int, int]]:
        """The corners of all that has a name in ``measure_of``: heads and layers."""
        rows = {place: row for row, place in enumerate(self.places)}
        corners = {name: self.at(rows[place], None) for place, name in self.layers.items()}
        for name in measure_of:
            if "." in name:
                head = Head.parse(name)
                corners[name] = self.at(rows[head.site, head.block], head.head)
        return corners

    def write_labels(self, draw: ImageDraw.ImageDraw, left: int, top: int) -> None:
        """Names of rows and columns; in a dense table of every second or third only."""
        width, height = self.cell
        for row, place in enumerate(self.places):
            if height >= 24 or row % 2 == 0:
                y = top + self.at(row, 0)[1] + height / 2
                draw.text((left + self.label - 12, y), _row_name(place), FAINT, _font(22), anchor="rm")
        every = 1 if width >= 44 else 2 if width >= 30 else 3
        for head in range(0, self.heads, every):
            draw.text((left + self.at(0, head)[0] + width / 2, top + 20), f"H{head}", FAINT, _font(22), anchor="ms")
        if self.layers:
            draw.text((left + self.at(0, None)[0] + width / 2, top + 20), "all", FAINT, _font(22), anchor="ms")


def draw_pictures(found: Findings, pictures: Mapping[str, Image.Image]) -> Image.Image:
    """What every head draws for the first prompts, each table with its unguided picture at the left.

    Args:
        found: What was drawn.
        pictures: By store key.

    Returns:
        RGB on white.
    """
    shown = shown_tasks(found)[:PROMPTS]
    first = pictures[found.plain[shown[0]]]
    side = 96 if found.heads <= 8 else 64 if found.heads <= 16 else 48
    width, height = _fitted(first, side)
    table, plain = _Table(found, width, height, GAP), _fitted(first, PLAIN)
    one = (plain[0] + table.size[0], TITLE + max(table.size[1], HEADER + plain[1] + 40))
    corners, size = _places(one, len(shown))
    image = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(image)
    for task, (x, y) in zip(shown, corners, strict=True):
        draw.text(
            (x, y), _cut(found.tasks[task][0], one[0]), fill=INK, font=font_for(found.tasks[task][0], 30), anchor="la"
        )
        y += TITLE
        _paste(image, pictures[found.plain[task]], x, y + HEADER, plain)
        draw.text((x + plain[0] / 2, y + HEADER + plain[1] + 12), "no perturbation", FAINT, _font(22), anchor="mt")
        x += plain[0]
        table.write_labels(draw, x, y)
        for name, (dx, dy) in table.cells(found.images).items():
            _paste(image, pictures[found.images[name][task]], x + dx, y + dy, table.cell)
    return image


def draw_effects(found: Findings) -> Image.Image:
    """What every head changes, a table for each measure with a colour scale of its own; a dot marks a certain effect.

    Returns:
        RGB on white.
    """
    side = 50 if found.heads <= 8 else 34 if found.heads <= 16 else 24
    table = _Table(found, side, side, 0)
    one = (table.size[0], TITLE + table.size[1] + 20 + 60)
    corners, (width, height) = _places(one, len(found.effects))
    tested = bool(found.tested)
    image = Image.new("RGB", (width, height + (30 if tested else 0)), "white")
    draw = ImageDraw.Draw(image)
    for (measure, row), (x, y) in zip(found.effects.items(), corners, strict=True):
        limit = found.limits[measure]
        draw.text((x + table.label, y), measure, fill=INK, font=_font(30), anchor="la")
        y += TITLE
        table.write_labels(draw, x, y)
        for name, (dx, dy) in table.cells(row).items():
            colour = COLOURS[step_class(row[name].mean, limit)]
            left, top = x + dx, y + dy
            draw.rounded_rectangle((left + 1, top + 1, left + side - 2, top + side - 2), side // 10, fill=colour)
            if row[name].certain:
                light = sum(int(colour[i : i + 2], 16) for i in (1, 3, 5)) < 3 * 150
                _dot(draw, left + side / 2, top + side / 2, side / 10, "white" if light else INK)
        across = found.heads * side
        _scale(draw, x + table.label, y + table.size[1] + 20, across, limit, 0 if measure == MOVED else -STEPS)
    if tested:
        left = MARGIN + table.label
        _dot(draw, left + 7, height - 6, 5, INK)
        words = f"significant at {LEVEL:g} for all heads and measures together; beyond the ends the colour stays"
        draw.text((left + 26, height - 6), words, fill=FAINT, font=_font(22), anchor="lm")
    return image


def _places(size: tuple[int, int], count: int) -> tuple[list[tuple[int, int]], tuple[int, int]]:
    """Corners of ``count`` things of one size, beside each other as long as there is room, and the size of it all."""
    width, height = (length + 2 * MARGIN for length in size)
    rows = -(-count // max(1, (WIDEST + MARGIN) // width))
    across = -(-count // rows)  # as evenly as possible
    corners = [(MARGIN + number % across * width, MARGIN + number // across * height) for number in range(count)]
    return corners, (across * width, rows * height)


def _fitted(picture: Image.Image, side: int) -> tuple[int, int]:
    """The size of a picture whose longer side is ``side``."""
    width, height = (max(1, round(length * side / max(picture.size))) for length in picture.size)
    return width, height


def _cut(text: str, width: int) -> str:
    """As much of a title as fits."""
    font = font_for(text, 30)
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(f"{text} ...") > width:
        text = text.rpartition(" ")[0] or text[:-1]
    return f"{text} ..."


def _row_name(place: tuple[str, int]) -> str:
    site, block = place
    return f"L{block}" if site == MAIN_SITE else f"L{block}.{site}"


def _font(size: int) -> Font:
    return ImageFont.load_default(size)


def _paste(image: Image.Image, picture: Image.Image, x: int, y: int, size: tuple[int, int]) -> None:
    """With a hair line around it, for many pictures end in white."""
    image.paste(picture.convert("RGB").resize(size, Image.Resampling.LANCZOS), (x, y))
    ImageDraw.Draw(image).rectangle((x - 1, y - 1, x + size[0], y + size[1]), outline=LINE)


def _scale(draw: ImageDraw.ImageDraw, left: float, top: float, width: float, limit: float, low: int) -> None:
    """The colours from ``low`` steps to the last; ``limit`` is the last."""
    count = STEPS - low + 1
    for number in range(count):
        colour = COLOURS[step_class(number + low, STEPS)]
        edge = left + width * number / count
        draw.rectangle((edge, top, edge + width / count - 1, top + 15), fill=colour)
    marks = {"lt": "0", "rt": f"{limit:g}"} if low == 0 else {"lt": f"-{limit:g}", "mt": "0", "rt": f"+{limit:g}"}
    for anchor, text in marks.items():
        share = {"lt": 0.0, "mt": 0.5, "rt": 1.0}[anchor]
        draw.text((left + width * share, top + 26), text, fill=FAINT, font=_font(22), anchor=anchor)


def _dot(draw: ImageDraw.ImageDraw, x: float, y: float, radius: float, colour: str) -> None:
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)
