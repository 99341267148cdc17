"""Every token asks the mean question (SoftSEG, arXiv 2506.10978, App. C, Eq. 9 and 10).

It is the limit of smoothed energy guidance (SEG, arXiv 2408.00760) for a blur without end.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pagopt.errors import RecipeError
from pagopt.targets.target import Target
from pagopt.targets.view import View

__all__ = ["MeanQuery"]

OVER = ("all", "image", "text")


@dataclass(frozen=True)
class MeanQuery(Target):
    """Every row of T is ``softmax(mean(Q) K^T / sqrt(D))``: one more row of attention, no map.

    Attributes:
        over: The tokens whose queries are averaged: "all", "image" or "text".

    Raises:
        RecipeError: If ``over`` is something else, or "text" where a site sees no text.
    """

    name: ClassVar[str] = "mean_query"
    over: str = "all"

    def __post_init__(self) -> None:
        if self.over not in OVER:
            raise RecipeError(f"mean_query averages over {', '.join(OVER)}; got {self.over!r}")

    def check_site(self, sees_text: bool) -> None:
        """Text has to be there to be averaged."""
        if self.over == "text" and not sees_text:
            raise RecipeError("mean_query over text cannot be used at a site that sees image tokens alone")

    def _mean(self, view: View) -> Tensor:
        span = {"all": slice(0, view.tokens), "image": view.image, "text": view.text}[self.over]
        queries = view.q[:, span]
        if view.mask is None:
            return queries.mean(dim=1, keepdim=True)
        seen = view.mask[:, span, None].to(queries.dtype)
        kind = torch.promote_types(queries.dtype, torch.float32)  # a sum over thousands of tokens overflows float16
        total = (seen * queries).sum(dim=1, keepdim=True, dtype=kind)
        return (total / seen.sum(dim=1, keepdim=True, dtype=kind).clamp(min=1)).to(queries.dtype)

    def values(self, view: View, rows: slice) -> Tensor:
        """What the mean query sees, the same for every row."""
        return view.attend(self._mean(view)).expand(-1, rows.stop - rows.start, -1)

    def map(self, view: View, rows: slice) -> Tensor:
        """The row of the mean query, repeated."""
        logits = view.logits(slice(0, 1))
        mean = self._mean(view).to(logits.dtype) @ view.k.to(logits.dtype).mT * view.scale
        masked = mean.masked_fill(logits.isneginf(), -float("inf"))
        return masked.softmax(dim=-1).expand(-1, rows.stop - rows.start, -1)
