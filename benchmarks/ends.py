"""The two ends of a pipeline, for ``--whole``: text encoders and a decoder of the published sizes, with random weights.

The tokenizers are the embedded model's, which cost as much as others: they fill the same number of tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from diffusers import AutoencoderKL
from transformers import (
    AutoTokenizer,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
)

from pagopt.embedded import EMBEDDED

Sizes = dict[str, Any]
CLIP_L: Sizes = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
CLIP_G: Sizes = {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 20}
CLIP_G |= {"hidden_act": "gelu"}
T5_XXL = {"d_ff": 10240, "d_kv": 64, "num_layers": 24, "num_heads": 64}
TINY_CLIP = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
TINY_T5 = {"d_ff": 8, "d_kv": 8, "num_layers": 1, "num_heads": 1}
CLIP_TOKENS = 77
T5_TOKENS = {"sd3": 256, "flux": 512}


@contextmanager
def made_in(device: str, dtype: torch.dtype) -> Iterator[None]:
    """Networks are made there and so, and never in the CPU's memory or in float32."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            yield
    finally:
        torch.set_default_dtype(before)


def random_ends(name: str, config: dict[str, Any], device: str, dtype: torch.dtype) -> dict[str, Any]:
    """The parts of a pipeline before and after its transformer.

    Args:
        name: Of the architecture, as ``--model`` takes it.
        config: Of its transformer, whose widths the encoders have.
        device: Where they are made.
        dtype: Of their weights.
    """
    tiny, flux = name.startswith("tiny"), "flux" in name
    with made_in(device, dtype):
        parts = _encoders(config, tiny, flux) | {"vae": _decoder(config, tiny, flux)}
    for part in parts.values():
        part.to(device, dtype).eval().requires_grad_(False)
    folder = EMBEDDED / "pipeline"
    words = CLIPTokenizer.from_pretrained(folder / "tokenizer", model_max_length=CLIP_TOKENS)
    kind = "flux" if flux else "sd3"
    letters = AutoTokenizer.from_pretrained(folder / "tokenizer_3", model_max_length=T5_TOKENS[kind])
    tokenizers = {"tokenizer": words, "tokenizer_2": letters}
    return parts | (tokenizers if flux else {"tokenizer": words, "tokenizer_2": words, "tokenizer_3": letters})


def _encoders(config: dict[str, Any], tiny: bool, flux: bool) -> dict[str, Any]:
    ends = {"vocab_size": 49408, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    sizes = [TINY_CLIP, TINY_CLIP] if tiny else [CLIP_L, CLIP_G]
    clips = [
        CLIPTextConfig(**size, **ends, projection_dim=size["hidden_size"], max_position_embeddings=CLIP_TOKENS)
        for size in sizes
    ]
    t5 = T5EncoderModel(
        T5Config(**(TINY_T5 if tiny else T5_XXL), d_model=config["joint_attention_dim"], feed_forward_proj="gated-gelu")
    )
    if flux:
        return {"text_encoder": CLIPTextModel(clips[0]), "text_encoder_2": t5}
    first, second = map(CLIPTextModelWithProjection, clips)
    return {"text_encoder": first, "text_encoder_2": second, "text_encoder_3": t5}


def _decoder(config: dict[str, Any], tiny: bool, flux: bool) -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(4,) * 4 if tiny else (128, 256, 512, 512),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1 if tiny else 2,
        latent_channels=config["in_channels"] // (4 if flux else 1),
        norm_num_groups=2 if tiny else 32,
        scaling_factor=1.5,
        shift_factor=0.06,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )
