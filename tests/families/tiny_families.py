"""Tiny transformers and pipelines of the real diffusers classes with random weights, in float64.

A variant is a family and how its transformer is configured. Text comes as embeddings, so that no pipeline has a text
encoder, and latents as they are, so that only the pipeline that cannot do without has a decoder.
"""

from __future__ import annotations

import diffusers
import numpy as np
import torch
from diffusers import (
    AutoencoderKLFlux2,
    ChromaPipeline,
    ChromaTransformer2DModel,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinPipeline,
    Flux2Pipeline,
    Flux2Transformer2DModel,
    FluxPipeline,
    FluxTransformer2DModel,
    QwenImagePipeline,
    QwenImageTransformer2DModel,
)

TEXT, GRID = 3, (2, 3)  # tokens of the text; rows and columns of image tokens
WIDTH, CHANNELS = 20, 64  # of a text embedding; of an image token

VARIANTS = {
    "flux": {"guidance_embeds": True},
    "flux_schnell": {"guidance_embeds": False},
    "flux2": {"guidance_embeds": True},
    "flux2_klein": {"guidance_embeds": False},
    "qwen": {},
    "chroma": {},
}
BLOCKS = {"flux": 4, "flux_schnell": 4, "flux2": 4, "flux2_klein": 4, "qwen": 3, "chroma": 4}
HEADS = {"flux": 2, "flux_schnell": 2, "flux2": 3, "flux2_klein": 3, "qwen": 3, "chroma": 2}

diffusers.utils.logging.set_verbosity_error()


class Euler64(FlowMatchEulerDiscreteScheduler):
    """The stock scheduler, without its rounding to float32 inside a step."""

    def step(self, model_output, timestep, sample, return_dict=True, **ignored):
        if self.step_index is None:
            self._init_step_index(timestep)
        step = self.sigmas[self.step_index + 1] - self.sigmas[self.step_index]
        self._step_index += 1
        return (sample + step * model_output,)


def make_transformer(variant, seed=0, **config):
    torch.manual_seed(seed)
    common = {
        "patch_size": 1,
        "in_channels": CHANNELS,
        "num_attention_heads": HEADS[variant],
        "joint_attention_dim": WIDTH,
        **VARIANTS[variant],
        **config,
    }
    if variant.startswith("flux2"):
        model = Flux2Transformer2DModel(
            num_layers=2, num_single_layers=2, attention_head_dim=8, axes_dims_rope=(2, 2, 2, 2), **common
        )
    elif variant == "qwen":
        model = QwenImageTransformer2DModel(
            num_layers=3, attention_head_dim=8, axes_dims_rope=(2, 2, 4), out_channels=CHANNELS, **common
        )
    elif variant == "chroma":
        model = ChromaTransformer2DModel(
            num_layers=2,
            num_single_layers=2,
            attention_head_dim=16,
            axes_dims_rope=(4, 6, 6),
            approximator_num_channels=16,
            approximator_hidden_dim=24,
            approximator_layers=1,
            **common,
        )
        model.register_to_config(guidance_embeds=False)  # in the published configuration, and read for inpainting
    else:
        model = FluxTransformer2DModel(
            num_layers=2,
            num_single_layers=2,
            attention_head_dim=16,
            pooled_projection_dim=8,
            axes_dims_rope=(4, 6, 6),
            **common,
        )
    for name, parameter in model.named_parameters():  # far from the initialisation, where attention is nearly uniform
        if "attn.norm_" in name:
            parameter.data.uniform_(1.0, 2.0)
        elif parameter.ndim > 1:
            parameter.data.mul_(2.5)
    return model.double().eval()


def make_pipeline(variant, transformer):
    """The text-to-image pipeline of a variant."""
    nothing = {"vae": None, "text_encoder": None, "tokenizer": None}
    parts = {**nothing, "transformer": transformer, "scheduler": Euler64(use_dynamic_shifting=True)}
    if variant == "flux2":
        pipe = Flux2Pipeline(**parts)
    elif variant == "flux2_klein":
        torch.manual_seed(1)
        vae = AutoencoderKLFlux2(
            block_out_channels=(4, 4),
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            layers_per_block=1,
            latent_channels=CHANNELS // 4,
            norm_num_groups=2,
            sample_size=16,
        )
        pipe = Flux2KleinPipeline(**parts | {"vae": vae.to(transformer.dtype).eval()})
    elif variant == "qwen":
        pipe = QwenImagePipeline(**parts)
    elif variant == "chroma":
        pipe = ChromaPipeline(**parts)
    else:
        pipe = FluxPipeline(**parts, text_encoder_2=None, tokenizer_2=None)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def normal(*shape, seed, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def embeddings(variant, rows, seed, text=TEXT, grid=GRID, masked=True, dtype=torch.float64):
    """Arguments of the transformer that say what to draw."""
    found = {"encoder_hidden_states": normal(rows, text, WIDTH, seed=seed, dtype=dtype)}
    if variant in ("flux", "flux_schnell"):
        found["pooled_projections"] = normal(rows, 8, seed=seed + 1, dtype=dtype)
    lengths = torch.arange(seed, seed + rows) % text + 1  # rows of 1, 2, ... tokens, the rest is padding
    mask = torch.arange(text) < lengths[:, None]
    if variant == "qwen" and masked:
        found["encoder_hidden_states_mask"] = mask.long()
    if variant == "chroma" and masked:  # of image tokens too
        found["attention_mask"] = torch.nn.functional.pad(mask.to(dtype), (0, grid[0] * grid[1]), value=1.0)
    return found


def positions(variant, rows, text=TEXT, grid=GRID):
    """Arguments of the transformer that say where the tokens are."""
    if variant == "qwen":
        return {"img_shapes": [[(1, *grid)]] * rows}
    down, across = grid
    if variant.startswith("flux2"):
        text_ids = torch.zeros(text, 4)
        text_ids[:, 3] = torch.arange(text)
        image_ids = torch.cartesian_prod(*map(torch.arange, (1, down, across, 1)))
        return {"txt_ids": text_ids.expand(rows, -1, -1), "img_ids": image_ids.expand(rows, -1, -1)}
    image_ids = torch.cartesian_prod(*map(torch.arange, (1, down, across))).double()
    return {"txt_ids": torch.zeros(text, 3).double(), "img_ids": image_ids}


def distilled(variant, rows, scale=3.5):
    """The argument of guidance-distilled transformers."""
    return {"guidance": torch.full((rows,), scale)} if VARIANTS[variant].get("guidance_embeds") else {}


def inputs(variant, rows, seed=0, text=TEXT, grid=GRID, masked=True):
    """All arguments of the transformer but the timestep."""
    return {
        "hidden_states": normal(rows, grid[0] * grid[1], CHANNELS, seed=seed + 100),
        **embeddings(variant, rows, seed, text, grid, masked),
        **positions(variant, rows, text, grid),
        **distilled(variant, rows),
    }


def schedule(pipe, steps=4):
    """Set the scheduler as a pipeline does; the timesteps."""
    pipe.scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / steps, steps), mu=0.7)
    return pipe.scheduler.timesteps


def at(timestep, rows, dtype=torch.float64):
    """A timestep as the transformer gets it from the pipelines."""
    return timestep.expand(rows).to(dtype) / 1000


def run(pipe, variant, prompt, latents, steps=3, g=1.0, negative=None, grid=GRID, **arguments):
    """The latents after the last step of a stock pipeline call.

    ``prompt`` and ``negative`` come from :func:`embeddings`, ``latents`` are packed: (rows, tokens, channels).
    """
    size = pipe.vae_scale_factor * 2
    call = {"prompt_embeds": prompt["encoder_hidden_states"], "latents": latents}
    names = {"pooled_projections": "pooled_prompt_embeds", "encoder_hidden_states_mask": "prompt_embeds_mask"}
    for ours, theirs in names.items():
        if ours in prompt:
            call[theirs] = prompt[ours]
            if negative is not None:
                call[f"negative_{theirs}"] = negative[ours]
    if variant == "chroma":  # the pipeline itself adds the image tokens
        tokens = grid[0] * grid[1]
        call["prompt_attention_mask"] = prompt["attention_mask"][:, :-tokens]
        if negative is not None:
            call["negative_prompt_attention_mask"] = negative["attention_mask"][:, :-tokens]
    if negative is not None:
        call["negative_prompt_embeds"] = negative["encoder_hidden_states"]
    if variant.startswith("flux2"):
        call["latents"] = latents.mT.unflatten(-1, grid)
    if variant in ("flux2_klein", "chroma"):
        call["guidance_scale"] = g
    else:
        call["guidance_scale"] = 3.5 if VARIANTS[variant].get("guidance_embeds") else None
    if variant in ("flux", "flux_schnell", "qwen"):
        call["true_cfg_scale"] = g
    seen = []

    def keep(pipe, step, timestep, tensors):
        seen.append(tensors["latents"])
        return {}

    pipe(
        **call | arguments,
        height=grid[0] * size,
        width=grid[1] * size,
        num_inference_steps=steps,
        output_type="latent",
        callback_on_step_end=keep,
    )
    return seen[-1]
