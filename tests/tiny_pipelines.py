"""Tiny whole pipelines of FLUX.2, Qwen-Image, Chroma and Z-Image with random weights, text encoders included.

Only their tokenizers are simpler, one token a letter, and that of FLUX.2-dev stands in for a processor of texts and
pictures, which needs torchvision. Pictures have 16 x 16 pixels.
"""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderKLFlux2,
    AutoencoderKLQwenImage,
    ChromaPipeline,
    ChromaTransformer2DModel,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinPipeline,
    Flux2Pipeline,
    Flux2Transformer2DModel,
    QwenImagePipeline,
    QwenImageTransformer2DModel,
    ZImagePipeline,
    ZImageTransformer2DModel,
)
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import nn
from transformers import (
    Mistral3Config,
    Mistral3ForConditionalGeneration,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3Model,
    T5Config,
    T5EncoderModel,
)

__all__ = ["MAKERS"]

Module = TypeVar("Module", bound=nn.Module)
CHAT = (
    "{% for message in messages %}{% if message.content is string %}{{ message.content }}{% else %}"
    "{% for part in message.content %}{{ part.text }}{% endfor %}{% endif %}\n{% endfor %}"
)
WORDS = ["<pad>", "</s>", "[IMG]", "\n", *map(chr, range(32, 127))]
TEXT: dict[str, Any] = {
    "vocab_size": len(WORDS),
    "hidden_size": 8,
    "intermediate_size": 8,
    "num_attention_heads": 1,
    "num_key_value_heads": 1,
}
VISION: dict[str, Any] = {"hidden_size": 8, "intermediate_size": 8}


def spread(model: Module, std: float = 0.3) -> Module:
    """Far from the classes' own start, which gives attention and text next to no effect."""
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=std)
    return model


def scheduler() -> FlowMatchEulerDiscreteScheduler:
    return FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)


def letters(*, end: bool = False) -> PreTrainedTokenizerFast:
    """A token for each letter, and for the end of the text, as T5's has: so that no text is empty."""
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    if end:
        tokenizer.post_processor = processors.TemplateProcessing("$A </s>", special_tokens=[("</s>", 1)])
    names = ["input_ids", "attention_mask"]
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", model_input_names=names, chat_template=CHAT
    )


def flux2_parts(*, guidance_embeds: bool) -> dict[str, Any]:
    """All but the text encoder: 2 double and 2 single blocks of 2 heads."""
    transformer = Flux2Transformer2DModel(
        patch_size=1,
        in_channels=16,
        num_layers=2,
        num_single_layers=2,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=3 * TEXT["hidden_size"],  # three layers of the text encoder, side by side
        guidance_embeds=guidance_embeds,
        axes_dims_rope=(2, 2, 2, 2),
    )
    vae = AutoencoderKLFlux2(
        block_out_channels=(4, 4),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=2,
        sample_size=16,
    )
    return {"transformer": spread(transformer), "vae": vae, "tokenizer": letters(), "scheduler": scheduler()}


def make_flux2() -> Flux2Pipeline:
    """With a Mistral 3 of 31 layers, since the pipeline reads the 30th."""
    torch.manual_seed(2)
    config = Mistral3Config(
        text_config={"model_type": "mistral", "num_hidden_layers": 31, "head_dim": 8, **TEXT},
        vision_config={"model_type": "pixtral", "num_hidden_layers": 1, "num_attention_heads": 1, **VISION},
        image_token_index=WORDS.index("[IMG]"),
    )
    encoder = Mistral3ForConditionalGeneration(config)
    return Flux2Pipeline(text_encoder=spread(encoder), **flux2_parts(guidance_embeds=True))


def make_klein() -> Flux2KleinPipeline:
    """With a Qwen 3 of 28 layers, since the pipeline reads the 27th."""
    torch.manual_seed(3)
    encoder = Qwen3ForCausalLM(Qwen3Config(num_hidden_layers=28, head_dim=8, **TEXT))
    return Flux2KleinPipeline(text_encoder=spread(encoder), **flux2_parts(guidance_embeds=False))


def make_qwen() -> QwenImagePipeline:
    """3 blocks of 2 heads, with a Qwen 2.5 VL of one layer."""
    torch.manual_seed(4)
    config = Qwen2_5_VLConfig(
        text_config={"num_hidden_layers": 1, "rope_scaling": {"type": "mrope", "mrope_section": [2, 1, 1]}, **TEXT},
        vision_config={"depth": 1, "num_heads": 1, "out_hidden_size": 8, "fullatt_block_indexes": [0], **VISION},
    )
    transformer = QwenImageTransformer2DModel(
        patch_size=2,
        in_channels=16,
        out_channels=4,
        num_layers=3,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=TEXT["hidden_size"],
        axes_dims_rope=(2, 2, 4),
    )
    vae = AutoencoderKLQwenImage(
        base_dim=4,
        z_dim=4,
        dim_mult=[1, 1],
        num_res_blocks=1,
        temperal_downsample=[False],
        latents_mean=[0.0] * 4,
        latents_std=[1.0] * 4,
    )
    return QwenImagePipeline(
        transformer=spread(transformer, std=0.5),
        vae=vae,
        text_encoder=spread(Qwen2_5_VLForConditionalGeneration(config), std=1.0),
        tokenizer=letters(),
        scheduler=scheduler(),
    )


def plain_vae() -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(4, 4),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=2,
        sample_size=16,
        shift_factor=0.1,
    )


def make_chroma() -> ChromaPipeline:
    """2 double and 2 single blocks of 2 heads, with a T5 of one layer, and the 512 tokens that the pipeline pads to."""
    torch.manual_seed(5)
    config = T5Config(vocab_size=len(WORDS), d_model=8, d_kv=8, d_ff=8, num_layers=1, num_heads=1)
    transformer = ChromaTransformer2DModel(
        in_channels=16,
        num_layers=2,
        num_single_layers=2,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=8,
        axes_dims_rope=(2, 2, 4),
        approximator_num_channels=16,
        approximator_hidden_dim=16,
        approximator_layers=1,
    )
    transformer.register_to_config(guidance_embeds=False)  # in the published configuration, and read for inpainting
    return ChromaPipeline(
        transformer=spread(transformer),
        vae=plain_vae(),
        text_encoder=spread(T5EncoderModel(config), std=1.0),
        tokenizer=letters(end=True),
        scheduler=scheduler(),
    )


def make_z_image() -> ZImagePipeline:
    """3 blocks of 2 heads, with a Qwen 3 of two layers, since the pipeline reads the last but one."""
    torch.manual_seed(5)
    encoder = Qwen3Model(Qwen3Config(num_hidden_layers=2, head_dim=8, **TEXT))
    transformer = ZImageTransformer2DModel(
        in_channels=4,
        dim=16,
        n_layers=3,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=TEXT["hidden_size"],
        axes_dims=[4, 2, 2],
        axes_lens=[1024, 16, 16],
    )
    return ZImagePipeline(
        transformer=spread(transformer),
        vae=plain_vae(),
        text_encoder=spread(encoder, std=1.0),
        tokenizer=letters(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
    )


MAKERS = {
    "flux2": make_flux2,
    "flux2-klein": make_klein,
    "qwen-image": make_qwen,
    "chroma": make_chroma,
    "z-image": make_z_image,
}
