"""A sheet of what the model draws, styles x concepts, without and with guidance: `python -m tools.emoji.sheet`.

Nothing is chosen: every nth concept of the list, one seed for each column. A dot marks what was held out of training.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jsonargparse import auto_cli
from PIL import Image, ImageDraw, ImageFont

from pagopt.files import write_png
from pagopt.models import load_pipeline
from pagopt.recipe import Recipe
from pagopt.render import Job, Renderer, Task
from pagopt.report.sheet import draw_sheet
from tools.emoji import artwork
from tools.emoji.captions import caption, name_of
from tools.emoji.train import MODEL

__all__ = ["mark", "sheet", "spread", "stack"]

INK, MARK = "#1d1d1f", "#e8590c"


def spread(names: Sequence[str], count: int, first: int = 0) -> list[int]:
    """Indices of `count` names at equal distances, beginning with the one at `first`."""
    return [(first + int(i * len(names) / count)) % len(names) for i in range(count)]


def mark(picture: Image.Image) -> Image.Image:
    """The picture with a dot in its upper right corner."""
    marked = picture.copy()
    ImageDraw.Draw(marked).ellipse((marked.width - 8, 2, marked.width - 3, 7), fill=MARK)
    return marked


def stack(blocks: Sequence[tuple[str, Image.Image]]) -> Image.Image:
    """One block below the other, each under its title."""
    font, room = ImageFont.load_default(22), 44
    width, height = max(block.width for _, block in blocks), sum(block.height + room for _, block in blocks)
    image = Image.new("RGB", (width, height), "white")
    y = 0
    for title, block in blocks:
        ImageDraw.Draw(image).text((12, y + room - 8), title, fill=INK, font=font, anchor="ls")
        image.paste(block, (0, y + room))
        y += room + block.height
    return image


def sheet(
    out: Path = Path("docs/emoji-sheet.png"),
    model: Path = MODEL,
    recipe: Path | None = None,
    guidance: tuple[float, ...] = (1.0, 2.0),
    columns: int = 12,
    first: int = 7,
    steps: int = 12,
    side: int = 96,
) -> None:
    """Draw the sheet: one block of rows for each guidance scale, and one for the recipe.

    Args:
        out: The PNG file.
        model: The shipped folder.
        recipe: A recipe file whose pictures come last.
        guidance: Classifier-free guidance scales; 1 is none.
        columns: Number of concepts, spread evenly over the list.
        first: Where in the list to begin.
        steps: Steps of the sampler.
        side: Of a picture on the sheet, in pixels.
    """
    icons, styles = artwork.concepts(), list(artwork.STYLES)
    chosen = spread(icons, columns, first)
    absent = set(artwork.held_out(icons).from_model())
    recipes = {f"CFG {g:g}" if g > 1 else "no guidance": Recipe(scale=0.0, cfg=g) for g in guidance}
    if recipe is not None:
        loaded = Recipe.load(recipe)
        recipes[f"perturbed heads {' '.join(map(str, loaded.heads))}"] = loaded
    renderer = Renderer(load_pipeline(str(model / "pipeline")), steps)
    blocks = []
    for title, drawn in recipes.items():
        rows = []
        for style, word in enumerate(styles):
            tasks = [Task(caption(word, name_of(icons[n])), 1000 + column) for column, n in enumerate(chosen)]
            images = renderer.render([Job(drawn, task) for task in tasks])
            rows.append([mark(i) if (style, n) in absent else i for i, n in zip(images, chosen, strict=True)])
        columns_ = [name_of(icons[n]) for n in chosen]
        blocks.append((title, draw_sheet(rows, styles, columns_, side)))
    write_png(out, stack(blocks))


if __name__ == "__main__":
    auto_cli(sheet, as_positional=False)
