"""The training set of the transformer: latents of every picture under several small shifts and scales."""

from __future__ import annotations

import torch
from diffusers import AutoencoderKL

from tools.emoji.artwork import Artwork
from tools.emoji.augment import reduce_area, shift_scale, to_unit

__all__ = ["encode_variants"]


@torch.inference_mode()
def encode_variants(vae: AutoencoderKL, artwork: Artwork, *, variants: int, seed: int = 2) -> torch.Tensor:
    """Normalised latents, float32 (styles, names, variants, C, h, w); variant 0 is the picture as drawn."""
    generator = torch.Generator().manual_seed(seed)
    pictures = to_unit(artwork.images.flatten(0, 1))
    shift, scale = float(vae.config.shift_factor), float(vae.config.scaling_factor)
    rows = []
    for variant in range(variants):
        parts = []
        for part in pictures.split(64):
            small = shift_scale(part, generator) if variant else reduce_area(part)
            parts.append((vae.encode(small).latent_dist.mode() - shift) * scale)
        rows.append(torch.cat(parts))
    latents = torch.stack(rows, dim=1)
    return latents.unflatten(0, (len(artwork.styles), len(artwork.names))).contiguous()
