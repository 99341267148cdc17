"""The mathematics of perturbed attention: what a head's map moves towards, and how far. Pure, torch only.

Attention is linear in its map: with ``O = A V``, the interpolated map ``A' = (1 - u) A + u T`` (paper, arXiv
2506.10978, Eq. 7) gives ``O' = (1 - u) O + u T V``. So for a target map ``T`` whose product ``T V`` is cheap,
no map ever has to be built and any fused attention kernel stays in use. For the identity (Eq. 6, hard PAG at
u = 1), ``T V = V``.

A *stream* is one run of tokens with projections of its own: a joint attention has two, in SD3 image tokens
and then text tokens. Values and outputs are given stream by stream, each of shape (rows, tokens, heads *
width).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from pagopt.errors import UnknownName

__all__ = ["TARGETS", "Target", "guide", "identity", "interpolate", "target_named"]

Target = Callable[[Sequence[Tensor]], Sequence[Tensor]]
"""Maps the values V of all streams to the target's outputs T V of all streams; shapes stay."""


def identity(values: Sequence[Tensor]) -> Sequence[Tensor]:
    """``T = I`` over the whole joint map: image and text tokens attend to themselves alone (paper, Eq. 6)."""
    return values


TARGETS: dict[str, Target] = {"identity": identity}
"""The targets a recipe can name."""


def target_named(name: str) -> Target:
    """Look a target up.

    Raises:
        UnknownName: If there is none of that name.
    """
    if name not in TARGETS:
        raise UnknownName("perturbation target", name, TARGETS)
    return TARGETS[name]


def interpolate(output: Tensor, target: Tensor, strength: Tensor) -> Tensor:
    """``(1 - u) O + u T V`` with a strength for every row and head (SoftPAG; paper, Eq. 7).

    Args:
        output: Attention output ``A V``, shape (rows, tokens, heads * width), floating point.
        target: ``T V``, same shape.
        strength: ``u`` in [0, 1], shape (rows, heads). 0 gives ``output`` back and 1 gives ``target``, bit
            for bit.

    Returns:
        Tensor of the shape and dtype of ``output``.
    """
    split = (*output.shape[:-1], strength.shape[1], -1)  # (rows, tokens, heads, width)
    weight = strength.to(output.dtype)[:, None, :, None]
    return torch.lerp(output.reshape(split), target.to(output.dtype).reshape(split), weight).flatten(-2)


def guide(original: Tensor, perturbed: Tensor, scale: Tensor) -> Tensor:
    """``original + w (original - perturbed)`` (paper, Eq. 5), for noise and velocity predictions alike.

    Args:
        original: Prediction of the untouched model, shape (rows, ...).
        perturbed: Prediction with perturbed heads, same shape.
        scale: ``w``, shape (rows,). Where a pipeline applies CFG ``g`` to the result afterwards, ``w / g``.

    Returns:
        Tensor of the shape and dtype of ``original``.
    """
    weight = scale.to(original.dtype).view(-1, *(1,) * (original.ndim - 1))
    return original + weight * (original - perturbed)
