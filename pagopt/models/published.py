"""The published configurations of transformers whose hub asks for a login before it shows them."""

from __future__ import annotations

from typing import Any

__all__ = ["PUBLISHED", "published"]

_SD3 = {
    "_class_name": "SD3Transformer2DModel",
    "sample_size": 128,
    "patch_size": 2,
    "in_channels": 16,
    "out_channels": 16,
    "attention_head_dim": 64,
    "joint_attention_dim": 4096,
    "pooled_projection_dim": 2048,
    "pos_embed_max_size": 192,
}
_MEDIUM = {"num_layers": 24, "num_attention_heads": 24, "caption_projection_dim": 1536}
_FLUX = {
    "_class_name": "FluxTransformer2DModel",
    "patch_size": 1,
    "in_channels": 64,
    "num_layers": 19,
    "num_single_layers": 38,
    "attention_head_dim": 128,
    "num_attention_heads": 24,
    "joint_attention_dim": 4096,
    "pooled_projection_dim": 768,
    "guidance_embeds": True,
    "axes_dims_rope": (16, 56, 56),
}
PUBLISHED: dict[str, dict[str, Any]] = {
    "stabilityai/stable-diffusion-3-medium-diffusers": _SD3 | _MEDIUM,
    "stabilityai/stable-diffusion-3.5-medium": _SD3
    | _MEDIUM
    | {"pos_embed_max_size": 384, "dual_attention_layers": tuple(range(13)), "qk_norm": "rms_norm"},
    "stabilityai/stable-diffusion-3.5-large": _SD3
    | {"num_layers": 38, "num_attention_heads": 38, "caption_projection_dim": 2432, "qk_norm": "rms_norm"},
    "black-forest-labs/FLUX.1-dev": _FLUX,
    "black-forest-labs/FLUX.1-schnell": _FLUX | {"guidance_embeds": False},
}
"""By hub id."""


def published(source: str) -> dict[str, Any] | None:
    """The transformer's configuration, if it comes with pagopt.

    Args:
        source: What :func:`pagopt.models.resolve_model` gives.
    """
    return PUBLISHED.get(source)
