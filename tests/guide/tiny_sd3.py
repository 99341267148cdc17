"""Tiny pipelines of the real diffusers classes with random weights, in float64."""

from __future__ import annotations

import json
import string

import diffusers
import torch
import transformers
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
)
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPTokenizer

LAYERS, HEADS = 3, 3
SIZE = 8  # latents are SIZE x SIZE

diffusers.utils.logging.set_verbosity_error()
transformers.utils.logging.set_verbosity_error()


class Euler64(FlowMatchEulerDiscreteScheduler):
    """The stock scheduler, without its rounding to float32 inside a step."""

    def step(self, model_output, timestep, sample, return_dict=True, **ignored):
        if self.step_index is None:
            self._init_step_index(timestep)
        step = self.sigmas[self.step_index + 1] - self.sigmas[self.step_index]
        self._step_index += 1
        return (sample + step * model_output,)


def make_transformer(layers=LAYERS, heads=HEADS, seed=0, channels=4, **config):
    torch.manual_seed(seed)
    model = SD3Transformer2DModel(
        sample_size=SIZE,
        patch_size=2,
        in_channels=channels,
        out_channels=channels,
        num_layers=layers,
        attention_head_dim=8,
        num_attention_heads=heads,
        joint_attention_dim=32,
        caption_projection_dim=8 * heads,
        pooled_projection_dim=16,
        pos_embed_max_size=SIZE,
        **config,
    )
    for parameter in model.parameters():  # far from the initialisation, where attention is nearly uniform
        if parameter.ndim > 1:
            parameter.data.mul_(2.5)
    return model.double().eval()


def make_text_parts(folder):
    """Two tiny CLIP text encoders and a tokenizer that knows letters."""
    letters = string.ascii_lowercase + ","
    vocabulary = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(vocabulary)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=6)
    encoders = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        config = CLIPTextConfig(
            vocab_size=len(vocabulary),
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=6,
            projection_dim=8,
            bos_token_id=len(vocabulary) - 2,
            eos_token_id=len(vocabulary) - 1,
            pad_token_id=len(vocabulary) - 1,
        )
        encoders.append(CLIPTextModelWithProjection(config).double().eval())
    return tokenizer, encoders


def make_pipeline(text_parts, channels=4, **config):
    tokenizer, encoders = text_parts
    torch.manual_seed(3)
    vae = AutoencoderKL(
        block_out_channels=(4, 4),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        layers_per_block=1,
        latent_channels=channels,
        norm_num_groups=2,
        sample_size=16,
        shift_factor=0.06,
        scaling_factor=1.5,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )
    pipe = StableDiffusion3Pipeline(
        transformer=make_transformer(channels=channels, **config),
        scheduler=Euler64(shift=3.0),
        vae=vae.double().eval(),
        text_encoder=encoders[0],
        text_encoder_2=encoders[1],
        tokenizer=tokenizer,
        tokenizer_2=tokenizer,
        text_encoder_3=None,
        tokenizer_3=None,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


VARIANTS = {
    "sd3": {},
    "qk_norm": {"qk_norm": "rms_norm"},
    "dual": {"qk_norm": "rms_norm", "dual_attention_layers": (0, 1)},
}


def noise(rows, seed=0):
    return torch.randn(rows, 4, SIZE, SIZE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def run(pipe, prompts, steps=3, g=1.0, seed=0, **arguments):
    """Final latents of a stock pipeline call."""
    rows = len(prompts) * arguments.get("num_images_per_prompt", 1)
    call = {"output_type": "latent", "max_sequence_length": 2, "latents": noise(rows, seed)} | arguments
    return pipe(prompts, num_inference_steps=steps, guidance_scale=g, **call).images
