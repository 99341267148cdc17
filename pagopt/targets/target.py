"""What a perturbation target is: one small class with one method."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Literal

import torch
from torch import Tensor

from pagopt.targets.view import View

__all__ = ["Target"]


class Target(ABC):
    """The map T that the maps of perturbed heads move towards.

    A target of your own is a subclass, usually a frozen dataclass whose fields are its options, made known by
    :func:`pagopt.targets.register_target`.

    Attributes:
        name: What recipes call it.
        needs_queries: Whether it looks at queries, keys or maps. Where it does not, none are computed for it, and its
            tensors may have a shape of (rows, tokens, heads * width) in place of (P, tokens, D).
        rows: The query tokens that are perturbed; the others keep their attention.
        full_support: Whether no entry of T is zero where A is not; paths in log A need that.
    """

    name: ClassVar[str]
    needs_queries: ClassVar[bool] = True
    rows: ClassVar[Literal["all", "image"]] = "all"
    full_support: ClassVar[bool] = True

    @abstractmethod
    def values(self, view: View, rows: slice) -> Tensor:
        """``T V`` for the query tokens ``rows``: (P, n, D), or a shape that broadcasts to it.

        Called once for each stream of tokens, or piece of it, in each guided forward.
        """

    def check_site(self, sees_text: bool) -> None:  # noqa: B027, most targets mean something everywhere
        """Raise a RecipeError where the target means nothing. Called for each perturbed site, before anything runs.

        Args:
            sees_text: Whether there are text tokens in the site's map.
        """

    def map(self, view: View, rows: slice) -> Tensor:
        """``T`` itself for the query tokens ``rows``: (P, n, S). Only paths other than the straight one ask for it."""
        raise NotImplementedError(
            f"the target {self.name!r} gives no explicit map, so only the straight path can use it"
        )


def one_hot(index: Tensor, like: Tensor) -> Tensor:
    """Rows with a single one at ``index``, in the shape and dtype of ``like``."""
    return torch.zeros_like(like).scatter_(-1, index[..., None].expand(*like.shape[:-1], 1), 1.0)
