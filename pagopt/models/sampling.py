"""Where a running pipeline is: which rows are conditional, at which CFG scale, and which step this is.

Read from the pipeline at every call, never counted: callbacks may change the guidance scale, schedulers may call the
model twice a step, and img2img runs only the tail of the schedule.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from pagopt.errors import GuidanceError

__all__ = ["Sampling"]


class Sampling:
    """Reads one pipeline while it runs.

    Args:
        pipe: A diffusers pipeline with ``do_classifier_free_guidance``, ``guidance_scale``, ``num_timesteps`` and a
            ``scheduler``.
    """

    def __init__(self, pipe: Any) -> None:
        self._pipe = pipe
        self._levels: list[float] = []
        self._read: tuple[Tensor, int | None] | None = None

    def conditional(self, rows: int) -> tuple[int, float]:
        """The first conditional row of a batch, and the scale ``g`` of classifier-free guidance (1 without it).

        Under CFG the batch is [unconditional, conditional].

        Raises:
            GuidanceError: If the batch cannot have been made by this pipeline.
        """
        with_cfg = getattr(self._pipe, "do_classifier_free_guidance", None)
        if with_cfg is None:
            raise GuidanceError("the transformer was called, but not by the pipeline that is guided; call that one")
        if not with_cfg:
            return 0, 1.0
        if rows % 2:
            raise GuidanceError(
                f"{rows} rows cannot be halves of classifier-free guidance: was another pipeline called that shares "
                "this transformer? Call the one that is guided"
            )
        return rows // 2, float(self._pipe.guidance_scale)

    def step(self, timestep: Tensor) -> tuple[int, int]:
        """Number of the current step, and of all steps that this call of the pipeline takes.

        A step is a distinct noise level: Heun's method visits most of them twice.

        Args:
            timestep: As the transformer gets it, any shape; all elements are the same.

        Raises:
            GuidanceError: If that timestep is not in the pipeline's schedule.
        """
        timesteps: Tensor = self._pipe.scheduler.timesteps
        count: int | None = getattr(self._pipe, "num_timesteps", None)
        if self._read is None or self._read[0] is not timesteps or self._read[1] != count:
            executed = timesteps[-count:] if count else timesteps
            self._levels = list(dict.fromkeys(executed.tolist()))
            self._read = (timesteps, count)
        now = timestep.reshape(-1)[0].item()
        if now not in self._levels:
            raise GuidanceError(
                f"the transformer was called at timestep {now:g}, which is not in the schedule of the pipeline that "
                "is guided; call that pipeline inside the `with` block"
            )
        return self._levels.index(now), len(self._levels)
