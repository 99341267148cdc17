"""Where Q, K and V come out of an attention, by diffusers' names for its projections."""

from __future__ import annotations

from typing import Any

from torch import nn

from pagopt.models.anatomy import Output, Stream, Tap

__all__ = ["double_streams", "split_taps"]


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
