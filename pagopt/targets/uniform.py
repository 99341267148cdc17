"""Every token attends to all alike (SoftUG, arXiv 2506.10978, App. C, Eq. 8)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pagopt.device import widest
from pagopt.targets.target import Target
from pagopt.targets.view import View

__all__ = ["Uniform"]


@dataclass(frozen=True)
class Uniform(Target):
    """``T = 1 / S``: ``T V`` is the mean of V over all tokens that may be looked at."""

    name: ClassVar[str] = "uniform"
    needs_queries: ClassVar[bool] = False

    def values(self, view: View, rows: slice) -> Tensor:
        """The mean of V, the same for every row."""
        half = view.values[0].dtype
        kind = torch.promote_types(half, torch.float32)  # a sum over thousands of tokens overflows float16
        if view.mask is None:
            total = sum(part.sum(dim=1, keepdim=True, dtype=kind) for part in view.values)
            assert isinstance(total, Tensor)
            mean = total / view.tokens
        else:
            seen = view.mask[..., None].to(half)
            mean = (seen * view.v).sum(dim=1, keepdim=True, dtype=kind) / seen.sum(dim=1, keepdim=True, dtype=kind)
        return mean.to(half).expand(-1, rows.stop - rows.start, -1)

    def map(self, view: View, rows: slice) -> Tensor:
        """1 / S in every place that may be looked at."""
        logits = view.logits(rows)
        seen = logits.isneginf().logical_not().to(widest(logits.device))
        return (seen / seen.sum(dim=-1, keepdim=True)).to(logits.dtype)
