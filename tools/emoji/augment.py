"""Small geometric changes of a picture: shift and scale, then area reduction to the model's resolution."""

from __future__ import annotations

import torch
import torch.nn.functional as F

__all__ = ["reduce_area", "shift_scale", "to_unit"]


def to_unit(images: torch.Tensor) -> torch.Tensor:
    """uint8 [0, 255] to float32 [-1, 1]."""
    return images.float() / 127.5 - 1.0


def reduce_area(images: torch.Tensor, size: int = 64) -> torch.Tensor:
    """Float (B, 3, H, W) in [-1, 1] to (B, 3, size, size) by averaging areas."""
    return F.interpolate(images, size=(size, size), mode="area")


def shift_scale(
    images: torch.Tensor,
    generator: torch.Generator,
    *,
    shift: float = 2.0,
    scale: tuple[float, float] = (0.9, 1.05),
    size: int = 64,
) -> torch.Tensor:
    """Move each picture by up to `shift` output pixels and scale it; what comes into view is white.

    `images` is float (B, 3, H, W) in [-1, 1]; the result is (B, 3, size, size).
    """
    rows = images.shape[0]
    factor = scale[0] + (scale[1] - scale[0]) * torch.rand(rows, generator=generator)
    offset = (2 * torch.rand(rows, 2, generator=generator) - 1) * (2 * shift / size)
    theta = torch.zeros(rows, 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = 1 / factor
    theta[:, :, 2] = offset
    grid = F.affine_grid(theta, [rows, 3, images.shape[2], images.shape[3]], align_corners=False)
    # Zero padding is applied to (image - white), so that white comes in from outside.
    moved = F.grid_sample(images - 1.0, grid, mode="bilinear", padding_mode="zeros", align_corners=False) + 1.0
    return reduce_area(moved, size)
