"""The two formulas everything rests on: how far a head's output moves, and how guidance steps away. Pure, torch only.

Attention is linear in its map: with ``O = A V``, the interpolated map ``A' = (1 - u) A + u T`` (paper, arXiv
2506.10978, Eq. 7) gives ``O' = (1 - u) O + u T V``. So where ``T V`` is cheap, no map ever has to be built and any
fused attention kernel stays in use. What ``T V`` is for each target is in :mod:`pagopt.targets`.
"""

from __future__ import annotations

from torch import Tensor, lerp

__all__ = ["guide", "interpolate"]


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
    return lerp(output.reshape(split), target.to(output.dtype).reshape(split), weight).flatten(-2)


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
