"""Jobs to images, through the model's own diffusers pipeline.

The renderer is stock diffusers with three habits: a prompt is encoded once, a batch may hold a different recipe in
every row, and every image draws its noise from its own CPU generator, so that it depends on its seed alone and is the
image that ``pipe(prompt, generator=torch.Generator().manual_seed(seed))`` gives.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import diffusers
import torch
from PIL import Image

from pagopt.errors import StudyError
from pagopt.guide import guided
from pagopt.models import fingerprint
from pagopt.recipe import Recipe

__all__ = ["Job", "Renderer", "Task"]

# Embeddings of as many prompts are kept; at SD3's size one takes 1.4 MB in half precision.
_PROMPTS_KEPT = 512


class Task(NamedTuple):
    """What to draw: a prompt and the seed of its initial noise."""

    prompt: str
    seed: int


class Job(NamedTuple):
    """One image: a task under a recipe."""

    recipe: Recipe
    task: Task


class Renderer:
    """Draws images with one pipeline and fixed settings.

    Args:
        pipe: A stock diffusers pipeline of a supported family.
        steps: Number of inference steps, at least 1.
        height: Pixels; ``None`` takes the pipeline's default.
        width: Pixels; ``None`` takes the pipeline's default.

    Raises:
        StudyError: If ``steps`` or a size makes no sense for this pipeline.
    """

    def __init__(self, pipe: Any, steps: int = 28, height: int | None = None, width: int | None = None) -> None:
        default = pipe.default_sample_size * pipe.vae_scale_factor
        self.pipe = pipe
        self.steps = steps
        self.height = default if height is None else height
        self.width = default if width is None else width
        if steps < 1:
            raise StudyError(f"steps must be at least 1, not {steps}")
        multiple = pipe.vae_scale_factor * pipe.transformer.config.patch_size
        for name, size in (("height", self.height), ("width", self.width)):
            if size < multiple or size % multiple:
                raise StudyError(f"{name} must be a positive multiple of {multiple} for this model, not {size}")
        # The pipeline's default, but no more rows than the third tokenizer can fill: the rest would be padding.
        self.max_sequence_length = min(256, getattr(pipe.tokenizer_3, "model_max_length", 256))
        self._fingerprint: str | None = None
        self._encoded: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
        pipe.set_progress_bar_config(disable=True)

    @property
    def fingerprint(self) -> str:
        """Identifies weights and configuration of the model, see :func:`pagopt.models.fingerprint`."""
        if self._fingerprint is None:
            self._fingerprint = fingerprint(self.pipe)
        return self._fingerprint

    def modules(self) -> dict[str, torch.nn.Module]:
        """The pipeline's networks by component name."""
        parts = self.pipe.components.items()
        return {name: part for name, part in parts if isinstance(part, torch.nn.Module)}

    def describe(self) -> dict[str, Any]:
        """Everything that changes an image, except recipe, prompt and seed (JSON)."""
        return {
            "model": self.fingerprint,
            "pipeline": type(self.pipe).__name__,
            "steps": self.steps,
            "max_sequence_length": self.max_sequence_length,
            "height": self.height,
            "width": self.width,
            "dtype": str(self.pipe.transformer.dtype).removeprefix("torch."),
            "diffusers": ".".join(diffusers.__version__.split(".")[:2]),
        }

    @torch.no_grad()
    def render(self, jobs: Sequence[Job]) -> list[Image.Image]:
        """Draw one image a job, in the order of the jobs.

        Args:
            jobs: Recipes may differ from row to row; rows of equal CFG scale run as one batch.

        Returns:
            RGB images of ``height`` x ``width`` pixels.

        Raises:
            GuidanceError: If a recipe cannot be applied to this model, or would do nothing.
        """
        images: dict[int, Image.Image] = {}
        scales = sorted({job.recipe.cfg or 1.0 for job in jobs})
        for cfg in scales:
            rows = [i for i, job in enumerate(jobs) if (job.recipe.cfg or 1.0) == cfg]
            images.update(zip(rows, self._render_rows([jobs[i] for i in rows], cfg), strict=True))
        return [images[i] for i in range(len(jobs))]

    def _render_rows(self, jobs: Sequence[Job], cfg: float) -> list[Image.Image]:
        prompts = [job.task.prompt for job in jobs]
        self._encode({*prompts, ""})
        embeds, pooled = (torch.cat(rows) for rows in zip(*(self._encoded[p] for p in prompts), strict=True))
        arguments: dict[str, Any] = {"prompt_embeds": embeds, "pooled_prompt_embeds": pooled}
        if cfg > 1:
            nothing, nothing_pooled = self._encoded[""]
            arguments["negative_prompt_embeds"] = nothing.expand_as(embeds)
            arguments["negative_pooled_prompt_embeds"] = nothing_pooled.expand_as(pooled)
        with guided(self.pipe, [job.recipe for job in jobs]):
            output = self.pipe(
                **arguments,
                guidance_scale=cfg,
                num_inference_steps=self.steps,
                height=self.height,
                width=self.width,
                generator=[torch.Generator("cpu").manual_seed(job.task.seed) for job in jobs],
                output_type="pil",
            )
        return [image.convert("RGB") for image in output.images]

    def _encode(self, prompts: Iterable[str]) -> None:
        """Encode what is not encoded yet, in one batch."""
        transformer = self.pipe.transformer
        if self._encoded:
            known = next(iter(self._encoded.values()))[0]
            if (known.device, known.dtype) != (transformer.device, transformer.dtype):
                self._encoded.clear()
        if len(self._encoded) > _PROMPTS_KEPT:
            self._encoded.clear()
        new = sorted(set(prompts) - self._encoded.keys())
        if not new:
            return
        embeds, _, pooled, _ = self.pipe.encode_prompt(
            prompt=new,
            prompt_2=None,
            prompt_3=None,
            do_classifier_free_guidance=False,
            max_sequence_length=self.max_sequence_length,
        )
        for row, prompt in enumerate(new):
            self._encoded[prompt] = (embeds[row : row + 1], pooled[row : row + 1])
