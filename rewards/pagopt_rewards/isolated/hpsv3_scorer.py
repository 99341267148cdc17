"""How the package hpsv3 1.0.0 is called. Runs in its environment."""

from __future__ import annotations

import warnings
from typing import Any

warnings.filterwarnings("ignore")  # the package's imports warn of what nobody can change here

import torch  # noqa: E402
from hpsv3 import HPSv3RewardInferencer  # type: ignore[import-not-found] # noqa: E402

__all__ = ["HPSv3"]


class HPSv3:
    """The package's inferencer.

    Args:
        weights: HPSv3.safetensors.
        device: Such as "cuda:0".
    """

    def __init__(self, weights: str, device: str = "cuda") -> None:
        self.inferencer = HPSv3RewardInferencer(checkpoint_path=weights, device=device)

    @torch.no_grad()
    def __call__(self, images: list[Any], prompts: list[str]) -> torch.Tensor:
        """The mean that the network predicts, shape (n,); its second output is the spread."""
        return self.inferencer.reward(images, prompts)[:, 0]  # type: ignore[no-any-return]
