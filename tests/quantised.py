"""Quantised layers, as the configurations of diffusers put them into a transformer."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import bitsandbytes
import torch
from torch import nn
from torchao.quantization import Int8WeightOnlyConfig, quantize_

__all__ = ["QUANTISERS"]


def with_torchao(model: nn.Module) -> None:
    """Weights of eight bits, as ``TorchAoConfig(Int8WeightOnlyConfig())`` makes them."""
    quantize_(model, Int8WeightOnlyConfig())


def with_bitsandbytes(model: nn.Module, bits: int) -> None:
    """The layers of ``BitsAndBytesConfig``, which itself asks for a GPU."""
    for parent in list(model.modules()):
        for name, layer in list(parent.named_children()):
            if type(layer) is not nn.Linear:
                continue
            size = layer.in_features, layer.out_features, layer.bias is not None
            if bits == 4:
                other = bitsandbytes.nn.Linear4bit(*size, quant_type="nf4", compute_dtype=torch.float32)
            else:
                other = bitsandbytes.nn.Linear8bitLt(*size, has_fp16_weights=False, threshold=6.0)
            other.load_state_dict(layer.state_dict())
            setattr(parent, name, other.to("cpu"))  # packs the weights
    model.requires_grad_(False)


QUANTISERS: dict[str, Callable[[nn.Module], None]] = {
    "torchao": with_torchao,
    "bitsandbytes-4": partial(with_bitsandbytes, bits=4),
    "bitsandbytes-8": partial(with_bitsandbytes, bits=8),
}
