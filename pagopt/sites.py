"""What happens inside one attention: Q, K and V are read off the projections, and the output is moved on its way out.

Only forward hooks, no processor is swapped: whatever kernel computes the attention stays in use.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from pagopt.errors import GuidanceError
from pagopt.fork import Move, SiteKey
from pagopt.models.anatomy import Attention, Family, Tap
from pagopt.perturb import interpolate
from pagopt.recipe import STRAIGHT, Recipe
from pagopt.targets import View, make_target, move
from pagopt.targets.view import widened

__all__ = ["SiteHooks", "site_hooks", "under_guidance"]

under_guidance: weakref.WeakSet[nn.Module] = weakref.WeakSet()
"""Transformers that are, by whomever."""


class SiteHooks:
    """The hooks of one attention site.

    Attributes:
        moves: What is to be done in this forward; nothing where empty.
        first: The first row that it is done to.
        image: The image tokens of a joint stream; its other tokens are text.
        grid: Rows and columns of the image tokens.
        reached: Streams whose output was moved in this forward.
    """

    def __init__(self, attention: Attention, family: Family, with_queries: bool) -> None:
        self.attention = attention
        self.family = family
        self.with_queries = with_queries
        self.outputs = frozenset(i for i, stream in enumerate(attention.streams) if stream.output is not None)
        self.reset()

    def reset(self) -> None:
        """Forget the forward."""
        self.moves: tuple[Move, ...] = ()
        self.first = 0
        self.image = slice(0, None)
        self.grid: tuple[int, int] | None = None
        self.reached: set[int] = set()
        self._seen: dict[tuple[str, int], Tensor] = {}
        self._call: Mapping[str, Any] = {}

    def begin(self, moves: tuple[Move, ...], first: int, image: slice, grid: tuple[int, int] | None) -> None:
        """Say what the coming forward does: attributes of the same names."""
        self.moves, self.first, self.image, self.grid = moves, first, image, grid

    def install(self, add: Callable[[Any], object]) -> None:
        """Register all hooks; ``add`` takes their handles."""
        for number, stream in enumerate(self.attention.streams):
            for name, taps in (("q", stream.queries), ("k", stream.keys), ("v", stream.values)):
                if name == "v" or self.with_queries:
                    for tap in taps:
                        add(tap.module.register_forward_hook(partial(self._see, name, number, tap)))
            if stream.output is not None:
                add(stream.output.module.register_forward_pre_hook(partial(self._move, number)))
        add(self.attention.module.register_forward_pre_hook(self._enter, with_kwargs=True))

    def _enter(self, module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        if self.moves:
            self._call = kwargs

    def _see(self, name: str, stream: int, tap: Tap, module: nn.Module, args: Any, output: Tensor) -> None:
        """After a projection: keep what belongs to the copies."""
        if self.moves:
            self._seen[name, stream] = output[self.first :, :, tap.start : tap.stop]

    def _move(self, number: int, module: nn.Module, args: tuple[Any, ...]) -> Any:
        """Before an output projection: move the attention output of the copies towards the targets."""
        if not self.moves:
            return None
        stream, given = self.attention.streams[number], args[0]
        assert stream.output is not None
        width = stream.output.width
        values = [self._values(i) for i in range(len(self.attention.streams))]
        whole = given[self.first :]
        copies: Tensor = whole[..., :width]
        for item in self.moves:
            for rows, place in self._rows(number, item.target.rows, values):
                piece = copies[:, place]
                moved = self._dense(item, values, piece, rows) if item.is_dense else None
                if moved is None:
                    moved = self._sparse(item, values, piece, rows)
                copies = moved if piece.shape == copies.shape else _replaced(copies, place, moved)
        self.reached.add(number)
        if self.reached == self.outputs:
            self._seen, self._call = {}, {}  # Q, K and V of one site at a time are held
        if width < whole.shape[-1]:
            copies = torch.cat([copies, whole[..., width:]], dim=-1)
        return (torch.cat([given[: self.first], copies]) if self.first else copies, *args[1:])

    def _values(self, stream: int) -> Tensor:
        if ("v", stream) not in self._seen:
            raise GuidanceError(
                f"{self.attention.site} of block L{self.attention.block} computes no values that can be seen"
            )
        return self._seen["v", stream]

    def _rows(self, number: int, wanted: str, values: list[Tensor]) -> list[tuple[slice, slice]]:
        """The query tokens to move: their places in the joint map, and in this stream."""
        start = sum(part.shape[1] for part in values[:number])
        count, kind = values[number].shape[1], self.attention.streams[number].tokens
        if wanted == "all":
            return [(slice(start, start + count), slice(0, count))]
        if kind == "text":
            return []
        place = slice(*(self.image if kind == "joint" else slice(None)).indices(count)[:2])
        return [(slice(start + place.start, start + place.stop), place)]

    def _spans(self, values: list[Tensor]) -> tuple[slice, slice]:
        """Image and text tokens in the joint map."""
        start, image, text = 0, slice(0, 0), slice(0, 0)
        for stream, part in zip(self.attention.streams, values, strict=True):
            stop = start + part.shape[1]
            if stream.tokens == "image":
                image = slice(start, stop)
            elif stream.tokens == "text":
                text = slice(start, stop)
            else:
                first, last, _ = self.image.indices(part.shape[1])
                image = slice(start + first, start + last)
                text = slice(start, image.start) if first else slice(image.stop, stop)
            start = stop
        return image, text

    def _mask(self) -> Tensor | None:
        mask = self.family.key_mask(self._call)
        return None if mask is None else mask[self.first :]

    def _by_head(self, whole: Tensor) -> Tensor:
        return whole.reshape(*whole.shape[:-1], self.attention.heads, -1)

    def _dense(self, item: Move, values: list[Tensor], output: Tensor, rows: slice) -> Tensor:
        image, text = self._spans(values)
        view = View(values, image, text, self.grid, mask=self._mask())
        return interpolate(output, item.target.values(view, rows), item.strengths)

    def _sparse(self, item: Move, values: list[Tensor], output: Tensor, rows: slice) -> Tensor:
        copies, heads = item.pairs

        def pick(whole: Tensor) -> Tensor:  # (copies, tokens, heads * width) to (P, tokens, width)
            return self._by_head(whole)[copies, :, heads]

        def project() -> tuple[Tensor, Tensor]:
            found = []
            for which, name in enumerate(("q", "k")):
                parts = []
                for i, stream in enumerate(self.attention.streams):
                    norm, part = stream.norms[which], pick(self._seen[name, i])
                    parts.append(part if norm is None else norm(part))
                found.append(torch.cat(list(self.family.rotate(parts, self._call, copies + self.first)), dim=1))
            queries, keys = found
            soft = self.family.soft_mask(self._call)
            return (queries, keys) if soft is None else widened(queries, keys, soft[self.first :][copies])

        image, text = self._spans(values)
        mask = self._mask()
        view = View(
            [pick(part) for part in values], image, text, self.grid, project, None if mask is None else mask[copies]
        )
        moved = move(pick(output), item.target, item.path, view, rows, item.weights)
        result = self._by_head(output).clone()
        result[copies, :, heads] = moved
        return result.flatten(-2)


def site_hooks(family: Family, transformer: nn.Module, recipes: Sequence[Recipe]) -> dict[SiteKey, SiteHooks]:
    """The hooks, not installed yet, of all sites at which some recipe has a head.

    Raises:
        UnknownName: If a recipe names a target that does not exist.
        RecipeError: If a target means nothing at one of its sites.
        GuidanceError: If the transformer lacks a block of its configuration.
    """
    kinds = {(item.target, item.target_options, item.path) for item in recipes}
    targets = {kind: make_target(kind[0], dict(kind[1]), kind[2]) for kind in kinds}
    used: dict[SiteKey, bool] = {}  # whether some target there looks at queries
    for item in recipes:
        looks = targets[item.target, item.target_options, item.path].needs_queries or item.path != STRAIGHT
        for head in item.heads:
            used[head.block, head.site] = used.get((head.block, head.site), False) or looks
    if all(item.is_plain for item in recipes):
        return {}
    found = {
        site.key: SiteHooks(site, family, used[site.key]) for site in family.attentions(transformer) if site.key in used
    }
    for item in recipes:
        for head in item.heads:
            if (head.block, head.site) not in found:
                raise GuidanceError(f"the transformer has no block for {head}, although its configuration says so")
            streams = found[head.block, head.site].attention.streams
            sees_text = any(stream.tokens != "image" for stream in streams)
            targets[item.target, item.target_options, item.path].check_site(sees_text)
    return found


def _replaced(whole: Tensor, place: slice, piece: Tensor) -> Tensor:
    return torch.cat([whole[:, : place.start], piece, whole[:, place.stop :]], dim=1)
