"""What the tests of the shipped rewards share."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageFilter
from tiny_clip import save_tiny_clip


@pytest.fixture(scope="session")
def tiny_clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_tiny_clip(tmp_path_factory.mktemp("clip")))


@pytest.fixture(scope="session")
def pictures() -> list[Image.Image]:
    """Seven different RGB pictures of several sizes and shapes."""
    noise = np.random.default_rng(0)
    sizes = [(64, 64), (64, 48), (40, 96), (32, 32), (33, 35), (128, 128), (64, 64)]
    images = [Image.fromarray(noise.integers(0, 256, (h, w, 3), dtype=np.uint8)) for w, h in sizes]
    return [image.filter(ImageFilter.GaussianBlur(i)) for i, image in enumerate(images)]
