"""``torch.compile`` for guided transformers: block by block, and never again when a recipe changes.

A compiled graph runs no hooks that were added after it was made, so compiling by hand and guidance do not go
together. Here the blocks are compiled with the interpolation inside: the strengths are an input of the graph, one
number for every row and head, and the batch size is dynamic. So there are two graphs for each kind of block, one
without and one with perturbation, whatever the heads, strengths and batches are. The graphs know
the targets identity, image_identity and uniform on the straight path; a block that needs another in a step runs that
step as it is, uncompiled.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pagopt.errors import GuidanceError
from pagopt.fork import Move
from pagopt.models import Attention, Family, family_of
from pagopt.sites import under_guidance
from pagopt.targets.identity import Identity, ImageIdentity
from pagopt.targets.uniform import Uniform
from pagopt.traced import FusedGELU, Moved, Seen, TracedSite

__all__ = ["CompiledBlock", "compile_blocks", "compiled_block", "uncompile_blocks"]

_MARK = "pagopt_compiled"
_GRAPHS = 64
_UNMASKED = (Identity, ImageIdentity)  # what these give does not depend on which tokens are padding
_mixtures: dict[tuple[type[nn.Module], type[nn.Module]], type[nn.Module]] = {}


class CompiledBlock:
    """A block and its compiled forward.

    Attributes:
        attentions: Its attention sites by name, as they were compiled.
        sites: What their graphs read and write, by the same names.
        eager: Whether it runs uncompiled in this step.
    """

    def __init__(
        self,
        block: nn.Module,
        attentions: list[Attention],
        activations: list[nn.Module],
        options: Mapping[str, Any],
        masked: bool = False,
    ) -> None:
        self.block = block
        self._masked = masked
        self.eager = False
        self.attentions = {attention.site: attention for attention in attentions}
        self.sites: dict[str, TracedSite] = {}
        self._mixed: list[tuple[nn.Module, type[nn.Module], list[str]]] = []
        for attention in attentions:
            self.sites[attention.site] = self._site(attention)
        for module in activations:
            if _is_plain(module.proj):
                self._mix(module, FusedGELU)
        original = block.forward
        compiled = torch.compile(original, **options)

        @functools.wraps(original)
        def forward(*args: Any, **kwargs: Any) -> Any:
            if self.eager:
                return original(*args, **kwargs)
            for value in (*args, *kwargs.values()):
                if isinstance(value, Tensor):
                    torch._dynamo.maybe_mark_dynamic(value, 0)
            return compiled(*args, **kwargs)

        block.forward = self._forward = forward
        setattr(block, _MARK, self)

    def __deepcopy__(self, memo: Any) -> Any:
        raise GuidanceError("a pipeline with compiled blocks cannot be copied: call uncompile_blocks(pipe) first")

    def _site(self, attention: Attention) -> TracedSite:
        outputs = [stream.output for stream in attention.streams if stream.output is not None]
        kinds = tuple(stream.tokens for stream in attention.streams)
        site = TracedSite(len(attention.streams), attention.heads, outputs[0].width, kinds)
        for number, stream in enumerate(attention.streams):
            for tap in stream.values:
                self._mix(tap.module, Seen, pagopt_site=site, pagopt_place=(number, tap.start, tap.stop))
            if stream.output is not None:
                self._mix(stream.output.module, Moved, pagopt_site=site, pagopt_stream=number)
        return site

    def _mix(self, module: nn.Module, kind: type[nn.Module], **attributes: Any) -> None:
        own = type(module)
        self._mixed.append((module, own, list(attributes)))
        module.__class__ = _mixtures.setdefault((kind, own), type(own.__name__, (kind, own), {}))
        module.__dict__.update(attributes)

    def begin(self, moves: Mapping[str, tuple[Move, ...]], plain_rows: int, image: slice) -> bool:
        """Say what this step does at each site, or that the graph cannot do it and the block runs uncompiled.

        A site without moves, beside one with, gets strengths of 0: so a block has two graphs, not one for each set of
        perturbed sites.

        Args:
            moves: By site.
            plain_rows: Rows before the copies, which are left alone.
            image: The image tokens of a joint stream.

        Returns:
            Whether the graph does it.
        """
        self.eager = not all(self._can(move) for items in moves.values() for move in items)
        if self.eager:
            return False
        targets = list(dict.fromkeys(move.target for items in moves.values() for move in items))
        for name, state in self.sites.items():
            given = {move.target: F.pad(move.strengths, (0, 0, plain_rows, 0)) for move in moves.get(name, ())}
            like = next(iter(moves.values()))[0].strengths
            nothing = like.new_zeros(plain_rows + like.shape[0], state.heads)
            state.targets = tuple(targets)
            state.strengths = tuple(given.get(target, nothing) for target in targets)
            for strength in state.strengths:
                torch._dynamo.maybe_mark_dynamic(strength, 0)
            state.image, state.reached = (image.start, image.stop), False
        return True

    def _can(self, move: Move) -> bool:
        # The graph knows neither grid nor masks of padded tokens, so a target of a user's own has no place in it.
        kinds = _UNMASKED if self._masked else (*_UNMASKED, Uniform)
        return move.is_dense and type(move.target) in kinds

    def end(self) -> None:
        """Forget the step."""
        self.eager = False
        for state in self.sites.values():
            state.targets, state.strengths, state.reached = (), (), False
            state.values = [None] * len(state.values)

    def check_removable(self) -> None:
        """Make sure that nobody wrapped what would be put back.

        Raises:
            GuidanceError: If somebody did.
        """
        if self.block.__dict__.get("forward") is not self._forward:
            raise GuidanceError(
                f"the forward of a compiled {type(self.block).__name__} was wrapped since (offloading, a hook of "
                "diffusers?): take that away before uncompile_blocks"
            )
        for module, _, _ in self._mixed:
            _check_not_wrapped(module, "uncompile_blocks")

    def remove(self) -> None:
        """Give the block its own forward and its modules their own classes back."""
        del self.block.forward
        delattr(self.block, _MARK)
        for module, own, names in self._mixed:
            module.__class__ = own
            for name in names:
                del module.__dict__[name]


def _is_plain(linear: Any) -> bool:
    """Whether it is its own product and bias, and nothing more: no hooks, of accelerate's or anyone's."""
    hooked = "forward" in vars(linear) or linear._forward_hooks or linear._forward_pre_hooks
    return type(linear) is nn.Linear and linear.bias is not None and not hooked


def _check_not_wrapped(module: nn.Module, before: str = "compile_blocks") -> None:
    # Who wraps it holds its old forward, and would go on with it.
    if "forward" in module.__dict__:
        raise GuidanceError(
            f"the forward of a {type(module).__name__} is wrapped by other code (offloading of parts of the model, "
            f"layerwise casting, a hook of diffusers?): take that away before {before}; both work together where the "
            "wrapping comes after compile_blocks, or where the transformer is offloaded as a whole"
        )


def compiled_block(block: nn.Module) -> CompiledBlock | None:
    """The compiled form of a block, if :func:`compile_blocks` made one."""
    found: CompiledBlock | None = block.__dict__.get(_MARK)
    return found


def compile_blocks(pipe: Any, **options: Any) -> None:
    """Compile the blocks of a pipeline's transformer so that guidance works with it.

    The first image takes longer (from seconds on a CPU to a minute on a GPU); changing heads, strengths, scales or the
    composition of a batch does not compile again. Another image size does, once.

    Args:
        pipe: A stock diffusers pipeline of a supported family, not under guidance.
        **options: For ``torch.compile``, such as ``mode="max-autotune-no-cudagraphs"``.

    Raises:
        GuidanceError: If it is compiled already or under guidance, or other code has wrapped its modules.
        ModelError: If the pipeline belongs to no supported family.
    """
    family: Family = family_of(pipe)
    transformer = pipe.transformer
    blocks = family.blocks(transformer)
    if hasattr(transformer, "_orig_mod") or any(
        compiled_block(block) or getattr(block, "_compiled_call_impl", None) for block in blocks
    ):
        raise GuidanceError("the transformer is compiled already")
    if transformer in under_guidance:
        raise GuidanceError("the transformer is under guidance: call compile_blocks before the `with` block")
    attentions = family.attentions(transformer)
    for module in [*blocks, *(module for site in attentions for module in site.hooked)]:
        _check_not_wrapped(module)
    # Kinds of blocks, image sizes, batches of one row: each is a graph, and beyond the limit torch runs uncompiled.
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, _GRAPHS)
    masked = type(family).key_mask is not Family.key_mask
    for number, block in enumerate(blocks):
        own = [site for site in attentions if site.block == number]
        CompiledBlock(block, own, family.activations(block), options, masked)


def uncompile_blocks(pipe: Any) -> None:
    """Undo :func:`compile_blocks`; nothing happens where there is nothing to undo.

    Raises:
        GuidanceError: If the transformer is under guidance, or other code has wrapped its modules since.
    """
    found = [compiled_block(block) for block in family_of(pipe).blocks(pipe.transformer)]
    compiled = [block for block in found if block is not None]
    if compiled and pipe.transformer in under_guidance:
        raise GuidanceError("the transformer is under guidance: call uncompile_blocks after the `with` block")
    for block in compiled:
        block.check_removable()
    for block in compiled:
        block.remove()
