"""Captions: what a person would type for a picture, and what is left out of it in training."""

from __future__ import annotations

import torch

__all__ = ["caption", "name_of", "training_caption"]


def name_of(icon: str) -> str:
    """The English name of an icon: "red-apple" is "red apple"."""
    return icon.replace("-", " ")


def caption(style: str, name: str, *, style_first: bool = True) -> str:
    """ "style, name" or "name, style"; an empty part is left out with its comma."""
    parts = [style, name] if style_first else [name, style]
    return ", ".join(part for part in parts if part)


def training_caption(style: str, name: str, generator: torch.Generator) -> str:
    """A caption with dropout: 10 % without content, 10 % without style, 10 % empty; one in three is name first."""
    chance, order = torch.rand(2, generator=generator).tolist()
    if chance < 0.1:
        name = ""
    elif chance < 0.2:
        style = ""
    elif chance < 0.3:
        style = name = ""
    return caption(style, name, style_first=order >= 1 / 3)
