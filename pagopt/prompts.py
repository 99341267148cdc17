"""Encoded prompts: each is encoded once, as long as there is room to keep it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch

from pagopt.models import Family

__all__ = ["Prompts"]

# Bytes that are kept on the device. A prompt takes 1.4 MB at SD3's size in half precision, 16 MB at FLUX.2's.
KEPT = 2**30


class Prompts:
    """What a pipeline's text encoders make of prompts.

    Args:
        family: Of the pipeline.
        pipe: A diffusers pipeline.
    """

    def __init__(self, family: Family, pipe: Any) -> None:
        self.family, self.pipe = family, pipe
        self._known: dict[str, dict[str, torch.Tensor]] = {}
        self._kind: tuple[torch.device, torch.dtype] | None = None

    def __len__(self) -> int:
        return len(self._known)

    def __getitem__(self, prompt: str) -> Mapping[str, torch.Tensor]:
        """The pipeline's arguments for a prompt that is encoded, one row each."""
        return self._known[prompt]

    def encode(self, prompts: Iterable[str]) -> None:
        """Encode what is not encoded yet, in one batch. Then the oldest of the others go, where they take too much."""
        kind = (self.pipe._execution_device, self.pipe.transformer.dtype)
        if kind != self._kind:
            self._known.clear()
            self._kind = kind
        wanted = set(prompts)
        new = sorted(wanted - self._known.keys())
        for prompt, row in zip(new, self.family.encode(self.pipe, new) if new else (), strict=True):
            self._known[prompt] = {name: tensor.clone() for name, tensor in row.items()}  # rows of one large tensor
        size = sum(map(_bytes, self._known.values()))
        for prompt in [prompt for prompt in self._known if prompt not in wanted]:
            if size <= KEPT:
                break
            size -= _bytes(self._known.pop(prompt))


def _bytes(row: Mapping[str, torch.Tensor]) -> int:
    return sum(tensor.nbytes for tensor in row.values())
