"""Telling models apart by what they are, not by where they lie."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from pagopt.errors import ModelError
from pagopt.models.weights import plain_tensors

__all__ = ["fingerprint"]

_SAMPLES = 64  # values hashed of each tensor
_PASSING = {
    "architectures",
    "dtype",
    "torch_dtype",
    "transformers_version",
}  # what saving and loading changes


def fingerprint(pipe: Any) -> str:
    """A short name for everything in a pipeline that shapes its images.

    It covers the class and configuration of every component (scheduler, tokenizers with their vocabularies
    and models; no paths, no versions), and the name, shape, dtype and a sample of the values of every tensor.
    So it survives saving, moving and loading, and changes with another dtype, a LoRA or a fine-tuning.

    Args:
        pipe: A diffusers pipeline, on any device.

    Returns:
        32 hexadecimal digits.

    Raises:
        ModelError: If parameters have no values (meta device), as after sequential offloading.
    """
    digest = hashlib.sha256(type(pipe).__name__.encode())
    for name, component in sorted(pipe.components.items()):
        description = [name, type(component).__name__, _configuration(component)]
        digest.update(json.dumps(description, sort_keys=True, default=str).encode())
        if isinstance(component, nn.Module):
            _add_tensors(digest, name, component)
    return digest.hexdigest()[:32]


def _add_tensors(digest: Any, component: str, module: nn.Module) -> None:
    for name, tensor in sorted(module.state_dict().items()):
        if not isinstance(tensor, torch.Tensor):
            continue
        if tensor.is_meta:
            raise ModelError(f"{component}.{name} has no values (meta device): take the fingerprint before offloading")
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        for part in plain_tensors(tensor.detach()):
            flat = part.reshape(-1)
            sample = flat[:: max(1, flat.numel() // _SAMPLES)].cpu().contiguous()
            digest.update(sample.view(torch.uint8).numpy().tobytes())


def _configuration(component: Any) -> Any:
    if hasattr(component, "get_vocab"):
        return [component.model_max_length, sorted(component.get_vocab().items())]
    config = getattr(component, "config", component)
    if hasattr(config, "to_dict"):  # transformers
        config = config.to_dict()
    return _clean(config) if isinstance(config, Mapping) else None


def _clean(value: Any) -> Any:
    """Without private and passing keys, at every depth."""
    if isinstance(value, Mapping):
        items = ((str(key), _clean(item)) for key, item in value.items())
        return {key: item for key, item in items if not key.startswith("_") and key not in _PASSING}
    if isinstance(value, list | tuple):
        return [_clean(item) for item in value]
    return value
