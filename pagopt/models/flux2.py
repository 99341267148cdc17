"""FLUX.2-dev and FLUX.2-klein (https://github.com/black-forest-labs/flux2): ``Flux2Transformer2DModel``.

Blocks count through as in FLUX.1: first the double blocks, whose text and image tokens have projections of their own (0
to 7 in FLUX.2-dev), then the single blocks, in which both run through the same ones (8 to 55). The order of tokens is
[text, image] in both. A single block projects to Q, K, V and its MLP at once, and back from both at once.

``guidance_scale`` of FLUX.2-dev is an input of the model and has nothing to do with classifier-free guidance. The klein
pipeline does classifier-free guidance in two calls of the transformer, unless the model is a distilled one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, cast

from torch import Tensor, nn

from pagopt.errors import ModelError
from pagopt.models.anatomy import Attention, Output, Stream, Tap
from pagopt.models.flux import FLUX
from pagopt.models.taps import double_streams

__all__ = ["FLUX2", "FLUX2Klein"]


class FLUX2(FLUX):
    """Anatomy of FLUX.2-dev: that of FLUX.1 with other single blocks."""

    name: ClassVar[str] = "flux2"
    transformer: ClassVar[str] = "Flux2Transformer2DModel"
    pipelines: ClassVar[tuple[str, ...]] = ("Flux2Pipeline",)
    processors: ClassVar[frozenset[str]] = frozenset({"Flux2AttnProcessor", "Flux2ParallelSelfAttnProcessor"})
    residuals: ClassVar[frozenset[str]] = frozenset()

    def attentions(self, transformer: nn.Module) -> Sequence[Attention]:
        double = len(cast("nn.ModuleList", transformer.transformer_blocks))
        found = []
        for block, module in enumerate(self.blocks(transformer)):
            attention: Any = module.attn
            width = int(attention.inner_dim)
            if block < double:
                streams: tuple[Stream, ...] = double_streams(attention, width)
            else:
                norms = (attention.norm_q, attention.norm_k)
                # Q, K, V and then the MLP come out of one projection; the attention's output and the MLP's go into one.
                q, k, v = ((Tap(attention.to_qkv_mlp_proj, i * width, (i + 1) * width),) for i in range(3))
                streams = (Stream("joint", q, k, v, norms, Output(attention.to_out, width)),)
            found.append(Attention(block, "attn", int(attention.heads), attention, streams))
        return found

    def encode(self, pipe: Any, prompts: Sequence[str]) -> list[dict[str, Tensor]]:
        rows, _ = pipe.encode_prompt(prompt=list(prompts))
        return [{"prompt_embeds": rows[i : i + 1]} for i in range(len(prompts))]

    def cfg_arguments(self, pipe: Any, cfg: float) -> dict[str, float]:
        if cfg > 1:
            raise ModelError(
                "the pipeline of FLUX.2-dev does no classifier-free guidance: its guidance scale is an input of the "
                "model; leave cfg at 1"
            )
        return {}

    def unsupported(self, given: Mapping[str, Any]) -> str | None:
        if given.get("kv_cache_mode") is not None:
            return "the cached keys and values of reference images (kv_cache_mode)"
        ids: Tensor = given["img_ids"]
        if int(ids.reshape(-1, ids.shape[-1])[-1, 0]) != 0:  # their tokens come last and have a time of their own
            return "reference images (the pipeline's `image`), whose tokens stand beside those of the picture"
        return super().unsupported(given)


class FLUX2Klein(FLUX2):
    """Anatomy of FLUX.2-klein: the same transformer, in a pipeline that does classifier-free guidance."""

    name: ClassVar[str] = "flux2-klein"
    pipelines: ClassVar[tuple[str, ...]] = ("Flux2KleinPipeline",)

    def cfg_arguments(self, pipe: Any, cfg: float) -> dict[str, float]:
        if cfg > 1 and pipe.config.is_distilled:
            raise ModelError("this FLUX.2-klein is a distilled model without classifier-free guidance: leave cfg at 1")
        return {"guidance_scale": cfg}
