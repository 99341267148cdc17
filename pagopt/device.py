"""What the kinds of devices do not have in common."""

from __future__ import annotations

import gc

import torch

__all__ = ["free_memory", "is_out_of_memory", "widest"]


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
