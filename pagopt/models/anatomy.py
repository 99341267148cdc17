"""What the guide has to know about a family of models: where its heads are and which modules to watch.

A family is one file beside this one; it declares the anatomy and does no arithmetic.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from diffusers.models.activations import GELU
from torch import Tensor, nn

from pagopt.errors import ModelError
from pagopt.heads import HeadMap

__all__ = ["Attention", "Family", "Output", "Stream", "Tap"]


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
        tokens: What they are. "joint" is text and image tokens through the same projections, see
            :meth:`Family.image_tokens`.
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

    @property
    def hooked(self) -> list[nn.Module]:
        """The modules at which guidance reads and writes."""
        taps = [tap.module for each in self.streams for tap in (*each.queries, *each.keys, *each.values)]
        return taps + [each.output.module for each in self.streams if each.output is not None]


class Family(ABC):
    """A family of models. Stateless: everything is asked of the transformer that is handed in.

    Attributes:
        name: Short name, such as ``"sd3"``.
        transformer: Class name of its transformer.
        pipelines: Class names of its pipelines.
        processors: Class names of the attention processors whose arithmetic is known: softmax attention of
            all streams jointly, then the output projections and nothing between.
        branches: How its pipelines do classifier-free guidance: "batch" calls the transformer once on both kinds of
            rows, "calls" on the conditional and then on the unconditional ones.
        conditional_first: Whether the conditional rows come before the unconditional ones in one batch.
        scale_offset: What the scale ``g`` of ``uncond + g (cond - uncond)`` is above the number that its pipelines
            call ``guidance_scale``: 1 where they do ``cond + guidance_scale (cond - uncond)``.
        shared: Names of arguments of the transformer and its blocks that have no batch dimension.
        residuals: Names of arguments of the transformer, batch-first, that are added between its blocks, as by a
            ControlNet. Where one is given, the copies join at the input.
        time_divisor: The pipeline hands on a timestep divided by this.
        leaves_at_tail: Whether the transformer, behind the modules of its :meth:`tail`, can take no more rows than it
            was called with. What they give for the copies is kept for :meth:`predictions` then.
    """

    name: ClassVar[str]
    transformer: ClassVar[str]
    pipelines: ClassVar[tuple[str, ...]]
    processors: ClassVar[frozenset[str]]
    branches: ClassVar[Literal["batch", "calls"]] = "batch"
    conditional_first: ClassVar[bool] = False
    scale_offset: ClassVar[float] = 0.0
    shared: ClassVar[frozenset[str]] = frozenset()
    residuals: ClassVar[frozenset[str]] = frozenset()
    time_divisor: ClassVar[float] = 1.0
    leaves_at_tail: ClassVar[bool] = False

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

    def batched(self, given: Mapping[str, Any]) -> Mapping[str, Any]:
        """The arguments of the transformer, batch-first, under the names that most transformers of diffusers give them:
        ``hidden_states``, ``timestep``, ``encoder_hidden_states``."""
        return given

    def unbatched(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments as the transformer takes them, from what :meth:`batched` gave, with more or fewer rows."""
        return dict(given)

    def predictions(self, sample: Any, copies: Tensor | None, transformer: nn.Module) -> Tensor:
        """What the transformer predicts, batch-first.

        Args:
            sample: What it returned.
            copies: What the tail gave for the copies, where the family says :attr:`leaves_at_tail`.
            transformer: The same.
        """
        found: Tensor = sample
        return found

    def returned(self, predictions: Tensor) -> Any:
        """Predictions, batch-first, as the transformer returns them."""
        return predictions

    def image_tokens(self, given: Mapping[str, Any]) -> slice:
        """Where the image tokens are in a joint stream, from the arguments of the transformer (as batches)."""
        return slice(int(given["encoder_hidden_states"].shape[1]), None)

    def passed(self, timesteps: Tensor, dtype: torch.dtype) -> Tensor:
        """What the pipeline hands on for these timesteps of its scheduler.

        In the very arithmetic of the pipeline, so that half precision rounds alike.

        Args:
            timesteps: Any shape.
            dtype: Of what the transformer got.
        """
        return timesteps if self.time_divisor == 1 else timesteps.to(dtype) / self.time_divisor

    def pauses(self, pipe: Any, timestep: Tensor) -> bool:
        """Whether the pipeline leaves out classifier-free guidance at a timestep, although it has a scale for it.

        Args:
            pipe: While it runs.
            timestep: As the transformer gets it.
        """
        return False

    def rotate(self, parts: Sequence[Tensor], call: Mapping[str, Any], rows: Tensor) -> Sequence[Tensor]:
        """Put the positions into queries or keys.

        Args:
            parts: Normalised queries or keys of each stream, (P, tokens, width of a head).
            call: The keyword arguments of the attention module.
            rows: The row of the batch that each of the P belongs to, (P,).

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

    def activations(self, block: nn.Module) -> list[nn.Module]:
        """Modules of a block that are one linear layer, ``proj``, and GELU in its tanh form after it."""
        return [module for module in block.modules() if type(module) is GELU and module.approximate == "tanh"]

    @abstractmethod
    def encode(self, pipe: Any, prompts: Sequence[str]) -> list[dict[str, Tensor]]:
        """Encode prompts as the pipeline would.

        Returns:
            For every prompt the arguments of the pipeline that stand for it, each with one row. Under the same names
            with ``negative_`` before them the pipeline takes a negative prompt.
        """

    def join(self, rows: Sequence[Mapping[str, Tensor]]) -> dict[str, Any]:
        """The arguments of a batch, from what :meth:`encode` gave for each of its prompts."""
        return {name: torch.cat([row[name] for row in rows]) for name in rows[0]}

    @abstractmethod
    def cfg_arguments(self, pipe: Any, cfg: float) -> dict[str, float]:
        """The arguments of the pipeline that ask for classifier-free guidance of this scale; 1 asks for none.

        Raises:
            ModelError: If it is above 1 and this pipeline has no classifier-free guidance.
        """

    def default_size(self, pipe: Any) -> int:
        """Height and width in pixels of the images that the pipeline draws by default."""
        return int(pipe.default_sample_size * pipe.vae_scale_factor)

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
