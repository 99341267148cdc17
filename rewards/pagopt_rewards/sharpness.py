"""Sharpness: the variance of the Laplacian (Pech-Pacheco et al., ICPR 2000, doi 10.1109/ICPR.2000.903548)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from pagopt.reward import Reward

__all__ = ["Sharpness"]

REC_709 = np.array([0.2126, 0.7152, 0.0722])


class Sharpness(Reward):
    """How much fine detail, noise included: variance of the Laplacian of the luma; 0 for a plain image.

    The Laplacian is the four neighbours minus four times the pixel, inside the border, on luma from 0 to 255 (BT.709
    weights). It grows with contrast and shrinks when an image is enlarged: compare images of one size only.
    """

    def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> list[float]:
        """Measure each image, at least 3 x 3 pixels; prompts do not matter."""
        return [self.measure(image) for image in images]

    @staticmethod
    def measure(image: Image.Image) -> float:
        """The sharpness of one RGB image."""
        if min(image.size) < 3:
            raise ValueError(f"an image of {image.width} x {image.height} pixels has no inside; 3 x 3 is the least")
        luma = np.asarray(image, dtype=np.float64) @ REC_709
        around = luma[:-2, 1:-1] + luma[2:, 1:-1] + luma[1:-1, :-2] + luma[1:-1, 2:]
        return float((around - 4 * luma[1:-1, 1:-1]).var())
