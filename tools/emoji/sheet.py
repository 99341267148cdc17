"""A contact sheet, styles x concepts, from the shipped folder: `python -m tools.emoji.sheet --out sheet.png`.

Nothing is chosen: every nth concept of the list, one seed for each column.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from diffusers import StableDiffusion3Pipeline
from jsonargparse import auto_cli
from PIL import Image

from tools.emoji.captions import caption
from tools.emoji.generate import generate

__all__ = ["grid", "sheet"]


def grid(pictures: torch.Tensor, rows: int) -> Image.Image:
    """uint8 (rows * columns, 3, H, W) in row order to one image."""
    _, channels, height, width = pictures.shape
    table = pictures.unflatten(0, (rows, -1))
    columns = table.shape[1]
    flat = table.permute(0, 3, 1, 4, 2).reshape(rows * height, columns * width, channels)
    return Image.fromarray(flat.numpy())


def sheet(
    out: Path = Path("build/emoji/sheet.png"),
    model: Path = Path("pagopt/models/emoji"),
    guidance: tuple[float, ...] = (1.0, 2.0),
    columns: int = 24,
    steps: int = 12,
    zoom: int = 1,
) -> None:
    """Draw the sheet: one block of rows for each guidance scale.

    Args:
        out: The PNG file.
        model: The shipped folder.
        guidance: Classifier-free guidance scales; 1 is none.
        columns: Number of concepts, spread evenly over the list.
        steps: Steps of the sampler.
        zoom: Enlarge each picture this many times.
    """
    facts = json.loads((model / "styles.json").read_text())
    pipe = StableDiffusion3Pipeline.from_pretrained(model / "pipeline")
    pipe.set_progress_bar_config(disable=True)
    names = [facts["concepts"][int(i * len(facts["concepts"]) / columns)] for i in range(columns)]
    prompts = [caption(style, name) for style in facts["styles"] for name in names]
    seeds = [1000 + i % columns for i in range(len(prompts))]
    blocks = [generate(pipe, prompts, seeds=seeds, guidance=scale, steps=steps) for scale in guidance]
    picture = grid(torch.cat(blocks), len(guidance) * len(facts["styles"]))
    out.parent.mkdir(parents=True, exist_ok=True)
    picture.resize((picture.width * zoom, picture.height * zoom), Image.Resampling.NEAREST).save(out)


if __name__ == "__main__":
    auto_cli(sheet, as_positional=False)
