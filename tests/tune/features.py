"""A reward with features, for tests of diversity."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image

from pagopt.reward import Reward

__all__ = ["Seen"]


class Seen(Reward):
    """Scores nothing; its features are the pixels of a thumbnail.

    Args:
        failing: The call of :meth:`features` that fails, from 1; 0 for none.
    """

    def __init__(self, failing: int = 0) -> None:
        self.failing, self.calls = failing, 0

    def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> list[float]:
        """Zero for all."""
        return [0.0] * len(images)

    def features(self, images: Sequence[Image.Image]) -> torch.Tensor:
        """4 x 4 pixels, float32 ``(n, 48)``."""
        self.calls += 1
        if self.calls == self.failing:
            raise ValueError(f"call {self.calls}")
        small = np.stack([np.asarray(image.resize((4, 4)), np.float32).reshape(-1) for image in images])
        return torch.from_numpy(small)
