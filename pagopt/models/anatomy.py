"""What the guide has to know about a family of models: where its heads are and which modules to watch.

A family is one file beside this one; it declares the anatomy and does no arithmetic.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from pagopt.errors import ModelError
from pagopt.heads import HeadMap

__all__ = ["Attention", "Family", "Output", "Stream", "Tap", "double_streams", "split_taps"]


@dataclass(frozen=True, eq=False)
class Tap:
    """A module whose output holds the queries, keys or values of a stream, as they come out of the projection.

    Attributes:
        module: The projection.
        start: First column of them in its output.
        stop: The column after the last.
    """

    module: nn.Module
    start: int
    stop: int


@dataclass(frozen=True, eq=False)
class Output:
    """The module that takes an attention's output.

    Attributes:
        module: Usually the output projection.
        width: The first ``width`` columns of its input are the attention's output, heads * head width.
    """

    module: nn.Module
    width: int


@dataclass(frozen=True, eq=False)
class Stream:
    """One run of tokens in an attention, with projections of its own.

    Attributes:
        tokens: What they are. "joint" is text and then image tokens through the same projections.
        queries: The projections that can give Q; exactly one of them runs in each forward.
        keys: The same for K.
        values: The same for V.
        norms: What normalises Q and K, over the width of a head, where something does.
        output: Where the attention's output for these tokens goes, or ``None`` where the model throws it away.
    """

    tokens: Literal["image", "text", "joint"]
    queries: tuple[Tap, ...]
    keys: tuple[Tap, ...]
    values: tuple[Tap, ...]
    norms: tuple[nn.Module | None, nn.Module | None]
    output: Output | None


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
        pipelines: Class names of its pipelines.
        processors: Class names of the attention processors whose arithmetic is known: softmax attention of
            all streams jointly, then the output projections and nothing between.
        branches: How its pipelines do classifier-free guidance: "batch" calls the transformer once on
            [unconditional, conditional] rows, "calls" on the conditional and then on the unconditional ones.
        shared: Names of arguments of the transformer and its blocks that have no batch dimension.
        residuals: Names of arguments of the transformer, batch-first, that are added between its blocks, as by a
            ControlNet. Where one is given, the copies join at the input.
        time_divisor: The pipeline hands on a timestep divided by this.
    """

    name: ClassVar[str]
    transformer: ClassVar[str]
    pipelines: ClassVar[tuple[str, ...]]
    processors: ClassVar[frozenset[str]]
    branches: ClassVar[Literal["batch", "calls"]] = "batch"
    shared: ClassVar[frozenset[str]] = frozenset()
    residuals: ClassVar[frozenset[str]] = frozenset()
    time_divisor: ClassVar[float] = 1.0

    @abstractmethod
    def head_map_from_config(self, config: Mapping[str, Any]) -> HeadMap:
        """The addressable heads, from the transformer's configuration alone."""

    @abstractmethod
    def blocks(self, transformer: nn.Module) -> Sequence[nn.Module]:
        """The blocks in the order of execution. Their tensor arguments are batch-first, but for :attr:`shared`."""

    @abstractmethod
    def attentions(self, transformer: nn.Module) -> Sequence[Attention]:
        """All attention sites, in the order of :meth:`head_map_from_config`."""

    @abstractmethod
    def tail(self, transformer: nn.Module) -> Sequence[nn.Module]:
        """Modules after the blocks that take a batch-first tensor from before them, such as the time
        embedding."""

    @abstractmethod
    def grid(self, given: Mapping[str, Any], transformer: nn.Module) -> tuple[int, int]:
        """Rows and columns of the image tokens, from the arguments of the transformer."""

    def rotate(self, parts: Sequence[Tensor], call: Mapping[str, Any]) -> Sequence[Tensor]:
        """Put the positions into queries or keys.

        Args:
            parts: Normalised queries or keys of each stream, (P, tokens, width of a head).
            call: The keyword arguments of the attention module.

        Returns:
            The same shapes; as they are where a family has no rotary embedding.
        """
        return parts

    def key_mask(self, call: Mapping[str, Any]) -> Tensor | None:
        """True for the tokens of the joint map that may be looked at, (rows, tokens); ``None`` where all may.

        Args:
            call: The keyword arguments of the attention module.
        """
        return None

    def soft_mask(self, call: Mapping[str, Any]) -> Tensor | None:
        """A number for each token of the joint map, (rows, tokens); ``None`` where there are none.

        The product of those of the query and of the key is added to their logit.

        Args:
            call: The keyword arguments of the attention module.
        """
        return None

    @abstractmethod
    def encode(self, pipe: Any, prompts: Sequence[str]) -> list[dict[str, Tensor]]:
        """Encode prompts as the pipeline would.

        Returns:
            For every prompt the arguments of the pipeline that stand for it, each with one row. Under the same names
            with ``negative_`` before them the pipeline takes a negative prompt.
        """

    def join(self, rows: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """The arguments of a batch, from what :meth:`encode` gave for each of its prompts."""
        return {name: torch.cat([row[name] for row in rows]) for name in rows[0]}

    @abstractmethod
    def cfg_arguments(self, pipe: Any, cfg: float) -> dict[str, float]:
        """The arguments of the pipeline that ask for classifier-free guidance of this scale; 1 asks for none.

        Raises:
            ModelError: If it is above 1 and this pipeline has no classifier-free guidance.
        """

    def pixels(self, pipe: Any) -> int:
        """Height and width of an image must be multiples of this."""
        return int(pipe.vae_scale_factor * pipe.transformer.config.patch_size)

    def unsupported(self, given: Mapping[str, Any]) -> str | None:
        """What in the arguments of a transformer call makes guidance impossible, in words; usually ``None``."""
        return None

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


def split_taps(
    attention: nn.Module, plain: tuple[str, str, str], fused: str, width: int
) -> tuple[tuple[Tap, ...], tuple[Tap, ...], tuple[Tap, ...]]:
    """Taps of Q, K and V: from projections of their own, and from the fused one after ``fuse_qkv_projections``.

    Args:
        attention: The attention module.
        plain: Attribute names of the three projections.
        fused: Attribute name of the fused projection, which need not be there.
        width: heads * head width.
    """
    together = getattr(attention, fused, None)
    found = []
    for number, name in enumerate(plain):
        taps = [Tap(module, 0, width)] if (module := getattr(attention, name, None)) is not None else []
        if together is not None:
            taps.append(Tap(together, number * width, (number + 1) * width))
        found.append(tuple(taps))
    return found[0], found[1], found[2]


def double_streams(attention: Any, width: int) -> tuple[Stream, Stream]:
    """The streams [text, image] of an attention with diffusers' names for the projections of both.

    Args:
        attention: The attention module.
        width: heads * head width.
    """
    own = split_taps(attention, ("to_q", "to_k", "to_v"), "to_qkv", width)
    added = split_taps(attention, ("add_q_proj", "add_k_proj", "add_v_proj"), "to_added_qkv", width)
    return (
        Stream("text", *added, (attention.norm_added_q, attention.norm_added_k), Output(attention.to_add_out, width)),
        Stream("image", *own, (attention.norm_q, attention.norm_k), Output(attention.to_out[0], width)),
    )
