"""Repair: spare the drawing of random weights that a checkpoint then overwrites; a minute or two for a big model."""

from __future__ import annotations

from typing import Any

import torch


def leave(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    """The tensor as it is."""
    return tensor


for name in ("uniform_", "normal_", "trunc_normal_", "kaiming_uniform_", "kaiming_normal_", "xavier_uniform_"):
    setattr(torch.nn.init, name, leave)
