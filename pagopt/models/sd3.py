"""Stable Diffusion 3 and 3.5 (https://arxiv.org/abs/2403.03206): ``SD3Transformer2DModel``.

Every block has one joint attention ``attn`` over [image, text] tokens. In SD3.5-medium the first blocks also
have ``attn2``, over the image tokens alone. The last block throws its text output away
(``context_pre_only``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, cast

from torch import Tensor, nn

from pagopt.errors import ModelError
from pagopt.heads import HeadMap, Site
from pagopt.models.anatomy import Attention, Family, Output, Stream
from pagopt.models.taps import split_taps

__all__ = ["SD3"]


class SD3(Family):
    """Anatomy of Stable Diffusion 3, 3.5-medium and 3.5-large."""

    name: ClassVar[str] = "sd3"
    transformer: ClassVar[str] = "SD3Transformer2DModel"
    pipelines: ClassVar[tuple[str, ...]] = (
        "StableDiffusion3Pipeline",
        "StableDiffusion3Img2ImgPipeline",
        "StableDiffusion3InpaintPipeline",
        "StableDiffusion3ControlNetPipeline",
        "StableDiffusion3ControlNetInpaintingPipeline",
    )
    processors: ClassVar[frozenset[str]] = frozenset({"JointAttnProcessor2_0", "FusedJointAttnProcessor2_0"})
    residuals: ClassVar[frozenset[str]] = frozenset({"block_controlnet_hidden_states"})

    def head_map_from_config(self, config: Mapping[str, Any]) -> HeadMap:
        dual = set(config.get("dual_attention_layers") or ())
        return HeadMap(
            tuple(
                Site(block, name, int(config["num_attention_heads"]))
                for block in range(int(config["num_layers"]))
                for name in (("attn", "attn2") if block in dual else ("attn",))
            )
        )

    def blocks(self, transformer: nn.Module) -> Sequence[nn.Module]:
        return list(cast("nn.ModuleList", transformer.transformer_blocks))

    def attentions(self, transformer: nn.Module) -> Sequence[Attention]:
        found = []
        for block, module in enumerate(self.blocks(transformer)):
            for site in ("attn", "attn2"):
                attention: Any = getattr(module, site, None)
                if attention is None:
                    continue
                width = int(attention.inner_dim)
                streams = [
                    Stream(
                        "image",
                        *split_taps(attention, ("to_q", "to_k", "to_v"), "to_qkv", width),
                        (attention.norm_q, attention.norm_k),
                        Output(attention.to_out[0], width),
                    )
                ]
                if site == "attn":
                    out = attention.to_add_out
                    streams.append(
                        Stream(
                            "text",
                            *split_taps(attention, ("add_q_proj", "add_k_proj", "add_v_proj"), "to_added_qkv", width),
                            (attention.norm_added_q, attention.norm_added_k),
                            None if out is None else Output(out, width),
                        )
                    )
                found.append(Attention(block, site, int(attention.heads), attention, tuple(streams)))
        return found

    def check_processor(self, attention: Attention) -> None:
        super().check_processor(attention)
        module: Any = attention.module
        if type(module.processor).__name__.startswith("Fused") and module.norm_q is not None:
            raise ModelError(
                "with fused projections diffusers leaves out the normalisation of queries and keys that these weights "
                "were trained with (SD3.5 has it), so that the model draws other pictures, also without guidance: call "
                "pipe.transformer.unfuse_qkv_projections()"
            )

    def tail(self, transformer: nn.Module) -> Sequence[nn.Module]:
        return [cast("nn.Module", transformer.norm_out)]

    def encode(self, pipe: Any, prompts: Sequence[str]) -> list[dict[str, Tensor]]:
        # The pipeline's default, but no more rows than the third tokenizer can fill: the rest would be padding.
        length = min(256, getattr(pipe.tokenizer_3, "model_max_length", 256))
        rows, _, pooled, _ = pipe.encode_prompt(
            prompt=list(prompts),
            prompt_2=None,
            prompt_3=None,
            do_classifier_free_guidance=False,
            max_sequence_length=length,
        )
        return [
            {"prompt_embeds": rows[i : i + 1], "pooled_prompt_embeds": pooled[i : i + 1]} for i in range(len(prompts))
        ]

    def cfg_arguments(self, pipe: Any, cfg: float) -> dict[str, float]:
        return {"guidance_scale": cfg}

    def grid(self, given: Mapping[str, Any], transformer: nn.Module) -> tuple[int, int]:
        patch = int(cast("Any", transformer).config.patch_size)
        height, width = given["hidden_states"].shape[-2:]
        return height // patch, width // patch
