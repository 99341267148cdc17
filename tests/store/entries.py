"""Something to keep."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

from pagopt.store import Store


def entry(number: int, size: int = 16) -> tuple[str, Image.Image, dict[str, Any]]:
    description = {"number": number, "prompt": "ein Käfer 🐞"}
    pixels = np.random.default_rng(number).integers(0, 256, (size, size, 3), dtype=np.uint8)
    return Store.key(description), Image.fromarray(pixels), description


KEY, IMAGE, DESCRIPTION = entry(0)
