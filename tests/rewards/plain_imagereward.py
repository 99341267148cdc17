"""ImageReward once more, slow and obvious: plain torch in float64, one picture and one prompt at a time, no padding."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from tiny_imagereward import EDGE, LAYERS, PATCH
from torch import Tensor
from torch.nn.functional import conv2d, gelu, layer_norm, linear

MEAN = torch.tensor([0.48145466, 0.4578275, 0.40821073], dtype=torch.float64).view(3, 1, 1)
STD = torch.tensor([0.26862954, 0.26130258, 0.27577711], dtype=torch.float64).view(3, 1, 1)


class Reference:
    """The whole model, from the tensors by its authors' names."""

    def __init__(self, state: dict[str, Tensor]) -> None:
        self.state = {name: each.double() for name, each in state.items() if each.is_floating_point()}

    def linear(self, name: str, x: Tensor) -> Tensor:
        return linear(x, self.state[f"{name}.weight"], self.state[f"{name}.bias"])

    def norm(self, name: str, x: Tensor, eps: float) -> Tensor:
        return layer_norm(x, x.shape[-1:], self.state[f"{name}.weight"], self.state[f"{name}.bias"], eps)

    @staticmethod
    def attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """(m, width) that look at (n, width), head by head, 64 numbers each."""
        heads = []
        for start in range(0, query.shape[-1], 64):
            q, k, v = (each[:, start : start + 64] for each in (query, key, value))
            heads.append((q @ k.T / 8).softmax(dim=-1) @ v)
        return torch.cat(heads, dim=-1)

    def see(self, pixels: Tensor) -> Tensor:
        stem = "blip.visual_encoder"
        patches = conv2d(
            pixels[None],
            self.state[f"{stem}.patch_embed.proj.weight"],
            self.state[f"{stem}.patch_embed.proj.bias"],
            stride=PATCH,
        )[0]
        x = torch.cat([self.state[f"{stem}.cls_token"][0], patches.flatten(1).T]) + self.state[f"{stem}.pos_embed"][0]
        for i in range(LAYERS):
            block = f"{stem}.blocks.{i}"
            parts = self.linear(f"{block}.attn.qkv", self.norm(f"{block}.norm1", x, 1e-6)).chunk(3, dim=-1)
            x = x + self.linear(f"{block}.attn.proj", self.attention(*parts))
            wide = gelu(self.linear(f"{block}.mlp.fc1", self.norm(f"{block}.norm2", x, 1e-6)))
            x = x + self.linear(f"{block}.mlp.fc2", wide)
        return self.norm(f"{stem}.norm", x, 1e-6)

    def look(self, name: str, x: Tensor, at: Tensor) -> Tensor:
        query, key, value = (
            self.linear(f"{name}.self.{part}", of) for part, of in (("query", x), ("key", at), ("value", at))
        )
        mixed = self.linear(f"{name}.output.dense", self.attention(query, key, value))
        return self.norm(f"{name}.output.LayerNorm", mixed + x, 1e-12)

    def layer(self, index: int, x: Tensor, seen: Tensor) -> Tensor:
        """One layer of BERT that looks at its own words, then at the picture."""
        name = f"blip.text_encoder.encoder.layer.{index}"
        x = self.look(f"{name}.crossattention", self.look(f"{name}.attention", x, x), seen)
        wide = gelu(self.linear(f"{name}.intermediate.dense", x))
        return self.norm(f"{name}.output.LayerNorm", self.linear(f"{name}.output.dense", wide) + x, 1e-12)

    def score(self, pixels: Tensor, tokens: list[int]) -> float:
        seen, name = self.see(pixels), "blip.text_encoder.embeddings"
        x = self.state[f"{name}.word_embeddings.weight"][tokens]
        x = self.norm(f"{name}.LayerNorm", x + self.state[f"{name}.position_embeddings.weight"][: len(tokens)], 1e-12)
        for index in range(LAYERS):
            x = self.layer(index, x, seen)
        y = x[0]
        for index in (0, 2, 4, 6, 7):
            y = self.linear(f"mlp.layers.{index}", y)
        return (float(y) - 0.16717362830052426) / 1.0333394966054072


def cropped(image: Image.Image) -> Tensor:
    """The middle square of a picture whose shorter side was brought to EDGE, normalised, in float64."""
    width, height = image.size
    if width <= height:
        image = image.resize((EDGE, int(EDGE * height / width)), Image.Resampling.BICUBIC)
    else:
        image = image.resize((int(EDGE * width / height), EDGE), Image.Resampling.BICUBIC)
    left, top = (int(np.round((side - EDGE) / 2)) for side in image.size)
    values = np.asarray(image, dtype=np.float64)[top : top + EDGE, left : left + EDGE]
    return (torch.from_numpy(values).permute(2, 0, 1) / 255 - MEAN) / STD
