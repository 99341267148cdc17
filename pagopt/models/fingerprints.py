"""Telling models apart by what they are, not by where they lie."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import nn

from pagopt.errors import ModelError
from pagopt.models.weights import plain_tensors

__all__ = ["fingerprint", "major_version", "scheduler_name"]

_SAMPLES = 1024  # values hashed of each tensor; of one with up to four times as many, all
_WORDS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}  # by the bytes of a value
_PASSING = {
    "architectures",
    "dtype",
    "torch_dtype",
    "transformers_version",
}  # what saving and loading changes
_EMBEDDED = {"890885fecf426afd", "46b1199f881c7af8"}
"""Rules of the embedded model's tokenizers, which do not count: its fingerprint is older than that of rules."""


def fingerprint(pipe: Any) -> str:
    """A short name for everything in a pipeline that shapes its images.

    It covers the class and configuration of every component (scheduler, tokenizers with their vocabularies and rules,
    and models; no paths, no versions), and the name, shape, dtype and a sample of the values of every tensor,
    spread all over it, so that what changes a hundredth of a tensor does not escape. Of adapters (LoRA) those count
    that act, with their weights: one that is switched off, or is there with weight 0, leaves the model as it was.
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
    acting = _adapters(module)
    for layer, scales in sorted(acting.items()):
        if scales:
            digest.update(json.dumps([layer, scales], sort_keys=True).encode())
    for path, tensor in sorted(module.state_dict().items()):
        name = _place(path, acting)
        if name is None or not isinstance(tensor, torch.Tensor):
            continue
        if tensor.is_meta:
            raise ModelError(f"{component}.{name} has no values (meta device): take the fingerprint before offloading")
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        for part in plain_tensors(tensor.detach()):
            part = torch.view_as_real(part) if part.is_complex() else part
            words = part.contiguous().view(-1).view(_WORDS[part.element_size()])
            if words.numel() > 4 * _SAMPLES:
                words = words[_positions(words.numel()).to(words.device)]
            digest.update(words.cpu().numpy().tobytes())


@cache
def _positions(count: int) -> torch.Tensor:
    """Where to look in so many values: the same places everywhere, in no pattern that a matrix could have."""
    mixed = np.arange(1, _SAMPLES + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):  # splitmix64 (Steele et al. 2014)
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return torch.from_numpy(((mixed ^ (mixed >> np.uint64(31))) % np.uint64(count)).astype(np.int64))


def _adapters(module: nn.Module) -> dict[str, dict[str, float]]:
    """The layers that PEFT has wrapped, each with the adapters that act in it and their weights."""
    found = {}
    for name, layer in module.named_modules():
        if hasattr(layer, "base_layer") and hasattr(layer, "active_adapters"):
            idle = layer.disable_adapters or layer.merged  # merged ones are in the weights
            scaling = getattr(layer, "scaling", {})
            scales = {} if idle else {one: float(scaling.get(one, 1.0)) for one in layer.active_adapters}
            found[name] = {one: scale for one, scale in scales.items() if scale}
    return found


def _place(path: str, acting: Mapping[str, Mapping[str, float]]) -> str | None:
    """The name of a tensor without its wrapping; ``None`` if it belongs to an adapter that does not act."""
    for layer, scales in acting.items():
        rest = path.removeprefix(f"{layer}.")
        if rest == path or rest.startswith("base_layer."):
            continue
        return path if set(rest.split(".")) & set(scales) else None
    return path.replace(".base_layer.", ".")


def _configuration(component: Any) -> Any:
    if hasattr(component, "get_vocab"):
        known, rules = [component.model_max_length, sorted(component.get_vocab().items())], _rules(component)
        return [*known, rules] if rules and rules not in _EMBEDDED else known
    config = getattr(component, "config", component)
    if hasattr(config, "to_dict"):  # transformers
        config = config.to_dict()
    return _clean(config) if isinstance(config, Mapping) else None


def _rules(tokenizer: Any) -> str:
    """A digest of what a fast tokenizer does with a text, beside its vocabulary; empty for a slow one.

    Truncation and padding are set at every call, a decoder shapes no image, and what is empty or off is left out, since
    other versions of the library may not name it.
    """
    if not getattr(tokenizer, "is_fast", False):
        return ""
    rules = json.loads(tokenizer.backend_tokenizer.to_str())
    for passing in ("version", "truncation", "padding", "decoder"):
        rules.pop(passing, None)
    rules["model"].pop("vocab", None)
    sides = [tokenizer.truncation_side, tokenizer.padding_side, str(tokenizer.pad_token)]
    return hashlib.sha256(json.dumps([_filled(rules), sides], sort_keys=True).encode()).hexdigest()[:16]


def _filled(value: Any) -> Any:
    """Without what is empty, zero or off, in mappings at every depth."""
    if isinstance(value, dict):
        items = {key: _filled(item) for key, item in value.items()}
        return {key: item for key, item in items.items() if item}
    return [_filled(item) for item in value] if isinstance(value, list) else value


def _clean(value: Any) -> Any:
    """Without private and passing keys, at every depth."""
    if isinstance(value, Mapping):
        items = ((str(key), _clean(item)) for key, item in value.items())
        return {key: item for key, item in items if not key.startswith("_") and key not in _PASSING}
    if isinstance(value, list | tuple):
        return [_clean(item) for item in value]
    return value


def scheduler_name(scheduler: Any) -> str:
    """Class of a scheduler, and a digest of its configuration without private keys."""
    config = getattr(scheduler, "config", {})
    items = config.items() if isinstance(config, Mapping) else ()
    facts = {key: value for key, value in items if not key.startswith("_")}
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()
    return f"{type(scheduler).__name__}@{digest[:12]}"


def major_version(version: str) -> str:
    """The part of a version that says whether things may break: "2" of "2.13.0", "0.42" of "0.42.1"."""
    first, _, rest = version.partition(".")
    return first if first != "0" else f"0.{rest.partition('.')[0]}"
