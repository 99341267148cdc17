"""Colorfulness: Hasler and Suesstrunk, "Measuring colourfulness in natural images", 2003 (doi 10.1117/12.477378)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from pagopt.reward import Reward

__all__ = ["Colorfulness"]


class Colorfulness(Reward):
    """How colourful: 0 for grey, about 15 slightly, 45 quite, above 80 extremely (Hasler & Suesstrunk 2003).

    ``sqrt(var(rg) + var(yb)) + 0.3 * sqrt(mean(rg)^2 + mean(yb)^2)`` over the pixels, with ``rg = R - G`` and
    ``yb = (R + G) / 2 - B`` on the 0 to 255 scale.
    """

    def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> list[float]:
        """Measure each image; prompts do not matter."""
        return [self.measure(image) for image in images]

    @staticmethod
    def measure(image: Image.Image) -> float:
        """The colorfulness of one RGB image."""
        red, green, blue = np.moveaxis(np.asarray(image, dtype=np.float64), -1, 0)
        rg, yb = red - green, (red + green) / 2 - blue
        return float(np.hypot(rg.std(), yb.std()) + 0.3 * np.hypot(rg.mean(), yb.mean()))
