"""Jobs to images, through the model's own diffusers pipeline.

The renderer is stock diffusers with three habits: a prompt is encoded once, a batch may hold a different recipe in
every row, and every image draws its noise from its own CPU generator, so that it depends on its seed alone and is the
image that ``pipe(prompt, generator=torch.Generator().manual_seed(seed))`` gives.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import diffusers
import torch
import transformers
from PIL import Image

from pagopt.compiled import compile_blocks
from pagopt.device import is_out_of_memory
from pagopt.errors import ModelError, StudyError
from pagopt.guide import guided
from pagopt.models import family_of, fingerprint
from pagopt.models.fingerprints import major_version, scheduler_name
from pagopt.prompts import Prompts
from pagopt.room import Room
from pagopt.task import Job, Task

__all__ = ["Job", "Renderer", "Task"]

# Pixels of an image from which on a batch is decoded picture by picture: one keeps a GPU busy, and all at once need
# gigabytes.
_LARGE = 512 * 512

# Part of every image's description: one more whenever pagopt itself draws other pictures from the same recipe.
_DRAWING = 1


class Renderer:
    """Draws images with one pipeline and fixed settings.

    Args:
        pipe: A stock diffusers pipeline of a supported family.
        steps: Number of inference steps, at least 1.
        height: Pixels; ``None`` takes the pipeline's default.
        width: Pixels; ``None`` takes the pipeline's default.
        distilled_guidance: The ``guidance_scale`` that a distilled model such as FLUX.1-dev takes as an input;
            ``None`` takes the pipeline's default. Not classifier-free guidance, which a recipe sets by ``cfg``.
        compile: Compile the transformer's blocks, see :func:`pagopt.compiled.compile_blocks`.
        offload: Where GPU memory is short, one of :data:`pagopt.room.OFFLOADS`, see :meth:`place`; ``None`` keeps all
            on the GPU.

    Raises:
        StudyError: If ``steps`` or a size makes no sense for this pipeline, it is not distilled, or needs an image.
    """

    def __init__(
        self,
        pipe: Any,
        steps: int = 28,
        height: int | None = None,
        width: int | None = None,
        distilled_guidance: float | None = None,
        compile: bool = False,
        offload: str | None = None,
    ) -> None:
        self._family = family_of(pipe)
        text_to_image, *others = self._family.pipelines
        if type(pipe).__name__ in others:
            raise StudyError(
                f"{type(pipe).__name__} draws from more than a prompt, and here is nothing more to give it: take "
                f"{text_to_image}.from_pipe(pipe)"
            )
        default = self._family.default_size(pipe)
        self.pipe = pipe
        self.steps = _positive(steps)
        self.height = default if height is None else height
        self.width = default if width is None else width
        multiple = self._family.pixels(pipe)
        for name, size in (("height", self.height), ("width", self.width)):
            if size < multiple or size % multiple:
                raise StudyError(f"{name} must be a positive multiple of {multiple} for this model, not {size}")
        if distilled_guidance is not None and not pipe.transformer.config.get("guidance_embeds"):
            raise StudyError(
                "distilled_guidance is for models that take their guidance scale as an input, such as FLUX.1-dev; "
                f"{type(pipe).__name__} with these weights does not: set cfg for classifier-free guidance"
            )
        self.distilled_guidance = distilled_guidance
        # Of networks that are offloaded layer by layer it cannot be read any more.
        self._fingerprint: str | None = None if offload is None else fingerprint(pipe)
        self._prompts = Prompts(self._family, pipe)
        self._room = Room("images")
        if self.height * self.width >= _LARGE and hasattr(getattr(pipe, "vae", None), "enable_slicing"):
            pipe.vae.enable_slicing()
        self.offload = offload
        self.compile = compile
        if compile:
            if offload == "sequential":
                raise StudyError("blocks that are offloaded layer by layer cannot be compiled: take offload: model")
            compile_blocks(pipe)

    def at_steps(self, steps: int) -> Renderer:
        """The same with another number of inference steps; it shares the pipeline, and what is known of it."""
        other = copy.copy(self)
        other.steps = _positive(steps)
        return other

    def check_cfg(self, scales: Iterable[float]) -> None:
        """Make sure that this model can be drawn with these scales of classifier-free guidance.

        Raises:
            StudyError: If it cannot.
        """
        try:
            for scale in scales:
                self._family.cfg_arguments(self.pipe, scale)
        except ModelError as error:
            raise StudyError(f"{error}. There is no CFG to compare with then: cfg_scales is []") from error

    @property
    def fingerprint(self) -> str:
        """Identifies weights and configuration of the model, see :func:`pagopt.models.fingerprint`; :meth:`look`."""
        if self._fingerprint is None:
            self._fingerprint = fingerprint(self.pipe)
        return self._fingerprint

    def look(self) -> None:
        """Look at the model again: its fingerprint, and prompts that another text encoder would encode otherwise.

        Weights are looked at when a renderer is made, and whenever an :class:`~pagopt.evaluate.Evaluator` is made with
        it; those that change in between go unnoticed. Networks that are offloaded layer by layer cannot be looked at.
        """
        if any(tensor.is_meta for module in self.modules().values() for tensor in module.parameters()):
            return
        found = fingerprint(self.pipe)
        if found != self._fingerprint:
            self._fingerprint, self._prompts = found, Prompts(self._family, self.pipe)

    def modules(self) -> dict[str, torch.nn.Module]:
        """The pipeline's networks by component name."""
        parts = self.pipe.components.items()
        return {name: part for name, part in parts if isinstance(part, torch.nn.Module)}

    def place(self, device: torch.device) -> None:
        """Bring the networks to a device, or with ``offload`` have diffusers do so whenever one is needed.

        A pipeline that is offloaded already, by another renderer or by its user, stays as it is.
        """
        if any(hasattr(module, "_hf_hook") for module in self.modules().values()):
            return
        if self.offload is None:
            self.pipe.to(device, silence_dtype_warnings=True)
            return
        if self.offload == "model":
            self.pipe.enable_model_cpu_offload(device=device)
        else:
            self.pipe.enable_sequential_cpu_offload(device=device)

    def describe(self) -> dict[str, Any]:
        """Everything that changes an image, except recipe, prompt and seed (JSON).

        Read at every call, so that another scheduler in the same pipeline counts; of weights see :meth:`look`. Left out
        is what moves a value across a rounding edge at most: device, batch size, compiled blocks.
        """
        facts = {
            "model": self.fingerprint,
            "pipeline": type(self.pipe).__name__,
            "steps": self.steps,
            "height": self.height,
            "width": self.width,
            "dtype": _name(self.pipe.transformer.dtype),
            "scheduler": scheduler_name(self.pipe.scheduler),
            "pagopt": _DRAWING,
            "diffusers": major_version(diffusers.__version__),
            "torch": major_version(torch.__version__),
            "transformers": major_version(transformers.__version__),
        }
        vae = getattr(self.pipe, "vae", None)
        if getattr(vae, "use_tiling", False):  # seams are blended
            facts["vae_tiling"] = {name: value for name, value in vars(vae).items() if name.startswith("tile_")}
        if self.distilled_guidance is not None:
            facts["distilled_guidance"] = self.distilled_guidance
        return facts

    @torch.inference_mode(False)  # in Lightning's loops it is on, and quantised weights cannot be moved in it
    @torch.no_grad()
    def render(self, jobs: Sequence[Job], idle: Callable[[Job], object] | None = None) -> list[Image.Image]:
        """Draw one image a job, in the order of the jobs.

        Args:
            jobs: Recipes may differ from row to row; rows of equal CFG scale run as one batch, or in halves where a
                GPU's memory is too small for it.
            idle: Called with every job whose recipe does nothing here, so that its picture is that of the model alone;
                by default that is an error.

        Returns:
            RGB images of ``height`` x ``width`` pixels.

        Raises:
            GuidanceError: If a recipe cannot be applied to this model, or would do nothing.
            ModelError: If a picture has values that are no numbers, or does not fit into the GPU's memory.
        """
        images: dict[int, Image.Image] = {}
        scales = sorted({job.recipe.cfg or 1.0 for job in jobs})
        for cfg in scales:
            rows = [i for i, job in enumerate(jobs) if (job.recipe.cfg or 1.0) == cfg]
            try:
                drawn = self._room(partial(self._render_rows, cfg=cfg, idle=idle), [jobs[i] for i in rows])
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                raise ModelError(
                    f"one picture of {self.height} x {self.width} pixels does not fit into the GPU's memory: take a "
                    "smaller size, dtype: bfloat16, quantize: int8, or --offload model"
                ) from error
            images.update(zip(rows, drawn, strict=True))
        return [images[i] for i in range(len(jobs))]

    @contextmanager
    def _without_bar(self) -> Iterator[None]:
        """Whoever draws many images shows a bar of their own; the pipeline's stays as its user wants it."""
        before = getattr(self.pipe, "_progress_bar_config", {})
        self.pipe.set_progress_bar_config(**{**before, "disable": True})
        try:
            yield
        finally:
            self.pipe.set_progress_bar_config(**before)

    def _render_rows(self, jobs: Sequence[Job], cfg: float, idle: Callable[[Job], object] | None) -> list[Image.Image]:
        prompts = [job.task.prompt for job in jobs]
        self._prompts.encode({*prompts, ""} if cfg > 1 else prompts)
        arguments: dict[str, Any] = self._family.join([self._prompts[prompt] for prompt in prompts])
        if cfg > 1:
            nothing = self._family.join([self._prompts[""]] * len(prompts))
            arguments |= {f"negative_{name}": rows for name, rows in nothing.items()}
        if self.distilled_guidance is not None:
            arguments["guidance_scale"] = self.distilled_guidance
        with self._without_bar(), guided(self.pipe, [job.recipe for job in jobs]) as guidance:
            guidance.idle = idle and (lambda image: idle(jobs[image]))
            pixels: torch.Tensor = self.pipe(
                **arguments,
                **self._family.cfg_arguments(self.pipe, cfg),
                num_inference_steps=self.steps,
                height=self.height,
                width=self.width,
                generator=[torch.Generator("cpu").manual_seed(job.task.seed) for job in jobs],
                output_type="pt",
            ).images
        if not torch.isfinite(pixels).all():  # NumPy would warn, and make them black
            dtype = _name(self.pipe.transformer.dtype)
            other = "bfloat16 has float32's range" if dtype == "float16" else "try float32"
            raise ModelError(
                f"the model drew a picture of values that are no numbers (NaN) in {dtype}; another dtype may do "
                f"({other}), or a lower scale"
            )
        processor = self.pipe.image_processor  # the rest of what output_type="pil" does
        return [image.convert("RGB") for image in processor.numpy_to_pil(processor.pt_to_numpy(pixels))]


def _positive(steps: int) -> int:
    if steps < 1:
        raise StudyError(f"steps must be at least 1, not {steps}")
    return steps


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
