"""Where a running pipeline is: which rows are conditional, at which CFG scale, and which step this is.

Read from the pipeline at every call, never counted: callbacks may change the guidance scale, schedulers may call the
model twice a step, and img2img runs only the tail of the schedule.
"""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any

import torch
from diffusers import DiffusionPipeline
from torch import Tensor

from pagopt.errors import GuidanceError
from pagopt.models.anatomy import Family

__all__ = ["Sampling"]


class Sampling:
    """Reads one pipeline while it runs.

    Args:
        pipe: A diffusers pipeline with ``num_timesteps`` and a ``scheduler``; where its family does classifier-free
            guidance in one batch, with ``do_classifier_free_guidance`` and ``guidance_scale`` too.
        family: The family it belongs to.
    """

    def __init__(self, pipe: Any, family: Family) -> None:
        self._pipe = pipe
        self._family = family
        self._levels: list[tuple[float, float]] = []
        self._read: tuple[Tensor, int | None] | None = None
        self._before: tuple[Tensor, Tensor, Any] | None = None  # latents, timestep and schedule of the call before
        self.doubled: bool | None = None
        """Whether there is an unconditional branch, where branches are calls of their own; ``None``: not known yet."""

    def check_caller(self) -> None:
        """Make sure that the running pipeline is this one.

        Another one that shares transformer and scheduler (``from_pipe``) has another guidance scale and other steps,
        and nothing in the transformer's arguments says so. The pipeline that runs is on the stack.

        Raises:
            GuidanceError: If it is another.
        """
        frame: FrameType | None = sys._getframe(1)
        while frame is not None:
            owner = frame.f_locals.get("self") if frame.f_code.co_name == "__call__" else None
            if isinstance(owner, DiffusionPipeline):
                if owner is self._pipe:
                    return
                raise GuidanceError(
                    f"the {type(owner).__name__} that was called is not the {type(self._pipe).__name__} that guided() "
                    "was given, although they share a transformer: give guided() the pipeline that you call"
                )
            frame = frame.f_back

    def reset(self) -> None:
        """Let go of what belongs to a call of the pipeline."""
        self._before = self.doubled = None

    def is_unconditional(self, latents: Tensor, timestep: Tensor) -> bool:
        """Whether this call of the transformer is the unconditional branch, where branches are calls of their own.

        The conditional branch comes first, and the unconditional one gets the very same latents at the same timestep.
        A callback may give the same latents once more, but for another step; so may the next call of the pipeline, but
        that one makes a new schedule.

        Args:
            latents: As the transformer gets them.
            timestep: The same.
        """
        if self._family.branches == "batch":
            return False
        schedule, before = self._pipe.scheduler.timesteps, self._before
        follows = before is not None and schedule is before[2]
        again = follows and before is not None and latents is before[0] and torch.equal(timestep, before[1])
        if again:
            self.doubled = True
        elif self.doubled is None and follows:
            self.doubled = False  # the next step followed
        self._before = None if again else (latents, timestep, schedule)
        return again

    def scale(self) -> float:
        """The scale ``g`` of classifier-free guidance that this call of the pipeline has; 1 without.

        Where the branches are calls of their own, it is 1 here, and ``g`` is taken care of elsewhere.

        Raises:
            GuidanceError: If this pipeline is not running.
        """
        if self._family.branches == "calls":
            return 1.0
        with_cfg = getattr(self._pipe, "do_classifier_free_guidance", None)
        if with_cfg is None:
            raise GuidanceError("the transformer was called, but not by the pipeline that is guided; call that one")
        return float(self._pipe.guidance_scale) + self._family.scale_offset if with_cfg else 1.0

    def conditional(self, rows: int, timestep: Tensor) -> tuple[int, int, float]:
        """The first conditional row of a batch, how many there are, and ``g`` in this call of the transformer.

        Under CFG in one batch, conditional and unconditional rows are its halves.

        Args:
            rows: Of the batch.
            timestep: As the transformer gets it.

        Raises:
            GuidanceError: If the batch cannot have been made by this pipeline.
        """
        scale = self.scale()
        if scale == 1 or self._family.pauses(self._pipe, timestep):
            return 0, rows, 1.0
        if rows % 2:
            raise GuidanceError(
                f"{rows} rows cannot be halves of classifier-free guidance: was another pipeline called that shares "
                "this transformer? Call the one that is guided"
            )
        half = rows // 2
        return 0 if self._family.conditional_first else half, half, scale

    def step(self, timestep: Tensor) -> tuple[int, int]:
        """Number of the current step, and of all steps that this call of the pipeline takes.

        A step is a distinct noise level: Heun's method visits most of them twice.

        Args:
            timestep: As the transformer gets it, any shape; all elements are the same.

        Raises:
            GuidanceError: If that timestep is not in the pipeline's schedule.
        """
        timesteps: Tensor | None = self._pipe.scheduler.timesteps
        count: int | None = getattr(self._pipe, "num_timesteps", None)
        if timesteps is None:
            raise GuidanceError("the transformer was called, but not by the pipeline that is guided; call that one")
        if self._read is None or self._read[0] is not timesteps or self._read[1] != count:
            executed = timesteps[-count:] if count else timesteps
            levels = self._family.passed(executed.to(timestep.device), timestep.dtype)
            self._levels = list(dict.fromkeys(zip(executed.tolist(), levels.tolist(), strict=True)))
            self._read = (timesteps, count)
        now = timestep.reshape(-1)[0].item()
        found = [number for number, (_, level) in enumerate(self._levels) if level == now]
        if not found:
            raise GuidanceError(
                f"the transformer was called at timestep {now:g}, which is not in the schedule of the pipeline that "
                "is guided; call that pipeline inside the `with` block"
            )
        if len(found) > 1:  # half precision made neighbours equal: the scheduler knows which of them it is at
            scheduler = self._pipe.scheduler
            index = scheduler.step_index if scheduler.step_index is not None else scheduler.begin_index or 0
            level = float(timesteps[index])
            found = [number for number in found if self._levels[number][0] == level] or found
        return found[0], len(self._levels)
