"""Chroma (https://huggingface.co/lodestones/Chroma1-HD): ``ChromaTransformer2DModel``.

FLUX.1-schnell without its modulation layers: one small network, the approximator, makes the modulations of all blocks
from the timestep, and each block gets its own slice of them, batch-first. Blocks and attention are those of FLUX.1.
Text comes from T5 alone.

The pipelines give the transformer a mask: 1 for the prompt, one token of padding and the image, 0 for the rest of the
padding. diffusers 0.42 hands it to the attention as floating-point numbers, and those are *added* to the logits:
between two tokens that both have a 1 the logit is larger by 1, and no token is out of sight. So padding counts among
the tokens that may be looked at, as in FLUX.1. A mask of booleans (one's own ``prompt_attention_mask``) hides tokens.

``guidance_scale`` is classifier-free guidance, with a call of its own for the negative prompt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from pagopt.models.flux import FLUX

__all__ = ["Chroma"]


class Chroma(FLUX):
    """Anatomy of Chroma."""

    name: ClassVar[str] = "chroma"
    transformer: ClassVar[str] = "ChromaTransformer2DModel"
    pipelines: ClassVar[tuple[str, ...]] = ("ChromaPipeline", "ChromaImg2ImgPipeline", "ChromaInpaintPipeline")

    def encode(self, pipe: Any, prompts: Sequence[str]) -> list[dict[str, Tensor]]:
        found = pipe.encode_prompt(prompt=list(prompts), do_classifier_free_guidance=False, max_sequence_length=512)
        rows, _, mask, *_ = found  # always of 512 tokens, so that no prompt depends on those beside it
        return [
            {"prompt_embeds": rows[i : i + 1], "prompt_attention_mask": mask[i : i + 1]} for i in range(len(prompts))
        ]

    def cfg_arguments(self, pipe: Any, cfg: float) -> dict[str, float]:
        return {"guidance_scale": cfg}

    def key_mask(self, call: Mapping[str, Any]) -> Tensor | None:
        mask = _of_keys(call)
        return mask if mask is not None and mask.dtype == torch.bool else None

    def soft_mask(self, call: Mapping[str, Any]) -> Tensor | None:
        mask = _of_keys(call)
        return mask if mask is not None and mask.dtype != torch.bool else None


def _of_keys(call: Mapping[str, Any]) -> Tensor | None:
    """The mask as the transformer got it, (rows, tokens).

    A block multiplies that of the query with that of the key, (rows, 1, tokens, tokens). The last query is an image
    token, and the pipelines give those a 1.
    """
    mask: Tensor | None = call.get("attention_mask")
    return None if mask is None else mask[:, 0, -1]
