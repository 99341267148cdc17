"""Pictures from the shipped folder through the stock pipeline, for sheets and measurements."""

from __future__ import annotations

import numpy as np
import torch
from diffusers import StableDiffusion3Pipeline

__all__ = ["generate"]


def generate(
    pipe: StableDiffusion3Pipeline,
    prompts: list[str],
    *,
    seeds: list[int],
    guidance: float,
    steps: int = 12,
    batch: int = 50,
) -> torch.Tensor:
    """uint8 (N, 3, 64, 64), one picture for each prompt and seed; `guidance` 1 is no guidance."""
    rows = []
    for i in range(0, len(prompts), batch):
        output = pipe(
            prompts[i : i + batch],
            num_inference_steps=steps,
            guidance_scale=guidance,
            generator=[torch.Generator().manual_seed(seed) for seed in seeds[i : i + batch]],
            max_sequence_length=1,
            output_type="np",
        )
        rows.append(np.asarray(output.images))
    pictures = torch.from_numpy(np.concatenate(rows)).permute(0, 3, 1, 2)
    return (pictures * 255).round().to(torch.uint8)
