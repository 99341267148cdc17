"""Training of the transformer and its text encoders: rectified flow in the convention of diffusers' SD3."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers.models.attention_processor import Attention
from torch import nn
from transformers import CLIPTokenizer

from tools.emoji.captions import name_of, training_caption
from tools.emoji.pipeline import SHIFT, Anatomy, Denoiser
from tools.emoji.training import MovingAverage, Stage

__all__ = ["CountedPadding", "DenoiserStage", "training_times"]


class CountedPadding:
    """Joint attention in which the last text row stands for `n` equal rows: its logit is raised by log n.

    The stock pipeline appends `max_sequence_length` zero rows to the text when there is no T5 (256 by default). Equal
    rows stay equal through every block, so one row with this weight gives exactly what n rows give, and training can
    show the model every length at the cost of one. Only training uses this; the shipped model has stock attention.
    """

    def __call__(
        self,
        attn: Attention,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        padding: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """`padding` is log n, (B, 1, 1, rows) with zeros for all other rows."""
        images = hidden_states.shape[1]

        def heads(rows: torch.Tensor) -> torch.Tensor:
            return rows.unflatten(-1, (attn.heads, -1)).transpose(1, 2)

        q, k, v = (heads(f(hidden_states)) for f in (attn.to_q, attn.to_k, attn.to_v))
        tq, tk, tv = (heads(f(encoder_hidden_states)) for f in (attn.add_q_proj, attn.add_k_proj, attn.add_v_proj))
        q = torch.cat([attn.norm_q(q), attn.norm_added_q(tq)], dim=2)
        k = torch.cat([attn.norm_k(k), attn.norm_added_k(tk)], dim=2)
        out = F.scaled_dot_product_attention(q, k, torch.cat([v, tv], dim=2), attn_mask=padding)
        out = out.transpose(1, 2).flatten(2)
        text = out[:, images:]
        return attn.to_out[0](out[:, :images]), text if attn.context_pre_only else attn.to_add_out(text)


def training_times(rows: int, generator: torch.Generator, shift: float = SHIFT) -> torch.Tensor:
    """Logit-normal times in (0, 1), shifted as the scheduler shifts its own; 1 is pure noise."""
    times = torch.sigmoid(torch.randn(rows, generator=generator))
    return shift * times / (1 + (shift - 1) * times)


class DenoiserStage(Stage):
    """Predict `noise - latent` from `(1 - t) latent + t noise`, t * 1000 and a caption."""

    def __init__(
        self,
        latents: torch.Tensor,
        styles: list[str],
        names: list[str],
        held_out: list[tuple[int, int]],
        tokenizer: CLIPTokenizer,
        *,
        steps: int,
        batch: int = 64,
        lr: float = 1e-3,
        seed: int = 3,
        anatomy: Anatomy | None = None,
        synonyms: Mapping[str, Sequence[str]] | None = None,
        start: Path | None = None,
        compiled: bool = True,
    ) -> None:
        super().__init__(steps=steps, lr=lr, batch=batch, seed=seed)
        self.latents, self.styles, self.tokenizer = latents, styles, tokenizer
        self.names = [name_of(name) for name in names]
        self.synonyms = [(synonyms or {}).get(name, ()) for name in names]
        absent = set(held_out)
        pairs = [(s, n) for s in range(len(styles)) for n in range(len(names)) if (s, n) not in absent]
        self.pairs = torch.tensor(pairs)
        torch.manual_seed(seed)
        self.model = Denoiser(tokenizer, anatomy or Anatomy())
        if start is not None:
            self.model.load(start)
        self.average = MovingAverage(self.model)
        self.model.transformer.set_attn_processor(CountedPadding())
        if compiled:
            self.model.transformer.compile()

    def trained(self) -> nn.Module:
        return self.model

    def orthogonal(self) -> list[nn.Parameter]:
        """The matrices of the blocks."""
        return [p for p in self.model.transformer.transformer_blocks.parameters() if p.ndim == 2]

    def tokens(self, captions: list[str]) -> torch.Tensor:
        """Token rows exactly as the pipeline makes them."""
        encoded = self.tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt")
        rows: torch.Tensor = encoded.input_ids
        return rows.to(self.device)

    def loss(self, step: int, generator: torch.Generator) -> dict[str, torch.Tensor]:
        rows = self.pairs[torch.randint(len(self.pairs), (self.batch,), generator=generator)]
        variant = torch.randint(self.latents.shape[2], (self.batch,), generator=generator)
        latents = self.latents[rows[:, 0], rows[:, 1], variant]
        captions = [
            training_caption(self.styles[s], self.names[n], generator, self.synonyms[n]) for s, n in rows.tolist()
        ]
        noise = torch.randn(latents.shape, generator=generator)
        times = training_times(self.batch, generator)
        # The number of zero rows is log-uniform in 1..256, whatever `max_sequence_length` a caller may choose.
        count = torch.rand(self.batch, generator=generator) * math.log(256)
        latents, noise, times, count = (x.to(self.device) for x in (latents, noise, times, count))
        text, pooled = self.model.encode(self.tokens(captions))
        text = F.pad(text, (0, 0, 0, 1))
        size = (latents.shape[-1] // self.model.transformer.config.patch_size) ** 2
        padding = F.pad(count[:, None, None, None], (size + text.shape[1] - 1, 0))
        mixed = torch.lerp(latents, noise, times[:, None, None, None])
        velocity = self.model.transformer(
            hidden_states=mixed,
            encoder_hidden_states=text,
            pooled_projections=pooled,
            timestep=times * 1000,
            joint_attention_kwargs={"padding": padding},
            return_dict=False,
        )[0]
        return {"loss": F.mse_loss(velocity, noise - latents)}

    def on_train_batch_end(self, outputs: object, batch: object, batch_idx: int) -> None:
        self.average.update(self.model, self.global_step)
