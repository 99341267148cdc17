"""Which style the judge sees: counted, method by method."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace

import torch
from PIL import Image

from tools.emoji.artwork import STYLES
from tools.emoji.styles import shares


class Grey:
    """Sees the style whose number is the grey of the picture."""

    def images(self, images: Sequence[Image.Image]) -> torch.Tensor:
        return torch.eye(len(STYLES))[[int(image.getpixel((0, 0))) for image in images]]  # type: ignore[arg-type]

    def texts(self, texts: Sequence[str]) -> torch.Tensor:
        return torch.eye(len(STYLES))[[list(STYLES).index(text) for text in texts]]


def test_pictures_of_the_right_style_are_counted() -> None:
    second = list(STYLES)[1]
    results = SimpleNamespace(
        held_out_tasks=[(f"{second}, apple", 1), (f"{second}, sun", 2), (f"{second}, cat", 3)],
        methods=[SimpleNamespace(name="none", images=["0", "1", "2"]), SimpleNamespace(name="found", images=["1"] * 3)],
    )
    found = shares(results, lambda key: Image.new("L", (2, 2), int(key)), Grey())  # type: ignore[arg-type]
    assert found == {"none": (1, 3), "found": (3, 3)}
