"""Qwen-Image (https://arxiv.org/abs/2508.02324): ``QwenImageTransformer2DModel``.

All blocks are double ones: text and image tokens have projections of their own, in the order [text, image], and the
rotary embedding is applied to each of the two. Text of unequal length is padded, and the padding is masked out of the
attention of all tokens.

Classifier-free guidance is two calls of the transformer, where there is a negative prompt and ``true_cfg_scale`` is
above 1. The pipelines then rescale what comes out, token by token, to the norm of the conditional prediction. Both
predictions are shifted by ``w (cond - perturbed)``, so that the sum before the rescaling is
``uncond + g (cond - uncond) + w (cond - perturbed)`` as everywhere; the norm that it is rescaled to is that of
``cond + w (cond - perturbed)``. So under this guidance ``w`` turns a token's prediction as it does in other families,
and lengthens it only as much as it lengthens the guided conditional one. Without a negative prompt nothing is rescaled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, cast

import torch
from diffusers.models.transformers.transformer_qwenimage import apply_rotary_emb_qwen
from torch import Tensor, nn

from pagopt.errors import ModelError
from pagopt.heads import HeadMap, Site
from pagopt.models.anatomy import Attention, Family
from pagopt.models.taps import double_streams

__all__ = ["QwenImage"]


class QwenImage(Family):
    """Anatomy of Qwen-Image."""

    name: ClassVar[str] = "qwen-image"
    transformer: ClassVar[str] = "QwenImageTransformer2DModel"
    pipelines: ClassVar[tuple[str, ...]] = (
        "QwenImagePipeline",
        "QwenImageImg2ImgPipeline",
        "QwenImageInpaintPipeline",
        "QwenImageControlNetPipeline",
    )
    processors: ClassVar[frozenset[str]] = frozenset({"QwenDoubleStreamAttnProcessor2_0"})
    branches: ClassVar[Literal["batch", "calls"]] = "calls"
    shared: ClassVar[frozenset[str]] = frozenset({"img_shapes", "image_rotary_emb"})
    residuals: ClassVar[frozenset[str]] = frozenset({"controlnet_block_samples"})
    time_divisor: ClassVar[float] = 1000.0

    def head_map_from_config(self, config: Mapping[str, Any]) -> HeadMap:
        if config.get("zero_cond_t"):
            raise ModelError(
                "this Qwen-Image transformer has zero_cond_t (an editing model), which doubles the batch of its time "
                "embedding; pagopt does not support that"
            )
        heads, blocks = int(config["num_attention_heads"]), int(config["num_layers"])
        return HeadMap(tuple(Site(block, "attn", heads) for block in range(blocks)))

    def blocks(self, transformer: nn.Module) -> Sequence[nn.Module]:
        return list(cast("nn.ModuleList", transformer.transformer_blocks))

    def attentions(self, transformer: nn.Module) -> Sequence[Attention]:
        found = []
        for block, module in enumerate(self.blocks(transformer)):
            attention: Any = module.attn
            width = int(attention.inner_dim)
            streams = double_streams(attention, width)
            found.append(Attention(block, "attn", int(attention.heads), attention, streams))
        return found

    def tail(self, transformer: nn.Module) -> Sequence[nn.Module]:
        return [cast("nn.Module", transformer.norm_out)]

    def encode(self, pipe: Any, prompts: Sequence[str]) -> list[dict[str, Tensor]]:
        rows, mask = pipe.encode_prompt(prompt=list(prompts), max_sequence_length=512)
        lengths = [rows.shape[1]] * len(prompts) if mask is None else mask.sum(dim=1).tolist()
        found = []
        for i, length in enumerate(lengths):  # without padding: what a prompt gives depends on no other
            embeds = rows[i : i + 1, :length]
            found.append({"prompt_embeds": embeds, "prompt_embeds_mask": embeds.new_ones(1, length, dtype=torch.long)})
        return found

    def join(self, rows: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        # The negative prompt comes in a call of its own, so it need not be as long as any other.
        longest = max(row["prompt_embeds"].shape[1] for row in rows)

        def padded(name: str) -> Tensor:
            return torch.cat([_pad(row[name], longest) for row in rows])

        return {name: padded(name) for name in ("prompt_embeds", "prompt_embeds_mask")}

    def cfg_arguments(self, pipe: Any, cfg: float) -> dict[str, float]:
        return {"true_cfg_scale": cfg}

    def pixels(self, pipe: Any) -> int:
        return 2 * int(pipe.vae_scale_factor)

    def grid(self, given: Mapping[str, Any], transformer: nn.Module) -> tuple[int, int]:
        _, rows, columns = _shapes(given)[0]
        return int(rows), int(columns)

    def rotate(self, parts: Sequence[Tensor], call: Mapping[str, Any], rows: Tensor) -> Sequence[Tensor]:
        rotary = call.get("image_rotary_emb")
        if rotary is None:
            return parts
        image, text = rotary
        return [
            apply_rotary_emb_qwen(part[:, :, None], positions, use_real=False)[:, :, 0]
            for part, positions in zip(parts, (text, image), strict=True)
        ]

    def key_mask(self, call: Mapping[str, Any]) -> Tensor | None:
        text: Tensor | None = call.get("encoder_hidden_states_mask")
        if text is None:
            return None
        image = text.new_ones(text.shape[0], call["hidden_states"].shape[1], dtype=torch.bool)
        return torch.cat([text.bool(), image], dim=1)

    def unsupported(self, given: Mapping[str, Any]) -> str | None:
        shapes = _shapes(given)
        if len(shapes) != 1 or shapes[0][0] != 1:
            return f"image tokens of several pictures or frames in one row (img_shapes of {shapes})"
        return None


def _pad(text: Tensor, length: int) -> Tensor:
    """(1, tokens, ...) with zeros up to (1, length, ...)."""
    return torch.cat([text, text.new_zeros(1, length - text.shape[1], *text.shape[2:])], dim=1)


def _shapes(given: Mapping[str, Any]) -> list[tuple[int, int, int]]:
    """(Frames, rows, columns) of the pictures in each row of the batch; all rows are alike."""
    first = given["img_shapes"][0]
    return first if isinstance(first, list) else [first]
