"""Pictures to test rewards with."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
from PIL import Image

__all__ = ["example_pictures"]


def example_pictures(count: int, sizes: Sequence[tuple[int, int]], seed: int = 0) -> list[Image.Image]:
    """Different RGB pictures: smooth coloured shapes with some grain.

    Args:
        count: How many.
        sizes: Width and height in pixels; they take turns.
        seed: The same seed gives the same pictures.
    """
    return [_picture(sizes[index % len(sizes)], seed, index).copy() for index in range(count)]


@functools.lru_cache(maxsize=256)
def _picture(size: tuple[int, int], seed: int, index: int) -> Image.Image:
    noise = np.random.default_rng((seed, index))
    coarse = noise.integers(0, 256, (4, 4, 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC), dtype=np.int16)
    grain = noise.integers(-12, 13, smooth.shape)
    return Image.fromarray(np.clip(smooth + grain, 0, 255).astype(np.uint8))
