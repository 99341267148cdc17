"""A flatter or sharper map (arXiv 2506.10978, App. C, Eq. 11)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from pagopt.errors import RecipeError
from pagopt.targets.target import Target
from pagopt.targets.view import View

__all__ = ["Temperature"]


@dataclass(frozen=True)
class Temperature(Target):
    """``T = softmax(log A / tau)``, which is attention with its logits divided by tau: no map.

    Attributes:
        tau: From 1e-6 to 1e12 and not 1. Above 1 is flatter (in the limit: uniform), below 1 sharper (towards the row
            maximum).

    Raises:
        RecipeError: If tau is outside, or is 1.
    """

    name: ClassVar[str] = "temperature"
    tau: float = 2.0

    def __post_init__(self) -> None:
        if not (isinstance(self.tau, int | float) and 1e-6 <= self.tau <= 1e12) or self.tau == 1:
            raise RecipeError(
                f"the tau of temperature must be a number above 0 (1e-6 to 1e12) other than 1, got {self.tau!r}"
            )

    def values(self, view: View, rows: slice) -> Tensor:
        """Attention with another scale."""
        return view.attend(view.q[:, rows], scale=view.scale / self.tau)

    def map(self, view: View, rows: slice) -> Tensor:
        """The softmax of the divided logits."""
        return (view.logits(rows) / self.tau).softmax(dim=-1)
