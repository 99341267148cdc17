"""``torch.compile`` for guided transformers: block by block, and never again when a recipe changes.

A compiled graph runs no hooks that were added after it was made, so compiling by hand and guidance do not go
together. Here the blocks are compiled with the interpolation inside: the strengths are an input of the graph, one
number for every row and head, and the batch size is dynamic. So there are two graphs for each kind of block, one
without and one with perturbation, whatever the heads, strengths and batches are. The graphs know
the targets identity, image_identity and uniform on the straight path; a block that needs another in a step runs that
step as it is, uncompiled. In half precision on NVIDIA's GPUs the first product of an MLP ends with its activation.
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
from pagopt.perturb import interpolate
from pagopt.targets import Target, View
from pagopt.targets.identity import Identity, ImageIdentity
from pagopt.targets.uniform import Uniform

__all__ = ["CompiledBlock", "compile_blocks", "compiled_block", "uncompile_blocks"]

_MARK = "pagopt_compiled"
_GRAPHS = 64
_HALF = (torch.bfloat16, torch.float16)
_UNMASKED = (Identity, ImageIdentity)  # what these give does not depend on which tokens are padding
_mixtures: dict[tuple[type[nn.Module], type[nn.Module]], type[nn.Module]] = {}


class _Site:
    """What the graph of a block reads and writes at one attention site. Plain attributes, so that it can be traced."""

    def __init__(self, streams: int, heads: int, width: int, kinds: tuple[str, ...]) -> None:
        self.targets: tuple[Target, ...] = ()
        self.strengths: tuple[Tensor, ...] = ()
        self.image: tuple[int, int | None] = (0, None)
        self.reached = False
        self.values: list[Tensor | None] = [None] * streams
        self.heads, self.kinds, self.width = heads, kinds, width

    def see(self, stream: int, start: int, stop: int, output: Tensor) -> None:
        """Keep V of a stream."""
        if self.targets:
            self.values[stream] = output[..., start:stop]

    def moved(self, stream: int, given: Tensor) -> Tensor:
        """The attention output of a stream, given to its projection, after the moves."""
        if not self.targets:
            return given
        values = [part for part in self.values if part is not None]
        output = given[..., : self.width]
        start = sum(part.shape[1] for part in values[:stream])
        skip, stop = self.image if self.kinds[stream] == "joint" else (0, None)
        for target, strength in zip(self.targets, self.strengths, strict=True):
            if target.rows == "all":
                rows = slice(start, start + output.shape[1])
                output = interpolate(output, target.values(self._view(values), rows), strength)
            elif self.kinds[stream] != "text":
                rows = slice(start + skip, start + (output.shape[1] if stop is None else stop))
                image = interpolate(output[:, skip:stop], target.values(self._view(values), rows), strength)
                parts = [output[:, :skip]] if skip else []
                parts += [image] if stop is None else [image, output[:, stop:]]
                output = torch.cat(parts, dim=1) if len(parts) > 1 else image
        self.reached = True
        if self.width < given.shape[-1]:
            output = torch.cat([output, given[..., self.width :]], dim=-1)
        return output

    def _view(self, values: list[Tensor]) -> View:
        return View(values, slice(0, 0), slice(0, 0))


class _Seen(nn.Module):
    """Mixed into a value projection."""

    pagopt_site: _Site
    pagopt_place: tuple[int, int, int]

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The projection, whose output is looked at."""
        output = super().forward(*args, **kwargs)
        self.pagopt_site.see(*self.pagopt_place, output)
        return output


class _Moved(nn.Module):
    """Mixed into an output projection."""

    pagopt_site: _Site
    pagopt_stream: int

    def forward(self, given: Tensor, *args: Any, **kwargs: Any) -> Any:
        """The projection of what was moved."""
        return super().forward(self.pagopt_site.moved(self.pagopt_stream, given), *args, **kwargs)


class _FusedGELU(nn.Module):
    """Mixed into diffusers' GELU, which else reads and writes its largest tensor once more.

    On NVIDIA's GPUs the matrix product ends with the bias and the activation, in float32, before it is rounded.
    """

    proj: Any

    def forward(self, hidden_states: Tensor) -> Tensor:
        """The projection and its activation."""
        proj, dtype = self.proj, hidden_states.dtype
        plain = type(proj) is nn.Linear and type(proj.weight) is nn.Parameter  # no LoRA, and not quantised
        fits = hidden_states.is_cuda and dtype in _HALF and not torch.is_grad_enabled()
        if not plain or not fits or proj.weight.dtype != dtype:
            given: Tensor = super().forward(hidden_states)
            return given
        return product_and_gelu(proj, hidden_states)


def product_and_gelu(proj: nn.Linear, given: Tensor) -> Tensor:
    """``gelu(proj(given), approximate="tanh")`` as one kernel, on NVIDIA's GPUs."""
    rows = given.flatten(0, -2)
    found: Tensor = torch.ops.aten._addmm_activation(proj.bias, rows, proj.weight.t(), use_gelu=True)
    return found.view(*given.shape[:-1], -1)


class CompiledBlock:
    """A block and its compiled forward.

    Attributes:
        sites: Its attention sites by name.
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
        self.sites: dict[str, _Site] = {}
        self._mixed: list[tuple[nn.Module, type[nn.Module], list[str]]] = []
        for attention in attentions:
            self.sites[attention.site] = self._site(attention)
        for module in activations:
            if _is_plain(module.proj):
                self._mix(module, _FusedGELU)
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

        block.forward = forward
        setattr(block, _MARK, self)

    def _site(self, attention: Attention) -> _Site:
        outputs = [stream.output for stream in attention.streams if stream.output is not None]
        kinds = tuple(stream.tokens for stream in attention.streams)
        site = _Site(len(attention.streams), attention.heads, outputs[0].width, kinds)
        for number, stream in enumerate(attention.streams):
            for tap in stream.values:
                self._mix(tap.module, _Seen, pagopt_site=site, pagopt_place=(number, tap.start, tap.stop))
            if stream.output is not None:
                self._mix(stream.output.module, _Moved, pagopt_site=site, pagopt_stream=number)
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
        GuidanceError: If it is compiled already, or its modules are hooked for offloading.
        ModelError: If the pipeline belongs to no supported family.
    """
    family: Family = family_of(pipe)
    transformer = pipe.transformer
    blocks = family.blocks(transformer)
    if hasattr(transformer, "_orig_mod") or any(
        compiled_block(block) or getattr(block, "_compiled_call_impl", None) for block in blocks
    ):
        raise GuidanceError("the transformer is compiled already")
    if any(hasattr(module, "_hf_hook") for module in blocks):
        raise GuidanceError("blocks that are offloaded one by one cannot be compiled: move the transformer as a whole")
    # Kinds of blocks, image sizes, batches of one row: each is a graph, and beyond the limit torch runs uncompiled.
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, _GRAPHS)
    attentions = family.attentions(transformer)
    masked = type(family).key_mask is not Family.key_mask
    for number, block in enumerate(blocks):
        own = [site for site in attentions if site.block == number]
        CompiledBlock(block, own, family.activations(block), options, masked)


def uncompile_blocks(pipe: Any) -> None:
    """Undo :func:`compile_blocks`; nothing happens where there is nothing to undo."""
    for block in family_of(pipe).blocks(pipe.transformer):
        compiled = compiled_block(block)
        if compiled is not None:
            compiled.remove()
