"""What the guide has to know about a family of models: where its heads are and which modules to watch.

A family is one file beside this one; it declares the anatomy and does no arithmetic.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import nn

from pagopt.errors import ModelError
from pagopt.heads import HeadMap

__all__ = ["Attention", "Family", "Stream", "Tap"]


@dataclass(frozen=True, eq=False)
class Tap:
    """A module whose output ends with the values V.

    Attributes:
        module: The projection.
        parts: V is the last ``1 / parts`` of its output's last dimension: 1 for a value projection, 3 for a
            fused query-key-value one.
    """

    module: nn.Module
    parts: int


@dataclass(frozen=True, eq=False)
class Stream:
    """One run of tokens in an attention, with projections of its own.

    Attributes:
        values: The projections that can give V; exactly one of them runs in each forward.
        output: The projection whose input is the attention's output for these tokens, of shape (rows, tokens,
            heads * width), or ``None`` where the model throws that output away.
    """

    values: tuple[Tap, ...]
    output: nn.Module | None


@dataclass(frozen=True, eq=False)
class Attention:
    """One attention site of a loaded transformer.

    Attributes:
        block: Block it belongs to.
        site: Its name there.
        heads: Number of heads.
        module: The attention module.
        streams: In the order of the tokens in the joint map.
    """

    block: int
    site: str
    heads: int
    module: nn.Module
    streams: tuple[Stream, ...]

    @property
    def key(self) -> tuple[int, str]:
        """Block and name."""
        return self.block, self.site


class Family(ABC):
    """A family of models. Stateless: everything is asked of the transformer that is handed in.

    Attributes:
        name: Short name, such as ``"sd3"``.
        transformer: Class name of its transformer.
        pipelines: Class names of its pipelines; they call the transformer on [unconditional, conditional]
            rows under CFG and on the conditional rows alone without.
        processors: Class names of the attention processors whose arithmetic is known: softmax attention of
            all streams jointly, then the output projections and nothing between.
    """

    name: ClassVar[str]
    transformer: ClassVar[str]
    pipelines: ClassVar[tuple[str, ...]]
    processors: ClassVar[frozenset[str]]

    @abstractmethod
    def head_map_from_config(self, config: Mapping[str, Any]) -> HeadMap:
        """The addressable heads, from the transformer's configuration alone."""

    @abstractmethod
    def blocks(self, transformer: nn.Module) -> Sequence[nn.Module]:
        """The blocks in the order of execution. Every tensor argument of theirs is batch-first."""

    @abstractmethod
    def attentions(self, transformer: nn.Module) -> Sequence[Attention]:
        """All attention sites, in the order of :meth:`head_map_from_config`."""

    @abstractmethod
    def tail(self, transformer: nn.Module) -> Sequence[nn.Module]:
        """Modules after the blocks that take a batch-first tensor from before them, such as the time
        embedding."""

    def head_map(self, transformer: nn.Module) -> HeadMap:
        """The addressable heads of a loaded transformer."""
        config: Any = transformer.config
        return self.head_map_from_config(config)

    def check_processor(self, attention: Attention) -> None:
        """Make sure that an attention is computed in a way that is known, so that perturbing it means
        something.

        Raises:
            ModelError: If its processor is another; names it.
        """
        name = type(getattr(attention.module, "processor", None)).__name__
        if name not in self.processors:
            raise ModelError(
                f"{attention.site} of block L{attention.block} is computed by {name}, whose arithmetic pagopt "
                "does not know (an IP-Adapter, or a processor set by other code?); known: "
                f"{', '.join(sorted(self.processors))}"
            )
