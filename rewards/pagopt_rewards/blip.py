"""BLIP: Li et al., "Bootstrapping Language-Image Pre-training", 2022 (arXiv 2201.12086), in transformers' own classes.

A vision transformer, and a BERT whose every layer also looks at what the vision transformer saw. The names of the
tensors are those of the authors' code, https://github.com/salesforce/BLIP (BSD-3-Clause).
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

__all__ = ["Blip", "load_blip"]

VISION, TEXT = "blip.visual_encoder.", "blip.text_encoder."
OUTER = {
    "cls_token": "embeddings.class_embedding",
    "pos_embed": "embeddings.position_embedding",
    "patch_embed.proj.weight": "embeddings.patch_embedding.weight",
    "patch_embed.proj.bias": "embeddings.patch_embedding.bias",
    "norm.weight": "post_layernorm.weight",
    "norm.bias": "post_layernorm.bias",
}
INNER = {
    "norm1": "layer_norm1",
    "norm2": "layer_norm2",
    "attn.qkv": "self_attn.qkv",
    "attn.proj": "self_attn.projection",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}
WORDS, PLACES = "embeddings.word_embeddings.weight", "embeddings.position_embeddings.weight"
COUNTER = "embeddings.position_ids"  # 0, 1, 2, ...: a buffer that older transformers stored
HEAD = 64  # width of an attention head in ViT-B, ViT-L and BERT-base, which no tensor shows


class Blip:
    """Both networks, in evaluation mode.

    Args:
        vision: A transformers ``BlipVisionModel``.
        text: A transformers ``BlipTextModel`` with cross-attention, without its pooling layer.

    Attributes:
        edge: Pixels a side of the square pictures it takes.
        words: How many tokens its vocabulary has.
        places: How many tokens a text may have.
        width: Numbers in what ``read`` returns.
    """

    def __init__(self, vision: Any, text: Any) -> None:
        self.vision, self.text = vision, text
        self.edge, self.width = int(vision.config.image_size), int(text.config.hidden_size)
        self.words, self.places = int(text.config.vocab_size), int(text.config.max_position_embeddings)

    def read(self, tokens: Tensor, mask: Tensor, pixels: Tensor) -> Tensor:
        """What the text network makes of its first token, while it looks at the picture.

        Args:
            tokens: int64 ``(n, length)``; ``mask`` is 1 where there is one, 0 where the text is filled up.
            pixels: float32 ``(n, 3, edge, edge)``.

        Returns:
            float32 ``(n, width)``, on the device of the networks.
        """
        device = self.vision.device
        # No mask for the picture: all of it is looked at.
        seen = self.vision(pixel_values=pixels.to(device, self.vision.dtype)).last_hidden_state
        states = self.text(
            input_ids=tokens.to(device), attention_mask=mask.to(device), encoder_hidden_states=seen
        ).last_hidden_state
        return states[:, 0].float()  # type: ignore[no-any-return]

    def move(self, device: torch.device) -> None:
        """Move both networks."""
        self.vision.to(device)
        self.text.to(device)


def load_blip(state: Mapping[str, Tensor], path: Path, model: str, dtype: torch.dtype) -> Blip:
    """BLIP with the weights of its authors' ``BLIP_Pretrain``; widths, depths and sizes are those of its tensors.

    Args:
        state: Tensors by name, the image network's after "blip.visual_encoder.", the text network's after
            "blip.text_encoder."; all others are left alone.
        path: Where they are from, and ``model`` what they should be, for messages.
        dtype: The type of the finished networks.

    Raises:
        RewardError: If tensors are missing, unknown, or of another shape.
    """
    # Here, because importing transformers takes seconds, and `pagopt rewards` only wants a docstring.
    from transformers import BlipTextConfig, BlipTextModel, BlipVisionConfig, BlipVisionModel

    sizes = _sizes(state, path, model)
    # Without memory, so that there are no random numbers to draw first.
    with torch.device("meta"):
        vision = BlipVisionModel(BlipVisionConfig(**sizes[0])).eval()
        text = BlipTextModel(BlipTextConfig(**sizes[1]), add_pooling_layer=False).eval()
    names = {VISION: _vision_names(sizes[0]["num_hidden_layers"]), TEXT: {name: name for name in text.state_dict()}}
    expected, towers = {}, {VISION: vision, TEXT: text}
    for stem, tower in towers.items():
        shapes = tower.state_dict()
        expected.update({stem + old: shapes[new].shape for old, new in names[stem].items()})
    own = {name: each for name, each in state.items() if name.startswith((VISION, TEXT)) and name != TEXT + COUNTER}
    check_tensors(own, expected, path, model)
    for stem, tower in towers.items():
        # Copies, since the tensors may lie in the file.
        copies = {new: state[stem + old].to(dtype, copy=True).contiguous() for old, new in names[stem].items()}
        tower.load_state_dict(copies, assign=True)
        tower.requires_grad_(False)
    text.embeddings.position_ids = torch.arange(sizes[1]["max_position_embeddings"])[None]
    return Blip(vision, text)


def _vision_names(layers: int) -> dict[str, str]:
    """Every name of the authors' vision transformer, with that of transformers; the text network's are the same."""
    found = dict(OUTER)
    for layer in range(layers):
        for old, new in INNER.items():
            for end in ("weight", "bias"):
                found[f"blocks.{layer}.{old}.{end}"] = f"encoder.layers.{layer}.{new}.{end}"
    return found


def _sizes(state: Mapping[str, Tensor], path: Path, model: str) -> tuple[dict[str, Any], dict[str, Any]]:
    def matrix(name: str, axes: int = 2) -> torch.Size:
        if name not in state or state[name].ndim != axes:
            raise RewardError(
                f"{path} is no checkpoint of {model}: among its {len(state)} tensors ({', '.join(list(state)[:3])}, "
                f"...) there is no {name}, or it has another number of axes. Give the file made for that model."
            )
        return state[name].shape

    def heads(width: int) -> int:
        if width % HEAD:
            raise RewardError(
                f"{path} is no checkpoint of {model}: its width {width} is no multiple of an attention head's, {HEAD}"
            )
        return width // HEAD

    def layers(stem: str) -> int:
        found = (re.match(rf"{re.escape(stem)}\.(\d+)\.", name) for name in state)
        return len({match[1] for match in found if match})

    patches, (words, width) = matrix(f"{VISION}patch_embed.proj.weight", 4), matrix(f"{TEXT}{WORDS}")
    layer = f"{TEXT}encoder.layer.0."
    seeing = {
        "hidden_size": patches[0],
        "intermediate_size": matrix(f"{VISION}blocks.0.mlp.fc1.weight")[0],
        "num_hidden_layers": layers(f"{VISION}blocks"),
        "num_attention_heads": heads(patches[0]),
        "patch_size": patches[-1],
        "image_size": patches[-1] * math.isqrt(matrix(f"{VISION}pos_embed", 3)[1] - 1),
        "layer_norm_eps": 1e-6,  # the authors'; transformers' own default is another
    }
    reading = {
        "vocab_size": words,
        "hidden_size": width,
        "encoder_hidden_size": matrix(f"{layer}crossattention.self.key.weight")[1],
        "intermediate_size": matrix(f"{layer}intermediate.dense.weight")[0],
        "num_hidden_layers": layers(f"{TEXT}encoder.layer"),
        "num_attention_heads": heads(width),
        "max_position_embeddings": matrix(f"{TEXT}{PLACES}")[0],
        "layer_norm_eps": 1e-12,
        "is_decoder": True,  # transformers' word for having cross-attention; its attention is not causal here
        "bos_token_id": None,
        "sep_token_id": None,
        "eos_token_id": None,
    }
    return seeing, reading
