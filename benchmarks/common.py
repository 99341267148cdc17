"""What the benchmarks share: options, models, tasks and recipes; timing and tables are in ``report.py``."""

from __future__ import annotations

import argparse
import copy
import random
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import (
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
)

from benchmarks.ends import made_in, random_ends
from pagopt.compiled import compile_blocks
from pagopt.guide import guided
from pagopt.heads import Head
from pagopt.models import family_of, load_pipeline
from pagopt.recipe import Recipe
from pagopt.render import Task

SD3 = {"sample_size": 128, "patch_size": 2, "in_channels": 16, "out_channels": 16, "attention_head_dim": 64}
SD3 |= {"joint_attention_dim": 4096, "pooled_projection_dim": 2048, "pos_embed_max_size": 192}
CONFIGS: dict[str, dict[str, Any]] = {
    "tiny-sd3": {"sample_size": 8, "patch_size": 2, "in_channels": 4, "out_channels": 4, "num_layers": 3}
    | {"attention_head_dim": 8, "num_attention_heads": 3, "caption_projection_dim": 24, "joint_attention_dim": 32}
    | {"pooled_projection_dim": 16, "pos_embed_max_size": 16},
    "tiny-flux": {"patch_size": 1, "in_channels": 64, "num_layers": 2, "num_single_layers": 2, "attention_head_dim": 16}
    | {"num_attention_heads": 2, "joint_attention_dim": 20, "pooled_projection_dim": 8, "guidance_embeds": True}
    | {"axes_dims_rope": (4, 6, 6)},
    "sd3-medium": SD3 | {"num_layers": 24, "num_attention_heads": 24, "caption_projection_dim": 1536},
    "sd3.5-large": SD3
    | {"num_layers": 38, "num_attention_heads": 38, "caption_projection_dim": 2432, "qk_norm": "rms_norm"},
    "flux-dev": {"patch_size": 1, "in_channels": 64, "num_layers": 19, "num_single_layers": 38}
    | {"attention_head_dim": 128, "num_attention_heads": 24, "joint_attention_dim": 4096}
    | {"pooled_projection_dim": 768, "guidance_embeds": True, "axes_dims_rope": (16, 56, 56)},
}
SIZES = {"emoji": 64, "tiny-sd3": 64, "tiny-flux": 64}  # pixels; the others 1024
TEXT_TOKENS = {"tiny-sd3": 6, "tiny-flux": 6, "flux-dev": 512}  # the others 77 + 256


def noise_of_float32(pipe: StableDiffusion3Pipeline) -> StableDiffusion3Pipeline:
    """The pipeline begins with float32's noise, so that pictures of several dtypes can be compared.

    Before torch 2.12 a seed gives other noise in half precision.
    """
    own = pipe.prepare_latents

    def prepare(batch: int, channels: int, height: int, width: int, dtype: torch.dtype, *rest: Any) -> torch.Tensor:
        latents: torch.Tensor = own(batch, channels, height, width, torch.float32, *rest)
        return latents.to(dtype)

    pipe.prepare_latents = prepare
    return pipe


def options_of(description: str | None, argv: Sequence[str] | None, add: Callable[[Any], Any] | None = None) -> Any:
    """Read the command line: what all benchmarks take, and what ``add`` adds."""
    parser = argparse.ArgumentParser(description=(description or "").splitlines()[0])
    gpu = torch.cuda.is_available()
    parser.add_argument("--model", choices=["emoji", *CONFIGS], default="emoji")
    parser.add_argument("--whole", action="store_true", help="random weights with text encoders and decoder, too")
    parser.add_argument("--size", type=int, help="pixels, height and width")
    parser.add_argument("--batch", type=int, default=8, help="images in a batch")
    parser.add_argument("--steps", type=int, default=12, help="inference steps")
    parser.add_argument("--rounds", type=int, default=3, help="rounds in which the variants take turns")
    parser.add_argument("--seconds", type=float, default=3600, help="begin no further round after this time")
    parser.add_argument("--device", default="cuda" if gpu else "cpu")
    parser.add_argument("--dtype", choices=["float32", "bfloat16", "float16"], default="bfloat16" if gpu else "float32")
    parser.add_argument("--compile", action="store_true", help="compile the transformer's blocks")
    parser.add_argument("--backend", default="inductor", help="of torch.compile")
    parser.add_argument("--json", type=Path, help="write the tables to this file too")
    parser.add_argument(
        "--busy",
        type=Path,
        help="a file that is removed when all is ready to be measured; which begins when its folder is empty but for "
        "a lock, so that several benchmarks can compile side by side and measure one after another",
    )
    if add is not None:
        add(parser)
    options = parser.parse_args(argv)
    options.size = options.size or SIZES.get(options.model, 1024)
    return options


def random_pipeline(name: str, device: str, dtype: torch.dtype, whole: bool = False) -> Any:
    """A pipeline with a transformer of the published configuration and random weights.

    It has text encoders and a decoder, of the published sizes and random too, if it is to be ``whole``.
    """
    diffusers.utils.logging.set_verbosity_error()
    flux = "flux" in name
    torch.manual_seed(0)
    with made_in(device, dtype):
        transformer = (FluxTransformer2DModel if flux else SD3Transformer2DModel)(**CONFIGS[name])
    transformer.to(device, dtype).eval().requires_grad_(False)
    for parameter in transformer.parameters():  # away from the initialisation, where attention is nearly uniform
        if parameter.ndim > 1:
            parameter.mul_(2.0)
    parts = dict.fromkeys(("vae", "text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2"))
    if not flux:
        parts |= {"text_encoder_3": None, "tokenizer_3": None}
    if whole:
        parts |= random_ends(name, CONFIGS[name], device, dtype)
    if flux:
        shifts = {"base_shift": 0.5, "max_shift": 1.15, "base_image_seq_len": 256, "max_image_seq_len": 4096}
        scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True, **shifts)
        return FluxPipeline(transformer=transformer, scheduler=scheduler, **parts)
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    return StableDiffusion3Pipeline(transformer=transformer, scheduler=scheduler, **parts)


def twin(pipe: Any, kind: Any = None) -> Any:
    """Another pipeline with the same weights, but modules of its own, which may be compiled or changed."""
    tensors = {id(tensor): tensor for tensor in (*pipe.transformer.parameters(), *pipe.transformer.buffers())}
    own = {"transformer": copy.deepcopy(pipe.transformer, tensors), "scheduler": copy.deepcopy(pipe.scheduler)}
    parts = {name: part for name, part in pipe.components.items() if name not in ("image_encoder", "feature_extractor")}
    other = (kind or type(pipe))(**parts | own)
    other.set_progress_bar_config(disable=True)
    return other


class Model:
    """A pipeline and how it is called: the embedded model whole, the others from random embeddings to latents.

    With ``--whole`` all of them from prompts to pictures.
    """

    def __init__(self, options: Any) -> None:
        self.name, self.device = str(options.model), str(options.device)
        self.size, self.steps = int(options.size), int(options.steps)
        dtype: torch.dtype = getattr(torch, options.dtype)
        self.random = self.name != "emoji"
        self.bare = self.random and not options.whole
        if self.random:
            self.pipe = random_pipeline(self.name, self.device, dtype, options.whole)
        else:
            self.pipe = load_pipeline(self.name, dtype).to(self.device)
        self.pipe.set_progress_bar_config(disable=True)
        self.dtype, self.family = dtype, family_of(self.pipe)
        self.heads: list[Head] = list(self.family.head_map(self.pipe.transformer))
        self.blocks = len(self.family.blocks(self.pipe.transformer))
        self.cfg = {"guidance_scale": 1.0} if self.family.name == "sd3" else {}
        self._encoded: dict[str, dict[str, torch.Tensor]] = {}

    def forget_prompts(self) -> None:
        """Encode prompts anew; random embeddings, which stand for encoded prompts, stay."""
        if not self.bare:
            self._encoded.clear()

    def encoded(self, prompt: str) -> dict[str, torch.Tensor]:
        """The arguments of the pipeline that say what to draw."""
        if prompt not in self._encoded:
            self._encoded[prompt] = self._invented(prompt) if self.bare else self.family.encode(self.pipe, [prompt])[0]
        return self._encoded[prompt]

    def _invented(self, prompt: str) -> dict[str, torch.Tensor]:
        config, draw = CONFIGS[self.name], torch.Generator().manual_seed(zlib.crc32(prompt.encode()))
        rows = torch.randn(1, TEXT_TOKENS.get(self.name, 333), config["joint_attention_dim"], generator=draw)
        pooled = torch.randn(1, config["pooled_projection_dim"], generator=draw)
        found = {"prompt_embeds": rows, "pooled_prompt_embeds": pooled}
        return {name: tensor.to(self.device, self.dtype) for name, tensor in found.items()}

    def call(self, pipe: Any, what: Mapping[str, Any], tasks: Sequence[Task]) -> Any:
        """Call a pipeline; its images, or its latents where the model has no decoder."""
        images = pipe(
            **what,
            **self.cfg,
            num_inference_steps=self.steps,
            height=self.size,
            width=self.size,
            generator=[torch.Generator("cpu").manual_seed(task.seed) for task in tasks],
            output_type="latent" if self.bare else "pt" if self.random else "pil",
        ).images
        if self.random and not torch.isfinite(images).all():
            raise SystemExit("the random weights gave latents or pictures that are not finite")
        return images

    def draw(self, recipes: Sequence[Recipe] | None, tasks: Sequence[Task], pipe: Any = None) -> int:
        """Draw a batch with a recipe for each image, or the stock pipeline's; counts block evaluations."""
        pipe = pipe or self.pipe
        what = self.family.join([self.encoded(task.prompt) for task in tasks])
        if recipes is None:
            self.call(pipe, what, tasks)
            return self.blocks * self.steps * len(tasks)
        with guided(pipe, list(recipes)) as guidance:
            self.call(pipe, what, tasks)
        return guidance.block_evaluations

    def compile(self, options: Any, pipe: Any = None) -> Any:
        """A twin of a pipeline with compiled blocks, warmed up."""
        other = twin(pipe or self.pipe)
        compile_blocks(other, backend=options.backend)
        self.warm_up(other, options.batch)
        return other

    def warm_up(self, pipe: Any, batch: int) -> None:
        """Let a compiled pipeline see every block with and without perturbation, for one row and for several."""
        everywhere = Recipe([next(head for head in self.heads if head.block == n) for n in range(self.blocks)])
        steps, self.steps = self.steps, 2
        for count in dict.fromkeys((1, 2, batch)):
            for given in (tasks(count), tasks(1) * count):
                for recipe in (Recipe(scale=0.0), everywhere, Recipe(everywhere.heads[-1:])):
                    self.draw([recipe] * count, given, pipe)
        self.steps = steps

    def random_recipes(self, count: int, heads: int = 1, seed: int = 0) -> list[Recipe]:
        """Recipes of random heads; of one head each: from as many equal parts of the model, in random order.

        So few recipes cost as much on average as all heads do.
        """
        draw, many = random.Random(seed), len(self.heads)
        if heads > 1:
            return [Recipe(draw.sample(self.heads, heads), scale=2.0) for _ in range(count)]
        parts = [(n * many / count, (n + 1) * many / count) for n in range(count)]
        chosen = [self.heads[min(int(draw.uniform(*part)), many - 1)] for part in parts]
        draw.shuffle(chosen)
        return [Recipe([head], scale=2.0) for head in chosen]


def tasks(count: int) -> list[Task]:
    """Tasks with seeds of their own, so that no two rows are equal."""
    return [Task("flat, red apple", seed) for seed in range(count)]
