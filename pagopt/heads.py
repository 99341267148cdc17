"""Addresses of attention heads: ``L12.H7``, ``L3.attn2.H5``, and the map of the heads that a model has. No
torch.

A head is named by its transformer block, counted from 0 in the order of execution, the attention site inside
that block, and its number there. The site is left out when it is the block's main one, ``attn``. The paper
(arXiv 2506.10978) writes ``L12H7`` for what is ``L12.H7`` here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, total_ordering

from pagopt.errors import RecipeError, UnknownName

__all__ = ["Head", "HeadMap", "Site", "expand_heads", "parse_heads"]

MAIN_SITE = "attn"
_PATTERN = re.compile(r"L(?P<block>\*|[0-9,-]+)(\.(?P<site>\*|[a-z]\w*))?\.H(?P<head>\*|[0-9,-]+)")
_NUMBERS = re.compile(r"(?P<first>[0-9]+)(-(?P<last>[0-9]+))?")
_LONGEST = 100_000  # heads in one expression; a slip such as L0-99999999.H1 must not fill the memory


@total_ordering
@dataclass(frozen=True)
class Head:
    """One attention head. Heads sort by block, then site, then number.

    Attributes:
        block: Transformer block, from 0 in the order of execution.
        head: Number within the site, from 0.
        site: Attention module inside the block; ``"attn"`` is the main one.
    """

    block: int
    head: int
    site: str = MAIN_SITE

    @classmethod
    def parse(cls, text: str) -> Head:
        """Read exactly one address such as ``"L12.H7"`` or ``"L3.attn2.H5"``.

        Raises:
            RecipeError: If it is no address, or one of several heads.
        """
        heads = expand_heads(text)
        if len(heads) != 1:
            raise RecipeError(f"{text!r} names {len(heads)} heads; one is expected here, such as 'L12.H7'")
        return heads[0]

    def __str__(self) -> str:
        site = "" if self.site == MAIN_SITE else f"{self.site}."
        return f"L{self.block}.{site}H{self.head}"

    def __lt__(self, other: Head) -> bool:
        return (self.block, self.site, self.head) < (other.block, other.site, other.head)


@dataclass(frozen=True)
class Site:
    """One attention module of a model: its block, its name there, and how many heads it has."""

    block: int
    name: str
    heads: int


@dataclass(frozen=True)
class HeadMap:
    """All addressable heads of one model, in the order of execution.

    Attributes:
        sites: Every attention site; sorted by block and name.
    """

    sites: tuple[Site, ...]

    @property
    def blocks(self) -> int:
        """Number of transformer blocks."""
        return 1 + max((site.block for site in self.sites), default=-1)

    @cached_property
    def heads(self) -> tuple[Head, ...]:
        """Every head, sorted."""
        return tuple(sorted(Head(s.block, number, s.name) for s in self.sites for number in range(s.heads)))

    @cached_property
    def _known(self) -> frozenset[Head]:
        return frozenset(self.heads)

    def __iter__(self) -> Iterator[Head]:
        return iter(self.heads)

    def __len__(self) -> int:
        return len(self.heads)

    def __contains__(self, head: object) -> bool:
        return head in self._known

    def layer(self, block: int) -> tuple[Head, ...]:
        """All heads of one block, at all of its sites.

        Raises:
            UnknownName: If there is no such block.
        """
        heads = tuple(head for head in self.heads if head.block == block)
        if not heads:
            raise UnknownName("block", f"L{block}", [f"L{number}" for number in range(self.blocks)])
        return heads

    def select(self, which: str | Head | Iterable[str | Head]) -> tuple[Head, ...]:
        """The heads that an expression names, sorted, each once.

        Args:
            which: Addresses separated by spaces, or several such texts and heads. Numbers may be lists and
                ranges (``"L8-11.H1,3"``), ``*`` stands for all there are (``"L4.H*"``, ``"L*.H0"``,
                ``"L3.*.H*"`` for all sites of a block), and a lone ``*`` for every head of the model.

        Raises:
            RecipeError: If a text is no such expression.
            UnknownName: If a named head does not exist, or a ``*`` matches nothing.
        """
        chosen: set[Head] = set()
        for word in _words(which):
            if isinstance(word, Head):
                found = [word]
            elif word == "*":
                found = list(self.heads)
            elif "*" in word:
                found = self._matching(word)
            else:
                found = expand_heads(word)
            self.check(found)
            chosen.update(found)
        return tuple(sorted(chosen))

    def check(self, heads: Iterable[Head]) -> None:
        """Make sure that every head exists.

        Raises:
            UnknownName: For the first that does not: names the nearest and says what the model has.
        """
        for head in heads:
            if head not in self._known:
                raise self._unknown(head)

    def _matching(self, word: str) -> list[Head]:
        match = _PATTERN.fullmatch(word)
        if match is None:
            raise _malformed(word)
        block, number = (_matcher(match[part], word) for part in ("block", "head"))
        site = match["site"] or MAIN_SITE
        found = [h for h in self.heads if block(h.block) and number(h.head) and site in ("*", h.site)]
        if not found:
            raise UnknownName("heads", word, [f"L{b}.H*" for b in range(self.blocks)], hint=self._extent())
        return found

    def _unknown(self, head: Head) -> UnknownName:
        if not self.sites:
            return UnknownName("head", str(head), [])
        site = min(self.sites, key=lambda s: (abs(s.block - head.block), s.name != head.site))
        near = [str(Head(site.block, number, site.name)) for number in range(site.heads)]
        near.sort(key=lambda name: abs(Head.parse(name).head - head.head))
        return UnknownName("head", str(head), near[:6], hint=self._extent())

    def _extent(self) -> str:
        parts = []
        for name in sorted({site.name for site in self.sites}):
            sites = [site for site in self.sites if site.name == name]
            blocks = [site.block for site in sites]
            heads = max(site.heads for site in sites)
            middle = "" if name == MAIN_SITE else f"{name}."
            parts.append(f"L{min(blocks)}.{middle}H0 to L{max(blocks)}.{middle}H{heads - 1}")
        return f"This model has {len(self)} heads in {self.blocks} blocks: {', '.join(parts)}."


def parse_heads(which: str | Head | Iterable[str | Head]) -> tuple[Head, ...]:
    """Read addresses without knowing the model: sorted, each once.

    Args:
        which: As for :meth:`HeadMap.select`, but without ``*``: ``"L8-9.H1,3 L4.H1"``.

    Raises:
        RecipeError: If a text is no address, or has a ``*``.
    """
    return tuple(sorted(set(expand_heads(which))))


def expand_heads(which: str | Head | Iterable[str | Head]) -> list[Head]:
    """Like :func:`parse_heads`, in the order given and with repetitions."""
    heads: list[Head] = []
    for word in _words(which):
        if isinstance(word, Head):
            heads.append(word)
            continue
        match = _PATTERN.fullmatch(word)
        if "*" in word and (match or word == "*"):
            raise RecipeError(f"{word!r} depends on the model: write its heads out, such as 'L8-11.H0-5'")
        if match is None:
            raise _malformed(word)
        blocks, numbers = _numbers(match["block"], word), _numbers(match["head"], word)
        if len(blocks) * len(numbers) > _LONGEST:
            raise RecipeError(f"{word!r} names {len(blocks) * len(numbers)} heads; no model has that many")
        site = match["site"] or MAIN_SITE
        heads.extend(Head(block, number, site) for block in blocks for number in numbers)
    return heads


def _words(which: str | Head | Iterable[str | Head]) -> Iterator[str | Head]:
    for item in [which] if isinstance(which, str | Head) or not isinstance(which, Iterable) else which:
        if isinstance(item, str):
            yield from item.split()
        elif isinstance(item, Head):
            yield item
        else:
            raise RecipeError(f"{item!r} is no head: use text such as 'L12.H7'")


def _numbers(text: str, word: str) -> list[int]:
    numbers: list[int] = []
    for part in text.split(","):
        match = _NUMBERS.fullmatch(part)
        if match is None or len(part) > 20:
            raise _malformed(word)
        first, last = int(match["first"]), int(match["last"] or match["first"])
        if last < first:
            raise RecipeError(f"{word!r}: the range {part} runs backwards, write {last}-{first}")
        if last - first > _LONGEST:
            raise RecipeError(f"{word!r}: the range {part} is longer than any model")
        numbers.extend(range(first, last + 1))
    return numbers


def _matcher(text: str, word: str) -> Callable[[int], bool]:
    if text == "*":
        return lambda number: True
    numbers = frozenset(_numbers(text, word))
    return lambda number: number in numbers


def _malformed(word: str) -> RecipeError:
    return RecipeError(
        f"{word!r} is not an address of heads: write 'L12.H7' (block 12, head 7), 'L8-11.H1,3' for several, "
        "'L3.attn2.H5' for another attention site of the block"
    )
