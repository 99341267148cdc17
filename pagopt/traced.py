"""What the graph of a compiled block is made of: the places at which it reads V and moves the attention output.

Modules take these classes on instead of hooks, which a graph would not run. In half precision on NVIDIA's GPUs the
first product of an MLP ends with its activation.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from pagopt.device import HALF
from pagopt.perturb import interpolate
from pagopt.targets import Target, View

__all__ = ["FusedGELU", "Moved", "Seen", "TracedSite", "product_and_gelu"]


class TracedSite:
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


class Seen(nn.Module):
    """Mixed into a value projection."""

    pagopt_site: TracedSite
    pagopt_place: tuple[int, int, int]

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The projection, whose output is looked at."""
        output = super().forward(*args, **kwargs)
        self.pagopt_site.see(*self.pagopt_place, output)
        return output


class Moved(nn.Module):
    """Mixed into an output projection."""

    pagopt_site: TracedSite
    pagopt_stream: int

    def forward(self, given: Tensor, *args: Any, **kwargs: Any) -> Any:
        """The projection of what was moved."""
        return super().forward(self.pagopt_site.moved(self.pagopt_stream, given), *args, **kwargs)


class FusedGELU(nn.Module):
    """Mixed into diffusers' GELU, which else reads and writes its largest tensor once more.

    On NVIDIA's GPUs the matrix product ends with the bias and the activation, in float32, before it is rounded.
    """

    proj: Any

    def forward(self, hidden_states: Tensor) -> Tensor:
        """The projection and its activation."""
        proj, dtype = self.proj, hidden_states.dtype
        plain = type(proj) is nn.Linear and type(proj.weight) is nn.Parameter  # no LoRA, and not quantised
        fits = hidden_states.is_cuda and dtype in HALF and not torch.is_grad_enabled()
        if not plain or not fits or proj.weight.dtype != dtype:
            given: Tensor = super().forward(hidden_states)
            return given
        return product_and_gelu(proj, hidden_states)


def product_and_gelu(proj: nn.Linear, given: Tensor) -> Tensor:
    """``gelu(proj(given), approximate="tanh")`` as one kernel, on NVIDIA's GPUs."""
    rows = given.flatten(0, -2)
    found: Tensor = torch.ops.aten._addmm_activation(proj.bias, rows, proj.weight.t(), use_gelu=True)
    return found.view(*given.shape[:-1], -1)
