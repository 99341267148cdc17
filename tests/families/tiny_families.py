"""Tiny transformers and pipelines of the real diffusers classes with random weights, in float64.

A variant is a family and how its transformer is configured. Text comes as embeddings, so that no pipeline has a text
encoder, and latents as they are, so that only the pipeline that cannot do without has a decoder. All arguments and
predictions are batch-first here, with image tokens as rows; :func:`call` brings them into the form of each transformer.
"""

from __future__ import annotations

import inspect
import sys
import textwrap

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
    ZImagePipeline,
    ZImageTransformer2DModel,
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
    "zimage": {},
}
BLOCKS = {"flux": 4, "flux_schnell": 4, "flux2": 4, "flux2_klein": 4, "qwen": 3, "chroma": 4, "zimage": 3}
HEADS = {"flux": 2, "flux_schnell": 2, "flux2": 3, "flux2_klein": 3, "qwen": 3, "chroma": 2, "zimage": 3}

diffusers.utils.logging.set_verbosity_error()


class Euler64(FlowMatchEulerDiscreteScheduler):
    """The stock scheduler, without its rounding to float32 inside a step."""

    def step(self, model_output, timestep, sample, return_dict=True, **ignored):
        if self.step_index is None:
            self._init_step_index(timestep)
        step = self.sigmas[self.step_index + 1] - self.sigmas[self.step_index]
        self._step_index += 1
        return (sample + step * model_output,)


def doubled(function):
    """A function of diffusers, from its own source, with float64 where that rounds to float32."""
    source = textwrap.dedent(inspect.getsource(function))
    names = dict(vars(sys.modules[function.__module__]))
    exec(source.replace("torch.float32", "torch.float64").replace(".float()", ".double()"), names)
    return names[function.__name__]


def precise_pipeline(kind):
    """A pipeline of Z-Image that does not round predictions and latents to float32."""
    return type(f"{kind.__name__}64", (kind,), {"__call__": doubled(kind.__call__)})


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
    elif variant == "zimage":
        model = ZImageTransformer2DModel(
            **{
                "in_channels": CHANNELS // 4,
                "dim": 8 * HEADS[variant],
                "n_layers": BLOCKS[variant],
                "n_refiner_layers": 1,
                "n_heads": HEADS[variant],
                "n_kv_heads": HEADS[variant],
                "cap_feat_dim": WIDTH,
                "axes_dims": [4, 2, 2],
                "axes_lens": [128, 16, 16],
                **config,
            }
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
        if "attn.norm_" in name or "attention.norm_" in name:
            parameter.data.uniform_(1.0, 2.0)
        elif name.endswith("pad_token"):
            parameter.data.normal_()
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
    elif variant == "zimage":
        pipe = precise_pipeline(ZImagePipeline)(**parts)
        pipe._guidance_scale = 0.0  # as if called without classifier-free guidance
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
    if variant == "zimage":  # of up to 32 tokens and of more, which are filled up to 32 and to 64
        numbers = torch.arange(seed, seed + rows)
        lengths = lengths + numbers % 2 * 32 if masked else torch.full((rows,), text)
        longest = 32 + text
        found["encoder_hidden_states"] = normal(rows, longest, WIDTH, seed=seed, dtype=dtype)
        found["encoder_hidden_states_mask"] = (torch.arange(longest) < lengths[:, None]).long()
    return found


def positions(variant, rows, text=TEXT, grid=GRID):
    """Arguments of the transformer that say where the tokens are."""
    if variant == "zimage":
        return {}
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


def at(variant, timestep, rows, dtype=torch.float64):
    """A timestep as the transformer gets it from the pipelines."""
    if variant == "zimage":
        return (1000 - timestep.expand(rows)) / 1000
    return timestep.expand(rows).to(dtype) / 1000


def packed(latents):
    """(rows, channels, 2 r, 2 c) to image tokens: (rows, r * c, 4 channels)."""
    rows, channels, down, across = latents.shape
    parts = latents.reshape(rows, channels, down // 2, 2, across // 2, 2).permute(0, 2, 4, 1, 3, 5)
    return parts.reshape(rows, -1, 4 * channels)


def unpacked(tokens, grid=GRID):
    """What :func:`packed` undoes."""
    down, across = grid
    parts = tokens.reshape(len(tokens), down, across, -1, 2, 2).permute(0, 3, 1, 4, 2, 5)
    return parts.reshape(len(tokens), -1, 2 * down, 2 * across)


def captions(prompt):
    """The rows of the text without their padding."""
    lengths = prompt["encoder_hidden_states_mask"].sum(dim=1).tolist()
    return [row[:length] for row, length in zip(prompt["encoder_hidden_states"], lengths, strict=True)]


def call(transformer, arguments, grid=GRID):
    """One call of a transformer; the prediction, (rows, image tokens, channels)."""
    if not isinstance(transformer, ZImageTransformer2DModel):
        return transformer(**arguments, return_dict=False)[0]
    own = ("hidden_states", "timestep", "encoder_hidden_states", "encoder_hidden_states_mask")
    rest = {name: value for name, value in arguments.items() if name not in own}
    pictures = list(unpacked(arguments["hidden_states"], grid)[:, :, None])
    found = transformer(x=pictures, t=arguments["timestep"], cap_feats=captions(arguments), return_dict=False, **rest)
    return packed(torch.stack(found[0])[:, :, 0])


def run(pipe, variant, prompt, latents, steps=3, g=1.0, negative=None, grid=GRID, callback=None, **arguments):
    """The latents after the last step of a stock pipeline call.

    ``g`` is the scale of ``uncond + g (cond - uncond)``. ``prompt`` and ``negative`` come from :func:`embeddings`,
    ``latents`` are packed: (rows, tokens, channels).
    """
    size = pipe.vae_scale_factor * 2
    given = {"prompt_embeds": prompt["encoder_hidden_states"], "latents": latents}
    names = {"pooled_projections": "pooled_prompt_embeds", "encoder_hidden_states_mask": "prompt_embeds_mask"}
    for ours, theirs in names.items():
        if ours in prompt and variant != "zimage":
            given[theirs] = prompt[ours]
            if negative is not None:
                given[f"negative_{theirs}"] = negative[ours]
    if variant == "chroma":  # the pipeline itself adds the image tokens
        tokens = grid[0] * grid[1]
        given["prompt_attention_mask"] = prompt["attention_mask"][:, :-tokens]
        if negative is not None:
            given["negative_prompt_attention_mask"] = negative["attention_mask"][:, :-tokens]
    if negative is not None:
        given["negative_prompt_embeds"] = negative["encoder_hidden_states"]
    if variant.startswith("flux2"):
        given["latents"] = latents.mT.unflatten(-1, grid)
    if variant == "zimage":
        given |= {"prompt_embeds": captions(prompt), "latents": None if latents is None else unpacked(latents, grid)}
        given["guidance_scale"] = g - 1
        if negative is not None:
            given["negative_prompt_embeds"] = captions(negative)
    elif variant in ("flux2_klein", "chroma"):
        given["guidance_scale"] = g
    else:
        given["guidance_scale"] = 3.5 if VARIANTS[variant].get("guidance_embeds") else None
    if variant in ("flux", "flux_schnell", "qwen"):
        given["true_cfg_scale"] = g
    seen = []

    def keep(pipe, step, timestep, tensors):
        seen.append(tensors["latents"])
        return {} if callback is None else callback(pipe, step, timestep, tensors)

    pipe(
        **given | arguments,
        height=grid[0] * size,
        width=grid[1] * size,
        num_inference_steps=steps,
        output_type="latent",
        callback_on_step_end=keep,
    )
    return packed(seen[-1]) if variant == "zimage" else seen[-1]
