"""Rows of a batch that are the same, so that they need to be computed only once.

Candidates of a search share their prompts and seeds: until guidance begins, their rows are equal to the last bit, and
in the first guided step only their perturbed copies differ. This holds for the unconditional rows of classifier-free
guidance too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from pagopt.device import widest

__all__ = ["Distinct", "distinct"]


class Distinct:
    """Which rows to keep, and where to find each row afterwards.

    Attributes:
        kept: Of every kept row, its number in the whole batch.
        place: Of every row of the whole batch, its number among the kept ones.
    """

    def __init__(self, kept: list[int], place: list[int], device: torch.device) -> None:
        self.kept, self.place = kept, place
        self._keep = torch.tensor(kept, device=device)
        self._back = torch.tensor(place, device=device)

    def reduce(self, arguments: Mapping[str, Any], shared: frozenset[str]) -> dict[str, Any]:
        """The arguments of the transformer for the kept rows."""
        rows = len(self.place)

        def reduced(value: Any) -> Any:
            if isinstance(value, Tensor):
                return value.index_select(0, self._keep) if _is_batch(value, rows) else value
            if isinstance(value, Mapping):
                return self.reduce(value, shared)
            return type(value)(map(reduced, value)) if type(value) in (list, tuple) else value

        return {name: value if name in shared else reduced(value) for name, value in arguments.items()}

    def expand(self, rows: Tensor) -> Tensor:
        """The whole batch from the kept rows."""
        return rows.index_select(0, self._back)


def distinct(arguments: Mapping[str, Any], rows: int, shared: frozenset[str]) -> Distinct | None:
    """Find equal rows in the arguments of the transformer.

    Args:
        arguments: By name; tensors whose first dimension is ``rows`` count, unless their name is in ``shared``. So do
            those inside of dicts and lists, such as what an IP-Adapter gets.
        rows: Rows of the batch.
        shared: Names of arguments without a batch dimension.

    Returns:
        What to keep, or ``None`` if all rows differ.
    """
    tensors = [value for value in _tensors(arguments, shared) if _is_batch(value, rows)]
    if rows < 2 or not tensors:
        return None
    # A checksum finds candidates; what decides is the comparison of every element.
    wide = widest(tensors[0].device)
    sums = torch.stack([x.reshape(rows, -1).sum(dim=1, dtype=wide) for x in tensors], dim=1).tolist()
    first: dict[tuple[float, ...], int] = {}
    guess = [first.setdefault(tuple(row), number) for number, row in enumerate(sums)]
    if len(first) == rows:
        return None
    index = torch.tensor(guess, device=tensors[0].device)
    same = torch.stack([(x == x.index_select(0, index)).reshape(rows, -1).all(dim=1) for x in tensors]).all(dim=0)
    sources = [there if equal else here for here, (there, equal) in enumerate(zip(guess, same.tolist(), strict=True))]
    kept = sorted(set(sources))
    if len(kept) == rows:
        return None
    number = {row: i for i, row in enumerate(kept)}
    return Distinct(kept, [number[row] for row in sources], tensors[0].device)


def _tensors(value: Any, shared: frozenset[str]) -> Iterator[Tensor]:
    """All tensors in there."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for name, item in value.items():
            if name not in shared:
                yield from _tensors(item, shared)
    elif type(value) in (list, tuple):
        for item in value:
            yield from _tensors(item, shared)


def _is_batch(value: Tensor, rows: int) -> bool:
    return value.ndim > 0 and value.shape[0] == rows
