"""``pagopt score``: score image files with a reward."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser
from PIL import Image
from rich.console import Console
from rich.table import Table

from pagopt.errors import RewardError
from pagopt.reward import load_reward

__all__ = ["main", "parser"]

DESCRIPTION = """Score image files with a reward; higher is better.

examples:
  pagopt score --reward colorfulness pictures/*.png
  pagopt score --reward clip --prompt "flat, red apple" apple.png pear.png
  pagopt score --reward my_reward.py:roundness --json pictures/*.png
"""


def parser() -> ArgumentParser:
    """All options."""
    command = ArgumentParser(prog="pagopt score", description=DESCRIPTION, allow_abbrev=False)
    command.add_argument("images", type=Path, nargs="+", help="Image files.")
    command.add_argument(
        "--reward", type=str, required=True, help="Name, path/to/file.py:function, or package.module:Class."
    )
    command.add_argument("--args", type=dict[str, Any], default={}, help="Arguments of the reward, as YAML.")
    command.add_argument("--prompt", type=str, default="", help="The prompt that the images are to answer.")
    command.add_argument("--json", action="store_true", help="Print JSON instead of a table.")
    return command


def main(words: list[str]) -> None:
    """Score what ``words`` name."""
    options = parser().parse_args(words)
    reward = load_reward(options.reward, **options.args)
    images = [read(path) for path in options.images]
    scores = reward(images, [options.prompt] * len(images)).tolist()
    if options.json:
        print(json.dumps([{"image": str(p), "score": s} for p, s in zip(options.images, scores, strict=True)]))
        return
    table = Table(box=None, pad_edge=False)
    table.add_column("image", overflow="fold")
    table.add_column(reward.name, justify="right")
    for path, score in sorted(zip(options.images, scores, strict=True), key=lambda row: -row[1]):
        table.add_row(str(path), f"{score:.4f}")
    Console().print(table)


def read(path: Path) -> Image.Image:
    """Open an image file, on white where it is transparent.

    Raises:
        RewardError: If it is no image.
    """
    try:
        with Image.open(path) as file:
            image = file.convert("RGBA")
    except OSError as error:
        raise RewardError(f"cannot read {path} as an image: {error}") from error
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image).convert("RGB")
