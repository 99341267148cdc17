"""Which rows of a batch get a perturbed copy, at which block each copy begins, and what is done to it there.

Below the first perturbed block the plain and the perturbed prediction of a row are the same, so a copy is appended to
the batch only there: a recipe whose first perturbed block is ``l`` of ``L`` costs ``L + (L - l)`` block evaluations
instead of ``2 L``. Nothing is approximated.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pagopt.heads import HeadMap
from pagopt.recipe import STRAIGHT, Option, Recipe
from pagopt.targets import Target, make_target

__all__ = ["Fork", "Move", "SiteKey"]

SiteKey = tuple[int, str]  # block and name of an attention site
_Kind = tuple[str, tuple[tuple[str, Option], ...], str]  # target, its options, and path


@dataclass(frozen=True)
class Move:
    """What one target does at one site.

    Attributes:
        target: Where the maps of the selected heads go.
        path: How.
        strengths: u, (copies begun, heads); 0 where a copy does not use this target.
        pairs: The (copy, head) indices of what is not 0, two tensors (P,).
        weights: u of the pairs, (P,).
    """

    target: Target
    path: str
    strengths: Tensor
    pairs: tuple[Tensor, Tensor]
    weights: Tensor

    @property
    def is_dense(self) -> bool:
        """Whether it is cheapest over whole rows: no queries are looked at, and no map is built."""
        return self.path == STRAIGHT and not self.target.needs_queries


@dataclass(frozen=True)
class _Copy:
    start: int
    row: int
    recipe: Recipe


class Fork:
    """The plan of one forward in which some rows are guided.

    The batch holds ``rows`` rows and after them the copies, in the order of the block at which they begin.

    Args:
        rows: Rows of the batch before any copy.
        recipes: For every guided image its row in the batch and its recipe, none of them plain. Several images may
            share a row, as long as they are the same.
        heads: The heads of the model.
        shared: Names of arguments that have no batch dimension.
        at_input: Whether all copies begin before the first block (exact too, but dearer). Needed where the model
            adds batch-first tensors between its blocks, as for a ControlNet.
    """

    def __init__(
        self,
        rows: int,
        recipes: Sequence[tuple[int, Recipe]],
        heads: HeadMap,
        shared: Collection[str] = (),
        at_input: bool = False,
    ) -> None:
        self.rows = rows
        order = sorted(range(len(recipes)), key=lambda i: (_first_block(recipes[i][1]), i))
        copies = [_Copy(_first_block(recipes[i][1]), *recipes[i]) for i in order]
        self.order = order
        """For every copy, the position in ``recipes`` of what it is a copy for."""
        self.sources = [copy.row for copy in copies]
        self.recipes = [copy.recipe for copy in copies]
        self.at_input = at_input
        self._shared = frozenset(shared)
        self._begun = [sum(at_input or copy.start <= block for copy in copies) for block in range(heads.blocks)]
        self._heads = {(site.block, site.name): site.heads for site in heads.sites}
        self.sites: frozenset[SiteKey] = frozenset(
            (head.block, head.site)
            for recipe in self.recipes
            for head, strength in zip(recipe.heads, recipe.strengths, strict=True)
            if strength > 0
        )
        self._tensors: dict[Any, Any] = {}

    def __len__(self) -> int:
        return len(self.sources)

    def begun(self, block: int) -> int:
        """How many copies run through a block."""
        return self._begun[block]

    def enter(self, arguments: Mapping[str, Any], block: int) -> dict[str, Any]:
        """Extend the arguments of a block by the rows that it has to see.

        Tensors from the block before get the copies that begin here; tensors from the pipeline (the time embedding,
        for example) get all copies that have begun.

        Args:
            arguments: Tensors in any nesting of tuples, lists and dicts; those that are batch-first are extended.
            block: Number of the block; the number of blocks stands for what comes after them.
        """
        if self.at_input:
            return dict(arguments)
        last = len(self._begun) - 1
        before = self._begun[block - 1] if block else 0
        return {k: self._extended(k, item, before, self._begun[min(block, last)]) for k, item in arguments.items()}

    def enter_input(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Extend the arguments of the whole transformer by all copies."""
        return {name: self._extended(name, item, 0, len(self)) for name, item in arguments.items()}

    def moves(self, site: SiteKey, like: Tensor) -> tuple[Move, ...]:
        """What to do to the copies at one attention site: one item for each target and path in use there.

        Args:
            site: Block and name of it.
            like: A tensor of the dtype and device wanted.
        """
        key = (site, like.dtype, like.device)
        if key not in self._tensors:
            tables: dict[_Kind, list[list[float]]] = {}
            for number, recipe in enumerate(self.recipes):
                for head, strength in zip(recipe.heads, recipe.strengths, strict=True):
                    if strength > 0 and (head.block, head.site) == site:
                        zeros = [[0.0] * self._heads[site] for _ in range(self._begun[head.block])]
                        kind = (recipe.target, recipe.target_options, recipe.path)
                        tables.setdefault(kind, zeros)[number][head.head] = strength
            self._tensors[key] = tuple(_move(kind, table, like) for kind, table in tables.items())
        found: tuple[Move, ...] = self._tensors[key]
        return found

    def scales(self, cfg: float, like: Tensor) -> Tensor:
        """``w / g`` of every copy, shape (copies,), in the dtype and on the device of ``like``."""
        key = (cfg, like.dtype, like.device)
        if key not in self._tensors:
            values = [recipe.scale / cfg for recipe in self.recipes]
            self._tensors[key] = torch.tensor(values, dtype=like.dtype, device=like.device)
        found: Tensor = self._tensors[key]
        return found

    def index(self, device: torch.device, have: int = 0, want: int | None = None) -> Tensor:
        """The source rows of copies ``have`` to ``want``, as an index tensor."""
        key = ("index", device, have, want)
        if key not in self._tensors:
            self._tensors[key] = torch.tensor(self.sources[have:want], dtype=torch.long, device=device)
        found: Tensor = self._tensors[key]
        return found

    def _extended(self, name: str, value: Any, have: int, want: int) -> Any:
        return value if name in self._shared else self._extend(value, have, want)

    def _extend(self, value: Any, have: int, want: int) -> Any:
        if isinstance(value, Tensor):
            if value.ndim == 0 or value.shape[0] not in (self.rows, self.rows + have):
                return value
            present = value.shape[0] - self.rows
            if present == want:
                return value
            return torch.cat([value, value.index_select(0, self.index(value.device, present, want))])
        if isinstance(value, Mapping):
            return {key: self._extended(key, item, have, want) for key, item in value.items()}
        if type(value) in (list, tuple):
            return type(value)(self._extend(item, have, want) for item in value)
        return value


def _move(kind: _Kind, table: list[list[float]], like: Tensor) -> Move:
    target, options, path = kind
    places = [(i, j) for i, row in enumerate(table) for j, u in enumerate(row) if u > 0]
    copies, heads = (torch.tensor(index, device=like.device) for index in zip(*places, strict=True))
    strengths = torch.tensor(table, dtype=like.dtype, device=like.device)
    return Move(make_target(target, dict(options), path), path, strengths, (copies, heads), strengths[copies, heads])


def _first_block(recipe: Recipe) -> int:
    return min(head.block for head, strength in zip(recipe.heads, recipe.strengths, strict=True) if strength > 0)
