"""Every token attends to the one it attends to most (SoftMG, arXiv 2506.10978, App. C, Eq. 12 and 13)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pagopt.targets.target import Target, one_hot
from pagopt.targets.view import View, chunks

__all__ = ["RowMaximum"]


@dataclass(frozen=True)
class RowMaximum(Target):
    """One-hot at the largest entry of each row of A (the first of equals). Logits are built piece by piece."""

    name: ClassVar[str] = "row_maximum"
    full_support: ClassVar[bool] = False

    def values(self, view: View, rows: slice) -> Tensor:
        """V of the token that is looked at most."""
        pairs, width = view.v.shape[0], view.v.shape[-1]
        found = view.v.new_empty(pairs, rows.stop - rows.start, width)
        for some, piece in chunks(pairs, rows, view.tokens):
            part = view.part(some)
            best = part.logits(piece).argmax(dim=-1)[..., None].expand(-1, -1, width)
            found[some, piece.start - rows.start : piece.stop - rows.start] = torch.gather(part.v, 1, best)
        return found

    def map(self, view: View, rows: slice) -> Tensor:
        """The one-hot rows."""
        logits = view.logits(rows)
        return one_hot(logits.argmax(dim=-1), logits)
