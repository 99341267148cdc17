"""Every token attends to itself alone (SoftPAG, arXiv 2506.10978, Eq. 6 and 7; PAG, arXiv 2403.17377)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from pagopt.targets.target import Target, one_hot
from pagopt.targets.view import View

__all__ = ["Identity", "ImageIdentity"]


@dataclass(frozen=True)
class Identity(Target):
    """``T = I`` over the whole joint map: image and text tokens alike. ``T V = V``."""

    name: ClassVar[str] = "identity"
    needs_queries: ClassVar[bool] = False
    full_support: ClassVar[bool] = False

    def values(self, view: View, rows: slice) -> Tensor:
        """V of the same tokens."""
        return view.own(rows)

    def map(self, view: View, rows: slice) -> Tensor:
        """Rows of the identity matrix."""
        index = torch.arange(rows.start, rows.stop, device=view.v.device)
        return one_hot(index, view.logits(rows))


@dataclass(frozen=True)
class ImageIdentity(Identity):
    """``T = I`` in the rows of the image tokens; text tokens keep their attention."""

    name: ClassVar[str] = "image_identity"
    rows: ClassVar[Literal["all", "image"]] = "image"
