"""Image tokens ask a blurred question: smoothed energy guidance (SEG, arXiv 2408.00760)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from pagopt.device import widest
from pagopt.errors import RecipeError
from pagopt.targets.target import Target
from pagopt.targets.view import View

__all__ = ["Blur", "gaussian"]


def gaussian(size: int, sigma: float, like: Tensor) -> Tensor:
    """The matrix (size, size) that blurs along one side: Gaussian rows, each summing to 1 also at the border."""
    place = torch.arange(size, device=like.device, dtype=widest(like.device))
    weights = torch.exp(-((place[:, None] - place) ** 2) / (2 * sigma**2))
    return (weights / weights.sum(dim=1, keepdim=True)).to(like.dtype)


@dataclass(frozen=True)
class Blur(Target):
    """The queries of the image tokens are blurred over their grid; text tokens keep their attention. No map.

    The kernel is renormalised at the border, so that large sigmas end exactly in the mean over the image (diffusers
    and the authors of SEG mirror the image there).

    Attributes:
        sigma: Standard deviation in tokens, from 1e-6 to 1e12. The limit of large ones is ``mean_query`` over the
            image.

    Raises:
        RecipeError: If sigma is outside.
    """

    name: ClassVar[str] = "blur"
    rows: ClassVar[Literal["all", "image"]] = "image"
    sigma: float = 1.0

    def __post_init__(self) -> None:
        if not (isinstance(self.sigma, int | float) and 1e-6 <= self.sigma <= 1e12):
            raise RecipeError(
                f"the sigma of blur must be a number above 0 (1e-6 to 1e12), in tokens; got {self.sigma!r}"
            )

    def _blurred(self, view: View) -> Tensor:
        queries = view.q[:, view.image]
        assert view.grid is not None
        square = queries.view(queries.shape[0], *view.grid, -1)
        down, across = (gaussian(size, self.sigma, queries) for size in view.grid)
        return torch.einsum("hi,wj,pijd->phwd", down, across, square).flatten(1, 2)

    def values(self, view: View, rows: slice) -> Tensor:
        """What the blurred queries see."""
        return view.attend(self._blurred(view)[:, rows.start - view.image.start : rows.stop - view.image.start])

    def map(self, view: View, rows: slice) -> Tensor:
        """The map of the blurred queries."""
        queries = self._blurred(view)[:, rows.start - view.image.start : rows.stop - view.image.start]
        own = view.logits(rows)
        logits = queries.to(own.dtype) @ view.k.to(own.dtype).mT * view.scale
        return logits.masked_fill(own.isneginf(), -torch.inf).softmax(dim=-1)
