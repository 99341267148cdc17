"""What a target sees of one attention site: queries, keys and values of the selected heads, and which tokens are which.

Shapes here: P is the number of selected (row, head) pairs, S the number of tokens of the joint map, D the width of a
head.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["MAP_BYTES", "View", "chunks", "widened"]

MAP_BYTES = 2**26
"""Where a map has to be built, no piece of it is larger than this (64 MiB), or than one query row of one head."""


@dataclass(eq=False)
class View:
    """One attention site during one forward, for the selected heads.

    Attributes:
        values: V of each stream of tokens, in the order of the map; their first dimension is P, their second the
            stream's tokens. Targets that use nothing else (``needs_queries`` is false) must treat further dimensions
            alike: they get (rows, tokens, heads * width) where that is cheaper.
        image: The image tokens in the map.
        text: The text tokens in the map; empty where the site sees none.
        grid: Rows and columns of the image tokens, read line by line.
        project: Gives Q and K, each (P, S, D), normalised and with their rotary embedding, as the kernel gets them.
            Where the model adds to the logits, both have a few columns more, see :func:`widened`.
        mask: True where a token may be looked at, (P, S); ``None`` where all may.
    """

    values: Sequence[Tensor]
    image: slice
    text: slice
    grid: tuple[int, int] | None = None
    project: Callable[[], tuple[Tensor, Tensor]] | None = None
    mask: Tensor | None = None
    _projected: tuple[Tensor, Tensor] | None = field(default=None, init=False, repr=False)

    @cached_property
    def v(self) -> Tensor:
        """V of all tokens, (P, S, D)."""
        return self.values[0] if len(self.values) == 1 else torch.cat(list(self.values), dim=1)

    @property
    def q(self) -> Tensor:
        """Q of all tokens, (P, S, D)."""
        return self._queries_and_keys()[0]

    @property
    def k(self) -> Tensor:
        """K of all tokens, (P, S, D)."""
        return self._queries_and_keys()[1]

    def _queries_and_keys(self) -> tuple[Tensor, Tensor]:
        if self._projected is None:
            assert self.project is not None, "a target that looks at queries or keys must say needs_queries = True"
            self._projected = self.project()
        return self._projected

    @property
    def tokens(self) -> int:
        """S."""
        return sum(part.shape[1] for part in self.values)

    @property
    def scale(self) -> float:
        """What logits are multiplied by, 1 / sqrt(D)."""
        return float(self.values[0].shape[-1] ** -0.5)

    def own(self, rows: slice) -> Tensor:
        """V of the tokens ``rows`` of the map."""
        start = 0
        for part in self.values:
            stop = start + part.shape[1]
            if start <= rows.start and rows.stop <= stop:
                return part[:, rows.start - start : rows.stop - start]
            start = stop
        return self.v[:, rows]

    def attend(self, queries: Tensor, scale: float | None = None) -> Tensor:
        """Attention of other queries (P, n, D) to the keys and values of this site: (P, n, D), by a fused kernel."""
        mask = None if self.mask is None else self.mask[:, None, None, :]
        width = self.v.shape[-1]
        wider = self.k.shape[-1] - width  # the fast kernels want V as wide as K
        found = F.scaled_dot_product_attention(
            queries[:, None].contiguous(),
            self.k[:, None],
            (F.pad(self.v, (0, wider)) if wider else self.v)[:, None],
            attn_mask=mask,
            scale=self.scale if scale is None else scale,
        )
        return found[:, 0, :, :width]

    def logits(self, rows: slice) -> Tensor:
        """Logits of the query tokens ``rows`` for all keys, (P, n, S), at least in float32; -inf where masked."""
        kind = torch.promote_types(self.q.dtype, torch.float32)
        logits = self.q[:, rows].to(kind) @ self.k.to(kind).mT * self.scale
        return logits if self.mask is None else logits.masked_fill(~self.mask[:, None, :], -torch.inf)

    def map(self, rows: slice) -> Tensor:
        """The attention map A of the query tokens ``rows``, (P, n, S)."""
        return self.logits(rows).softmax(dim=-1)

    def part(self, pairs: slice) -> View:
        """The same view of some of the pairs."""
        return View(
            values=[part[pairs] for part in self.values],
            image=self.image,
            text=self.text,
            grid=self.grid,
            project=lambda: (self.q[pairs], self.k[pairs]),
            mask=None if self.mask is None else self.mask[pairs],
        )


def widened(queries: Tensor, keys: Tensor, soft: Tensor) -> tuple[Tensor, Tensor]:
    """Q and K with columns more, whose part in the logits is what a soft mask adds to them.

    So every function of queries or logits (their mean, their blur, another temperature) takes the soft mask along.

    Args:
        queries: (P, S, D).
        keys: The same.
        soft: The numbers of :meth:`pagopt.models.Family.soft_mask`, (P, S).

    Returns:
        Both (P, S, D + 8): fused kernels take no odd widths.
    """
    column = F.pad(soft[..., None].to(queries.dtype), (0, 7))
    return torch.cat([queries, column * queries.shape[-1] ** 0.5], dim=-1), torch.cat([keys, column], dim=-1)


def chunks(pairs: int, rows: slice, tokens: int) -> Iterator[tuple[slice, slice]]:
    """Pieces (pairs, query rows) whose float32 maps are at most :data:`MAP_BYTES` each."""
    area = MAP_BYTES // (4 * tokens)
    deep = max(1, min(pairs, area // min(64, rows.stop - rows.start)))
    long = max(1, area // deep)
    for first in range(0, pairs, deep):
        for start in range(rows.start, rows.stop, long):
            yield slice(first, min(first + deep, pairs)), slice(start, min(start + long, rows.stop))
