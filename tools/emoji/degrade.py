"""What generated pictures suffer from, done to real ones: blur, noise, colour shift, low resolution, contrast."""

from __future__ import annotations

import torch
import torch.nn.functional as F

__all__ = ["degrade", "spoil"]


def _uniform(rows: int, low: float, high: float, generator: torch.Generator) -> torch.Tensor:
    return (low + (high - low) * torch.rand(rows, generator=generator))[:, None, None, None]


def _some(rows: int, share: float, generator: torch.Generator) -> torch.Tensor:
    return (torch.rand(rows, generator=generator) < share)[:, None, None, None]


def degrade(images: torch.Tensor, generator: torch.Generator, *, strength: float = 1.0) -> torch.Tensor:
    """Each fault strikes about a third of the pictures, float (B, 3, H, W) in [-1, 1]; the result is clamped to it."""
    rows, size = images.shape[0], images.shape[-1]
    low = F.interpolate(images, scale_factor=0.5, mode="area")
    lower = F.interpolate(images, scale_factor=0.25, mode="area")
    pick = torch.rand(rows, generator=generator)[:, None, None, None]
    half = F.interpolate(low, size=size, mode="bilinear", align_corners=False)
    quarter = F.interpolate(lower, size=size, mode="bilinear", align_corners=False)
    out = torch.where(pick < 0.2 * strength, half, images)
    out = torch.where(pick > 1 - 0.1 * strength, quarter, out)
    mix = _uniform(rows, 0, 1, generator) * _some(rows, 0.3 * strength, generator)
    out = torch.lerp(out, F.avg_pool2d(F.pad(out, (1, 1, 1, 1), mode="replicate"), 3, stride=1), mix)
    tint = 0.25 * strength * torch.randn(rows, 3, 1, 1, generator=generator)
    out = out + tint * _some(rows, 0.3, generator)
    contrast = 1 + strength * _uniform(rows, -0.4, 0.5, generator) * _some(rows, 0.4, generator)
    middle = out.mean(dim=(1, 2, 3), keepdim=True)
    out = (out - middle) * contrast + middle
    grey = out.mean(dim=1, keepdim=True)
    saturation = 1 + strength * _uniform(rows, -0.4, 0.6, generator) * _some(rows, 0.3, generator)
    out = grey + (out - grey) * saturation
    amount = 0.35 * strength * _uniform(rows, 0, 1, generator) * _some(rows, 0.4, generator)
    fine = torch.randn(images.shape, generator=generator)
    coarse = F.interpolate(
        torch.randn(rows, 3, size // 4, size // 4, generator=generator),
        size=size,
        mode="bilinear",
        align_corners=False,
    )
    out = out + amount * torch.where(_some(rows, 0.5, generator), fine, 1.5 * coarse)
    return out.clamp(-1, 1)


def spoil(images: torch.Tensor, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Over-sharpen, over-contrast and over-saturate, as guidance that is too strong does, and say how bad it became.

    `images` is float (B, 3, H, W) in [-1, 1]. Returns the spoilt pictures, clamped to it, and the mean absolute change
    of each, (B,) in [0, 2]: black on white cannot be spoilt by contrast, and then the change is small.
    """
    rows = images.shape[0]
    soft = F.avg_pool2d(F.pad(images, (2, 2, 2, 2), mode="replicate"), 5, stride=1)
    out = images + _uniform(rows, 0, 3, generator) * _some(rows, 0.6, generator) * (images - soft)
    middle = 0.5 * torch.rand(rows, 1, 1, 1, generator=generator)
    out = (out - middle) * (1 + _uniform(rows, 0, 1.5, generator) * _some(rows, 0.6, generator)) + middle
    grey = out.mean(dim=1, keepdim=True)
    out = grey + (out - grey) * (1 + _uniform(rows, 0, 1.5, generator) * _some(rows, 0.5, generator))
    rough = torch.randn(rows, 3, images.shape[-2] // 2, images.shape[-1] // 2, generator=generator)
    rough = F.interpolate(rough, size=images.shape[-2:], mode="bilinear", align_corners=False)
    out = out + 0.6 * _uniform(rows, 0, 1, generator) * _some(rows, 0.4, generator) * rough
    out = out.clamp(-1, 1)
    return out, (out - images).abs().mean(dim=(1, 2, 3))
