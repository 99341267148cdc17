"""FLUX.1-dev and -schnell (https://github.com/black-forest-labs/flux): ``FluxTransformer2DModel``.

Blocks count through: first the double blocks, whose text and image tokens have projections of their own (0 to 18 in
FLUX.1), then the single blocks, in which both run through the same ones (19 to 56). The order of tokens is [text,
image] in both. The distilled ``guidance_scale`` is an input of the model and has nothing to do with classifier-free
guidance, which a pipeline does in calls of its own where it gets ``true_cfg_scale`` and a negative prompt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, cast

import torch
from diffusers.models.embeddings import apply_rotary_emb
from torch import Tensor, nn

from pagopt.heads import HeadMap, Site
from pagopt.models.anatomy import Attention, Family, Output, Stream
from pagopt.models.taps import double_streams, split_taps

__all__ = ["FLUX", "grid_of_ids", "rotate_joint"]


class FLUX(Family):
    """Anatomy of FLUX.1."""

    name: ClassVar[str] = "flux"
    transformer: ClassVar[str] = "FluxTransformer2DModel"
    pipelines: ClassVar[tuple[str, ...]] = (
        "FluxPipeline",
        "FluxImg2ImgPipeline",
        "FluxInpaintPipeline",
        "FluxControlNetPipeline",
        "FluxControlNetImg2ImgPipeline",
        "FluxControlNetInpaintPipeline",
    )
    processors: ClassVar[frozenset[str]] = frozenset({"FluxAttnProcessor"})
    branches: ClassVar[Literal["batch", "calls"]] = "calls"
    shared: ClassVar[frozenset[str]] = frozenset({"img_ids", "txt_ids", "image_rotary_emb"})
    residuals: ClassVar[frozenset[str]] = frozenset({"controlnet_block_samples", "controlnet_single_block_samples"})
    time_divisor: ClassVar[float] = 1000.0

    def head_map_from_config(self, config: Mapping[str, Any]) -> HeadMap:
        blocks = int(config["num_layers"]) + int(config["num_single_layers"])
        return HeadMap(tuple(Site(block, "attn", int(config["num_attention_heads"])) for block in range(blocks)))

    def blocks(self, transformer: nn.Module) -> Sequence[nn.Module]:
        double = cast("nn.ModuleList", transformer.transformer_blocks)
        single = cast("nn.ModuleList", transformer.single_transformer_blocks)
        return [*double, *single]

    def attentions(self, transformer: nn.Module) -> Sequence[Attention]:
        double = len(cast("nn.ModuleList", transformer.transformer_blocks))
        found = []
        for block, module in enumerate(self.blocks(transformer)):
            attention: Any = module.attn
            width = int(attention.inner_dim)
            if block < double:
                streams: tuple[Stream, ...] = double_streams(attention, width)
            else:
                # The block's own projection takes the attention's output, beside that of its MLP.
                projection = cast("nn.Module", module.proj_out)
                own = split_taps(attention, ("to_q", "to_k", "to_v"), "to_qkv", width)
                norms = (attention.norm_q, attention.norm_k)
                streams = (Stream("joint", *own, norms, Output(projection, width)),)
            found.append(Attention(block, "attn", int(attention.heads), attention, streams))
        return found

    def tail(self, transformer: nn.Module) -> Sequence[nn.Module]:
        return [cast("nn.Module", transformer.norm_out)]

    def encode(self, pipe: Any, prompts: Sequence[str]) -> list[dict[str, Tensor]]:
        # What FLUX.1-schnell was trained with is half of what -dev takes; the tokenizer does not know.
        length = 512 if pipe.transformer.config.guidance_embeds else 256
        rows, pooled, _ = pipe.encode_prompt(prompt=list(prompts), prompt_2=None, max_sequence_length=length)
        return [
            {"prompt_embeds": rows[i : i + 1], "pooled_prompt_embeds": pooled[i : i + 1]} for i in range(len(prompts))
        ]

    def cfg_arguments(self, pipe: Any, cfg: float) -> dict[str, float]:
        return {"true_cfg_scale": cfg}

    def pixels(self, pipe: Any) -> int:
        return 2 * int(pipe.vae_scale_factor)

    def grid(self, given: Mapping[str, Any], transformer: nn.Module) -> tuple[int, int]:
        return grid_of_ids(given["img_ids"])

    def unsupported(self, given: Mapping[str, Any]) -> str | None:
        if (given.get("joint_attention_kwargs") or {}).get("attention_mask") is not None:
            return "an attention_mask in joint_attention_kwargs, of which targets and copies would not know"
        return None

    def rotate(self, parts: Sequence[Tensor], call: Mapping[str, Any], rows: Tensor) -> Sequence[Tensor]:
        return rotate_joint(parts, call.get("image_rotary_emb"))


def grid_of_ids(ids: Tensor) -> tuple[int, int]:
    """Rows and columns of packed image tokens from their position ids (tokens, 3 or more): (?, row, column, ...)."""
    last = ids.reshape(-1, ids.shape[-1])[-1]
    return int(last[1]) + 1, int(last[2]) + 1


def rotate_joint(parts: Sequence[Tensor], rotary: tuple[Tensor, Tensor] | None) -> Sequence[Tensor]:
    """Rotary embedding over the joint tokens; ``rotary`` is (cosine, sine), each (S, width of a head)."""
    if rotary is None:
        return parts
    joint = torch.cat(list(parts), dim=1)[:, :, None]
    turned: Tensor = apply_rotary_emb(joint, rotary, sequence_dim=1)
    return torch.split(turned[:, :, 0], [part.shape[1] for part in parts], dim=1)
