"""Pictures in rows and columns with titles, as one image: for a glance, a README, a slide."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from PIL import Image, ImageDraw

from pagopt.files import write_png
from pagopt.report.fonts import Font, font_for
from pagopt.results import Results

__all__ = ["draw_sheet", "write_sheet"]

INK, FAINT = "#1d1d1f", "#6e6e73"


def draw_sheet(
    rows: Sequence[Sequence[Image.Image]], row_titles: Sequence[str], column_titles: Sequence[str], side: int = 128
) -> Image.Image:
    """Lay pictures out on white.

    Args:
        rows: Pictures, all rows equally long. Small ones are enlarged smoothly.
        row_titles: One for each row, at its left; all empty for none.
        column_titles: One for each column, above it; what does not fit goes to the next lines.
        side: Longer side of a picture on the sheet, in pixels, at least 64.

    Returns:
        An RGB image.
    """
    first = rows[0][0]
    factor = side / max(first.size)
    width, height = (max(1, round(length * factor)) for length in first.size)
    size = max(11, side // 9)
    fonts = [font_for(title, size) for title in row_titles]
    gap = max(6, side // 12)
    lengths = [font.getlength(title) for font, title in zip(fonts, row_titles, strict=True)]
    left = gap + (round(max(lengths)) + gap if any(row_titles) else 0)
    smaller = [font_for(title, round(0.85 * size)) for title in column_titles]
    titles = [_wrapped(title, font, width) for title, font in zip(column_titles, smaller, strict=True)]
    top = gap + max(len(lines) for lines in titles) * round(1.25 * size) + gap // 2
    sheet = Image.new("RGB", (left + len(rows[0]) * (width + gap), top + len(rows) * (height + gap)), "white")
    draw = ImageDraw.Draw(sheet)
    for column, (lines, font) in enumerate(zip(titles, smaller, strict=True)):
        for line, text in enumerate(reversed(lines)):
            place = (left + column * (width + gap) + width / 2, top - gap // 2 - line * 1.25 * size)
            draw.text(place, text, fill=FAINT, font=font, anchor="ms")
    for row, (pictures, title, font) in enumerate(zip(rows, row_titles, fonts, strict=True)):
        y = top + row * (height + gap)
        draw.text((gap, y + height / 2), title, fill=INK, font=font, anchor="lm")
        for column, picture in enumerate(pictures):
            shown = picture.convert("RGB").resize((width, height), Image.Resampling.LANCZOS)
            sheet.paste(shown, (left + column * (width + gap), y))
    return sheet


def write_sheet(results: Results, image: Callable[[str], Image.Image], path: str | Path, tasks: int = 8) -> None:
    """Write what every method draws for the first held-out tasks (the first ones, never chosen ones).

    Args:
        results: What a search left behind.
        image: Gives the picture of a store key.
        path: PNG file; replaced atomically.
        tasks: Columns, at most.

    Raises:
        OSError: If the file cannot be written.
    """
    rows = [[image(key) for key in method.images[:tasks]] for method in results.methods]
    prompts = [prompt for prompt, _ in results.held_out_tasks[:tasks]]
    write_png(path, draw_sheet(rows, [method.name for method in results.methods], prompts))


def _wrapped(text: str, font: Font, width: float) -> list[str]:
    """At most three lines, none wider than ``width``: of whole words, but for words that are wider themselves."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= width:
            lines[-1] = longer
            continue
        pieces = _pieces(word, font, width)
        lines = [*lines, *pieces] if lines[-1] else pieces
    if len(lines) <= 3:
        return lines
    last = lines[2]
    while last and font.getlength(f"{last} ...") > width:
        last = last[:-1]
    return [*lines[:2], f"{last} ..."]


def _pieces(word: str, font: Font, width: float) -> list[str]:
    """A word, broken where it would be wider than ``width``."""
    pieces = [""]
    for character in word:
        if pieces[-1] and font.getlength(pieces[-1] + character) > width:
            pieces.append(character)
        else:
            pieces[-1] += character
    return pieces
