"""Maps of a model's heads, blocks x heads: pictures, and effects as colours. Made to be shown at half their size."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from pagopt.heads import Head
from pagopt.report.palette import STEPS, diverging_css, step_class

__all__ = ["EffectMap", "PictureMap", "draw_effects", "draw_pictures"]

INK, FAINT, LINE = "#1d1d1f", "#6e6e73", "#e3e3e8"
COLOURS = dict(re.findall(r"\.(\w+)\{fill:(#\w+)\}", diverging_css(dark=False)))
CELL = 50  # pixels, of one effect
SIDE = 96  # pixels, of one picture
MARGIN, LABEL, GAP = 28, 46, 8
TITLE, HEADER = 44, 30  # pixels, of the lines above a map


@dataclass(frozen=True)
class PictureMap:
    """What every head does to one picture.

    Attributes:
        title: The prompt.
        plain: The picture without guidance.
        heads: The same picture under guidance of each head alone.
    """

    title: str
    plain: Image.Image
    heads: Mapping[Head, Image.Image]


@dataclass(frozen=True)
class EffectMap:
    """What every head does to one reward.

    Attributes:
        title: Name of the reward.
        mean: Mean differences, shape (blocks, heads); NaN where a head was not measured.
        certain: Which of them are significant, bool, of the same shape.
    """

    title: str
    mean: NDArray[np.float64]
    certain: NDArray[np.bool_]


def draw_pictures(maps: Sequence[PictureMap], blocks: int, heads: int) -> Image.Image:
    """One map beside the other, each with its unguided picture at the left, in twice the size.

    Args:
        maps: At least one.
        blocks: Rows.
        heads: Columns.

    Returns:
        RGB on white.
    """
    plain, top = 2 * SIDE, MARGIN + TITLE + HEADER
    grid = heads * (SIDE + GAP) - GAP
    width = plain + LABEL + GAP + grid
    height = max(blocks * (SIDE + GAP) - GAP, plain + 40)
    image = _canvas(MARGIN + len(maps) * (width + 2 * MARGIN) - MARGIN, top + height + MARGIN)
    draw = ImageDraw.Draw(image)
    for number, item in enumerate(maps):
        x = MARGIN + number * (width + 2 * MARGIN)
        left = x + plain + LABEL + GAP
        draw.text((x, MARGIN), item.title, fill=INK, font=_font(30), anchor="lt")
        _paste(image, item.plain, x, top, plain)
        draw.text((x + plain / 2, top + plain + 12), "no guidance", fill=FAINT, font=_font(22), anchor="mt")
        _labels(draw, left, top, blocks, heads, SIDE, GAP)
        for head, picture in item.heads.items():
            _paste(image, picture, left + head.head * (SIDE + GAP), top + head.block * (SIDE + GAP), SIDE)
    return image


def draw_effects(maps: Sequence[EffectMap], note: str) -> Image.Image:
    """One heat map beside the other, each with a colour scale of its own around 0; a dot marks a certain effect.

    Args:
        maps: At least one, all of one shape.
        note: What the dot means, in a line below.

    Returns:
        RGB on white.
    """
    blocks, heads = maps[0].mean.shape
    width, top = LABEL + heads * CELL, MARGIN + TITLE + HEADER
    below = top + blocks * CELL + 20
    image = _canvas(MARGIN + len(maps) * (width + MARGIN), below + 118 + MARGIN)
    draw = ImageDraw.Draw(image)
    for number, item in enumerate(maps):
        left = MARGIN + number * (width + MARGIN) + LABEL
        limit = _limit(item.mean)
        draw.text((left, MARGIN), item.title, fill=INK, font=_font(30), anchor="lt")
        _labels(draw, left, top, blocks, heads, CELL, 0)
        for (block, head), value in np.ndenumerate(item.mean):
            x, y = left + head * CELL, top + block * CELL
            colour = COLOURS.get(step_class(float(value), limit), "white")
            draw.rounded_rectangle((x + 1, y + 1, x + CELL - 2, y + CELL - 2), 5, fill=colour)
            if item.certain[block, head]:
                light = sum(int(colour[i : i + 2], 16) for i in (1, 3, 5)) < 3 * 150
                _dot(draw, x + CELL / 2, y + CELL / 2, "white" if light else INK)
        _scale(draw, left, below, heads * CELL, limit)
    _dot(draw, MARGIN + LABEL + 7, below + 106, INK)
    draw.text((MARGIN + LABEL + 26, below + 106), note, fill=FAINT, font=_font(22), anchor="lm")
    return image


def _canvas(width: int, height: int) -> Image.Image:
    return Image.new("RGB", (width, height), "white")


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _paste(image: Image.Image, picture: Image.Image, x: int, y: int, side: int) -> None:
    """With a hair line around it, for most pictures end in white."""
    image.paste(picture.convert("RGB").resize((side, side), Image.Resampling.LANCZOS), (x, y))
    ImageDraw.Draw(image).rectangle((x - 1, y - 1, x + side, y + side), outline=LINE)


def _labels(draw: ImageDraw.ImageDraw, left: int, top: int, blocks: int, heads: int, cell: int, gap: int) -> None:
    for block in range(blocks):
        draw.text((left - 12, top + block * (cell + gap) + cell / 2), f"L{block}", FAINT, _font(22), anchor="rm")
    for head in range(heads):
        draw.text((left + head * (cell + gap) + cell / 2, top - 10), f"H{head}", FAINT, _font(22), anchor="ms")


def _limit(values: NDArray[np.float64]) -> float:
    """The largest distance from 0, rounded up to two digits; 1 if there is none."""
    largest = float(np.nanmax(np.abs(values), initial=0.0))
    if largest == 0:
        return 1.0
    unit = 10.0 ** (math.floor(math.log10(largest)) - 1)
    return math.ceil(largest / unit - 1e-9) * unit


def _scale(draw: ImageDraw.ImageDraw, left: float, top: float, width: float, limit: float) -> None:
    count = 2 * STEPS + 1
    for step in range(count):
        colour = COLOURS[step_class(step - STEPS, STEPS)]
        draw.rectangle((left + width * step / count, top, left + width * (step + 1) / count - 1, top + 15), fill=colour)
    for share, text in ((0.0, f"-{limit:g}"), (0.5, "0"), (1.0, f"+{limit:g}")):
        anchor = {0.0: "lt", 0.5: "mt", 1.0: "rt"}[share]
        draw.text((left + width * share, top + 26), text, fill=FAINT, font=_font(22), anchor=anchor)


def _dot(draw: ImageDraw.ImageDraw, x: float, y: float, colour: str) -> None:
    draw.ellipse((x - 5, y - 5, x + 5, y + 5), fill=colour)
