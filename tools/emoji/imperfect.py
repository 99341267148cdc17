"""Imperfect pictures with a known label: what the model makes of half-noised artwork, and whole generations."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import StableDiffusion3Pipeline
from safetensors.torch import load_file, save_file

from tools.emoji.captions import caption, name_of

__all__ = ["Bank", "make_bank"]


@dataclass(frozen=True)
class Bank:
    """`images` is uint8 (N, 3, 64, 64), `labels` int64 (N, 2) of style and name."""

    images: torch.Tensor
    labels: torch.Tensor

    def save(self, path: Path) -> None:
        """Write as safetensors."""
        save_file({"images": self.images, "labels": self.labels}, path)

    @staticmethod
    def load(path: Path) -> Bank:
        """Read what `save` wrote."""
        return Bank(**load_file(path))


@torch.inference_mode()
def make_bank(
    pipe: StableDiffusion3Pipeline,
    latents: torch.Tensor,
    styles: list[str],
    names: list[str],
    held_out: list[tuple[int, int]],
    *,
    count: int,
    batch: int = 64,
    seed: int = 5,
    low: float = 0.3,
    high: float = 0.9,
) -> Bank:
    """Noise latents of artwork to a time in `low`..`high` and finish them in one to four steps.

    A third is finished under the true caption, a third under the content or the style alone, and a third under the
    empty prompt: the label is known either way, because enough of the picture is left.
    """
    generator = torch.Generator().manual_seed(seed)
    absent = set(held_out)
    pairs = torch.tensor([(s, n) for s in range(len(styles)) for n in range(len(names)) if (s, n) not in absent])
    images, labels = [], []
    from tqdm import tqdm

    for _ in tqdm(range(0, count, batch), desc="imperfect pictures", unit="batch", mininterval=2):
        rows = pairs[torch.randint(len(pairs), (batch,), generator=generator)]
        kind = torch.randint(6, (batch,), generator=generator).tolist()
        prompts = []
        for (s, n), k in zip(rows.tolist(), kind, strict=True):
            style, name = styles[s], name_of(names[n])
            prompts.append([caption(style, name), caption(style, name), name, style, "", ""][k])
        text, _, pooled, _ = pipe.encode_prompt(
            prompts, prompts, prompts, do_classifier_free_guidance=False, max_sequence_length=12
        )
        variant = torch.randint(latents.shape[2], (batch,), generator=generator)
        clean = latents[rows[:, 0], rows[:, 1], variant]
        steps = int(torch.randint(1, 5, (1,), generator=generator))
        # Where nothing is said about the content, enough of the picture must be left.
        limit = torch.tensor([high, high, high, high - 0.25, high - 0.25, high - 0.25])[kind]
        start = low + (limit - low) * torch.rand(batch, generator=generator)
        x = torch.lerp(clean, torch.randn(clean.shape, generator=generator), start[:, None, None, None])
        for step in range(steps):
            now, then = start * (1 - step / steps), start * (1 - (step + 1) / steps)
            velocity = pipe.transformer(
                hidden_states=x,
                encoder_hidden_states=text,
                pooled_projections=pooled,
                timestep=now * 1000,
                return_dict=False,
            )[0]
            x = x + (then - now)[:, None, None, None] * velocity
        x = x / pipe.vae.config.scaling_factor + pipe.vae.config.shift_factor
        decoded = pipe.vae.decode(x, return_dict=False)[0]
        images.append(((decoded.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8))
        labels.append(rows)
    return Bank(torch.cat(images), torch.cat(labels))
