"""The model's anatomy: every component of the `StableDiffusion3Pipeline`, and how it is put into a folder."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
)
from tokenizers import Regex, Tokenizer, models, normalizers, processors
from torch import nn
from transformers import (
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    PreTrainedTokenizerFast,
    T5Config,
    T5EncoderModel,
)

from tools.emoji.store import save_half

__all__ = ["SHIFT", "Anatomy", "Denoiser", "assemble", "save"]

SHIFT = 1.5
"""Time shift of the scheduler and of the training times."""


@dataclass(frozen=True)
class Anatomy:
    """Sizes of the text encoders and of the transformer."""

    layers: int = 8
    heads: int = 6
    head_dim: int = 32
    text_width: int = 96
    text_layers: int = 2
    text_heads: int = 3
    latent_channels: int = 8
    latent_size: int = 16
    patch: int = 2


def _text_encoder(tokenizer: CLIPTokenizer, anatomy: Anatomy) -> CLIPTextModelWithProjection:
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=anatomy.text_width,
        intermediate_size=4 * anatomy.text_width,
        projection_dim=anatomy.text_width,
        num_hidden_layers=anatomy.text_layers,
        num_attention_heads=anatomy.text_heads,
        max_position_embeddings=tokenizer.model_max_length,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        initializer_factor=1.0,
    )
    encoder = CLIPTextModelWithProjection(config)
    # The defaults (0.02) are made for much wider models trained for much longer.
    nn.init.normal_(encoder.text_model.embeddings.token_embedding.weight, std=0.3)
    nn.init.normal_(encoder.text_model.embeddings.position_embedding.weight, std=0.1)
    return encoder


class Denoiser(nn.Module):
    """What is trained by the flow: two text encoders and the transformer."""

    def __init__(self, tokenizer: CLIPTokenizer, anatomy: Anatomy) -> None:
        super().__init__()
        self.text_encoder = _text_encoder(tokenizer, anatomy)
        self.text_encoder_2 = _text_encoder(tokenizer, anatomy)
        self.transformer = SD3Transformer2DModel(
            sample_size=anatomy.latent_size,
            patch_size=anatomy.patch,
            in_channels=anatomy.latent_channels,
            out_channels=anatomy.latent_channels,
            num_layers=anatomy.layers,
            num_attention_heads=anatomy.heads,
            attention_head_dim=anatomy.head_dim,
            joint_attention_dim=2 * anatomy.text_width,
            caption_projection_dim=anatomy.heads * anatomy.head_dim,
            pooled_projection_dim=2 * anatomy.text_width,
            pos_embed_max_size=anatomy.latent_size,
            qk_norm="rms_norm",
        )

    def encode(self, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Text rows (B, length, 2 * width) and pooled text (B, 2 * width), as `encode_prompt` of the pipeline does.

        The pipeline appends zero rows for its missing T5; here that is left to the caller.
        """
        first = self.text_encoder(tokens, output_hidden_states=True)
        second = self.text_encoder_2(tokens, output_hidden_states=True)
        rows = torch.cat([first.hidden_states[-2], second.hidden_states[-2]], dim=-1)
        return rows, torch.cat([first.text_embeds, second.text_embeds], dim=-1)

    def load(self, folder: Path) -> None:
        """Take over the weights of a pipeline folder of the same anatomy."""
        for name, kind in (
            ("text_encoder", CLIPTextModelWithProjection),
            ("text_encoder_2", CLIPTextModelWithProjection),
            ("transformer", SD3Transformer2DModel),
        ):
            getattr(self, name).load_state_dict(kind.from_pretrained(folder / name).state_dict())


def _silent_t5(width: int) -> tuple[T5EncoderModel, PreTrainedTokenizerFast]:
    """A T5 without layers whose output is exactly zero, like the rows the pipeline inserts when T5 is missing.

    `StableDiffusion3Pipeline.from_pretrained(folder)` refuses a folder without a third text encoder unless the caller
    passes `text_encoder_3=None, tokenizer_3=None`; with this one the plain call works. Its tokenizer makes one token of
    any text and says so in `model_max_length`, so `max_sequence_length=1` saves the other 255 rows of zeros that the
    pipeline asks for by default.
    """
    encoder = T5EncoderModel(T5Config(vocab_size=8, d_model=width, d_kv=1, d_ff=1, num_layers=0, num_heads=1))
    for parameter in encoder.parameters():
        nn.init.zeros_(parameter)
    words = Tokenizer(models.WordLevel({"</s>": 0, "<unk>": 1}, unk_token="<unk>"))
    words.normalizer = normalizers.Replace(Regex(r"(.|\n)+"), "")
    words.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 0)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, eos_token="</s>", pad_token="</s>", unk_token="<unk>", model_max_length=1
    )
    return encoder, tokenizer


def assemble(denoiser: Denoiser, vae: AutoencoderKL, tokenizer: CLIPTokenizer) -> StableDiffusion3Pipeline:
    """The complete pipeline; its T5 is silent."""
    silent, silent_tokenizer = _silent_t5(denoiser.transformer.config.joint_attention_dim)
    return StableDiffusion3Pipeline(
        transformer=denoiser.transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=SHIFT),
        vae=vae,
        text_encoder=denoiser.text_encoder,
        tokenizer=tokenizer,
        text_encoder_2=denoiser.text_encoder_2,
        tokenizer_2=tokenizer,
        text_encoder_3=silent,
        tokenizer_3=silent_tokenizer,
    )


def save(pipeline: StableDiffusion3Pipeline, folder: Path) -> None:
    """Write the pipeline folder: half precision on disk, float32 when loaded without further words."""
    pipeline.save_pretrained(folder, safe_serialization=True)
    for name in ("transformer", "vae"):
        copy.deepcopy(getattr(pipeline, name)).half().save_pretrained(folder / name, safe_serialization=True)
    for name in ("text_encoder", "text_encoder_2", "text_encoder_3"):
        save_half(getattr(pipeline, name), folder / name)
