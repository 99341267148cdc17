"""What several tests share: a tiny random model of the real diffusers classes, in a folder."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
import torch
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
)
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    PreTrainedTokenizerFast,
    T5Config,
    T5EncoderModel,
)

from pagopt.models import load_pipeline

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell's background jobs; the commands under test inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)


def tiny_vae(**config: object) -> AutoencoderKL:
    """An autoencoder of factor 2 with random weights."""
    return AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=4,
        layers_per_block=1,
        sample_size=16,
        use_quant_conv=False,
        use_post_quant_conv=False,
        shift_factor=0.0,
        **config,
    )


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A StableDiffusion3Pipeline folder: 3 blocks of 2 heads, pictures of 16 x 16 pixels, random weights."""
    torch.manual_seed(0)
    shipped = load_pipeline("emoji")
    text = CLIPTextConfig(
        vocab_size=len(shipped.tokenizer),
        hidden_size=16,
        intermediate_size=32,
        projection_dim=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=shipped.tokenizer.model_max_length,
        bos_token_id=shipped.tokenizer.bos_token_id,
        eos_token_id=shipped.tokenizer.eos_token_id,
        pad_token_id=shipped.tokenizer.pad_token_id,
    )
    transformer = SD3Transformer2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=3,
        num_attention_heads=2,
        attention_head_dim=8,
        joint_attention_dim=shipped.text_encoder_3.config.d_model,
        caption_projection_dim=16,
        pooled_projection_dim=32,
        pos_embed_max_size=8,
        qk_norm="rms_norm",
    )
    for parameter in transformer.parameters():
        torch.nn.init.normal_(parameter, std=0.3)  # the classes' own start gives attention next to no effect
    folder = tmp_path_factory.mktemp("models") / "tiny"
    StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=1.5),
        vae=tiny_vae(),
        text_encoder=CLIPTextModelWithProjection(text),
        text_encoder_2=CLIPTextModelWithProjection(text),
        tokenizer=shipped.tokenizer,
        tokenizer_2=shipped.tokenizer_2,
        text_encoder_3=shipped.text_encoder_3,
        tokenizer_3=shipped.tokenizer_3,
    ).save_pretrained(folder, safe_serialization=True)
    return folder


@pytest.fixture(scope="session")
def tiny_flux(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A FluxPipeline folder: 2 double and 2 single blocks of 2 heads, pictures of 16 x 16 pixels, random weights."""
    torch.manual_seed(1)
    shipped = load_pipeline("emoji").tokenizer
    clip = CLIPTextConfig(
        vocab_size=len(shipped),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=shipped.model_max_length,
        bos_token_id=shipped.bos_token_id,
        eos_token_id=shipped.eos_token_id,
        pad_token_id=shipped.pad_token_id,
    )
    letters = Tokenizer(models.WordLevel({c: i for i, c in enumerate(["<pad>", "</s>", *map(chr, range(32, 127))])}))
    letters.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    letters.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    transformer = FluxTransformer2DModel(
        in_channels=16,
        num_layers=2,
        num_single_layers=2,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=16,
        pooled_projection_dim=16,
        guidance_embeds=True,
        axes_dims_rope=(2, 2, 4),
    )
    for parameter in transformer.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    folder = tmp_path_factory.mktemp("models") / "tiny-flux"
    FluxPipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        vae=tiny_vae(),
        text_encoder=CLIPTextModel(clip),
        tokenizer=shipped,
        text_encoder_2=T5EncoderModel(T5Config(vocab_size=97, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)),
        tokenizer_2=PreTrainedTokenizerFast(tokenizer_object=letters, pad_token="<pad>", eos_token="</s>"),
    ).save_pretrained(folder, safe_serialization=True)
    return folder
