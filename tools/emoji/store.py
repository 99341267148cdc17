"""Saving weights: half precision on disk, float32 when loaded."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import torch
from transformers import PreTrainedModel

__all__ = ["average_of", "save_half"]


def save_half(model: PreTrainedModel, folder: Path) -> None:
    """Save a transformers model in half precision so that it loads as float32.

    transformers loads a model in the precision that its config names, so the config says float32.
    """
    copy.deepcopy(model).half().save_pretrained(folder, safe_serialization=True)
    path = folder / "config.json"
    config = json.loads(path.read_text())
    for part in (config, *(value for value in config.values() if isinstance(value, dict))):
        if "dtype" in part:
            part["dtype"] = "float32"
    path.write_text(json.dumps(config, indent=2) + "\n")


def average_of(checkpoint: Path) -> dict[str, torch.Tensor]:
    """The moving average of the weights in a training checkpoint."""
    state: dict[str, torch.Tensor] = torch.load(checkpoint, map_location="cpu", weights_only=True)["state_dict"]
    prefix = "average.module."
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
