"""What the kinds of devices, and the releases of torch, do not have in common."""

from __future__ import annotations

import gc
from functools import cache

import torch

__all__ = ["HALF", "free_memory", "half_has_noise_of_its_own", "is_out_of_memory", "widest"]

HALF = (torch.float16, torch.bfloat16)


@cache
def half_has_noise_of_its_own() -> bool:
    """Before torch 2.12, one seed gives other noise in half precision than in float32, and so other pictures."""
    dtypes = (torch.bfloat16, torch.float32)
    half, full = (torch.randn(64, generator=torch.Generator().manual_seed(0), dtype=dtype).float() for dtype in dtypes)
    return not torch.allclose(half, full, rtol=0.01, atol=0.01)


def widest(device: torch.device) -> torch.dtype:
    """The widest numbers that it computes with: float64; on Apple's GPUs, which have none, float32."""
    return torch.float32 if device.type == "mps" else torch.float64


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a GPU's memory was too small. Torch has a class for that, which it does not use for Apple's GPUs."""
    return isinstance(error, torch.OutOfMemoryError) or "MPS backend out of memory" in str(error)


def free_memory() -> None:
    """Give back what is held of a GPU's memory, and not in use."""
    gc.collect()
    torch.cuda.empty_cache()
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()
