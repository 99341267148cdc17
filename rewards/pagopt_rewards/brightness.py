"""Brightness: the mean luma of an image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from pagopt.reward import Reward

__all__ = ["Brightness"]

REC_709 = np.array([0.2126, 0.7152, 0.0722])


class Brightness(Reward):
    """How bright: mean luma (Rec. ITU-R BT.709 weights on the stored values) from 0, black, to 1, white."""

    def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> list[float]:
        """Measure each image; prompts do not matter."""
        return [float((np.asarray(image, dtype=np.float64) @ REC_709).mean() / 255) for image in images]
