"""Captions: what a person would type for a picture, and what is left out of it in training."""

from __future__ import annotations

from collections.abc import Sequence

import torch

__all__ = ["caption", "content", "name_of", "training_caption"]


def name_of(icon: str) -> str:
    """The English name of an icon: "red-apple" is "red apple"."""
    return icon.replace("-", " ")


def caption(style: str, name: str, *, style_first: bool = True) -> str:
    """ "style, name" or "name, style"; an empty part is left out with its comma."""
    parts = [style, name] if style_first else [name, style]
    return ", ".join(part for part in parts if part)


def content(name: str, synonyms: Sequence[str], generator: torch.Generator) -> str:
    """The name; in one of six captions with a synonym after it, in one of twelve a synonym in its place."""
    chance, which = torch.rand(2, generator=generator).tolist()
    if not synonyms or chance >= 1 / 4:
        return name
    synonym = synonyms[int(which * len(synonyms))]
    return synonym if chance < 1 / 12 else f"{name}, {synonym}"


def training_caption(style: str, name: str, generator: torch.Generator, synonyms: Sequence[str] = ()) -> str:
    """A caption with dropout: 10 % without content, 10 % without style, 10 % empty; one in three is content first."""
    chance, order = torch.rand(2, generator=generator).tolist()
    words = content(name, synonyms, generator)
    if chance < 0.1:
        words = ""
    elif chance < 0.2:
        style = ""
    elif chance < 0.3:
        style = words = ""
    return caption(style, words, style_first=order >= 1 / 3)
