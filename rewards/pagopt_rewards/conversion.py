"""From the tensors of an open_clip (or OpenAI) ViT to a transformers ``CLIPModel``, without open_clip.

The names are those of ``open_clip.CLIP.state_dict()``, https://github.com/mlfoundations/open_clip. Both compute the
same function, which `make openclip` checks.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pagopt.errors import RewardError
from pagopt_rewards.weights import check_tensors

__all__ = ["clip_from_open_clip"]

OUTER = {
    "logit_scale": "logit_scale",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "text_projection": "text_projection.weight",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "ln_final": "text_model.final_layer_norm",
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.proj": "visual_projection.weight",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.ln_pre": "vision_model.pre_layrnorm",
    "visual.ln_post": "vision_model.post_layernorm",
}
INNER = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
TURNED = {"text_projection", "visual.proj"}  # transformers keeps them as linear layers
PARTS = ("q_proj", "k_proj", "v_proj")  # transformers' three of what open_clip keeps as one


def clip_from_open_clip(
    state: Mapping[str, Tensor],
    path: Path,
    model: str,
    dtype: torch.dtype,
    *,
    hidden_act: str = "gelu",
    vision_head: int = 64,
    text_head: int = 64,
) -> Any:
    """A ``CLIPModel`` with the weights of an open_clip ViT; widths, depths and sizes are those of its tensors.

    Args:
        state: The tensors by open_clip's names.
        path: Where they are from, and ``model`` what they should be, for messages.
        dtype: The type of the finished model.
        hidden_act: "gelu", or "quick_gelu" for OpenAI's weights.
        vision_head: Width of one attention head of the image tower, which no tensor shows.
        text_head: The same of the text tower.

    Raises:
        RewardError: If they are not those of a CLIP with a vision transformer.
    """
    # Here, because importing transformers takes seconds, and `pagopt rewards` only wants a docstring.
    from transformers import CLIPConfig, CLIPModel

    config = CLIPConfig(**_config(state, path, model, hidden_act, vision_head, text_head))
    names = _names(config.vision_config.num_hidden_layers, config.text_config.num_hidden_layers)
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in CLIPModel(config).state_dict().items()}
    check_tensors(state, {name: _shape(name, new, shapes) for name, new in names.items()}, path, model)
    converted: dict[str, Tensor] = {}
    for name, new in names.items():
        tensor = state[name].T if name in TURNED else state[name]
        parts = tensor.chunk(len(new)) if len(new) > 1 else (tensor,)
        # Copies, since the tensors may lie in the file.
        copies = [part.to(dtype, copy=True, memory_format=torch.contiguous_format) for part in parts]
        converted.update(zip(new, copies, strict=True))
    return CLIPModel.from_pretrained(None, config=config, state_dict=converted, dtype=dtype).eval()


def _names(vision_layers: int, text_layers: int) -> dict[str, list[str]]:
    """Every open_clip name, with the transformers names of what it becomes."""
    found: dict[str, list[str]] = {}
    for old, new in OUTER.items():
        ends = (".weight", ".bias") if ".ln_" in f".{old}" else ("",)
        found.update({old + end: [new + end] for end in ends})
    for stem, layers, tower in (
        ("visual.transformer", vision_layers, "vision_model"),
        ("transformer", text_layers, "text_model"),
    ):
        for layer in range(layers):
            old, new = f"{stem}.resblocks.{layer}", f"{tower}.encoder.layers.{layer}"
            for end in ("weight", "bias"):
                found.update({f"{old}.{inner}.{end}": [f"{new}.{name}.{end}"] for inner, name in INNER.items()})
                found[f"{old}.attn.in_proj_{end}"] = [f"{new}.self_attn.{part}.{end}" for part in PARTS]
    return found


def _shape(name: str, new: list[str], shapes: Mapping[str, torch.Size]) -> tuple[int, ...]:
    shape = tuple(shapes[new[0]])
    if name in TURNED:
        return shape[::-1]
    return (len(new) * shape[0], *shape[1:]) if len(new) > 1 else shape


def _config(
    state: Mapping[str, Tensor], path: Path, model: str, hidden_act: str, vision_head: int, text_head: int
) -> dict[str, Any]:
    needed = {
        "visual.conv1.weight": 4,
        "visual.positional_embedding": 2,
        "positional_embedding": 2,
        "token_embedding.weight": 2,
        "text_projection": 2,
        "visual.transformer.resblocks.0.mlp.c_fc.weight": 2,
        "transformer.resblocks.0.mlp.c_fc.weight": 2,
    }
    absent = [name for name, axes in needed.items() if name not in state or state[name].ndim != axes]
    if absent:
        raise RewardError(
            f"{path} is no checkpoint of {model}: among its {len(state)} tensors ({', '.join(list(state)[:3])}, ...) "
            f"there is no {absent[0]}, or it has another number of axes. Give the file made for that model."
        )
    conv, places = state["visual.conv1.weight"], state["visual.positional_embedding"]
    words, sequence = state["token_embedding.weight"], state["positional_embedding"]
    patch, last = conv.shape[-1], words.shape[0] - 1
    return {
        "projection_dim": state["text_projection"].shape[1],
        "vision_config": {
            "hidden_size": conv.shape[0],
            "intermediate_size": state["visual.transformer.resblocks.0.mlp.c_fc.weight"].shape[0],
            "num_hidden_layers": _layers(state, "visual.transformer"),
            "num_attention_heads": _heads(conv.shape[0], vision_head, path, model),
            "patch_size": patch,
            "image_size": patch * math.isqrt(places.shape[0] - 1),
            "hidden_act": hidden_act,
        },
        "text_config": {
            "hidden_size": words.shape[1],
            "intermediate_size": state["transformer.resblocks.0.mlp.c_fc.weight"].shape[0],
            "num_hidden_layers": _layers(state, "transformer"),
            "num_attention_heads": _heads(words.shape[1], text_head, path, model),
            "vocab_size": words.shape[0],
            "max_position_embeddings": sequence.shape[0],
            "hidden_act": hidden_act,
            # The end of a text is the last word of the vocabulary: open_clip looks for the highest number.
            "bos_token_id": last - 1,
            "eos_token_id": last,
            "pad_token_id": last,
        },
    }


def _layers(state: Mapping[str, Tensor], stem: str) -> int:
    found = (re.match(rf"{re.escape(stem)}\.resblocks\.(\d+)\.", name) for name in state)
    return len({match[1] for match in found if match})


def _heads(width: int, head: int, path: Path, model: str) -> int:
    if width % head:
        raise RewardError(f"{path} is no checkpoint of {model}: its width {width} is no multiple of a head's, {head}")
    return width // head
