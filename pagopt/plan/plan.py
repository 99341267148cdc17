"""A plan, as plain data."""

from __future__ import annotations

from dataclasses import dataclass

from pagopt.errors import UnknownName

__all__ = ["GPUS", "SHARE", "Plan", "Stage"]

GPUS = {"a100": 312e12, "h100": 989e12, "h200": 989e12, "l40s": 362e12, "rtx4090": 165e12}
"""Dense bfloat16 operations a second that the makers state, without sparsity."""


SHARE = 0.4
"""The part of that rate which is assumed for an estimate: large batches, compiled blocks."""


@dataclass(frozen=True)
class Stage:
    """A part of the run.

    Attributes:
        name: "no guidance", "CFG", "single layers", "search", "trials", "held-out tasks".
        images: How many it looks at; of a search or trials that may end earlier, the most; of trials without what the
            stage before draws.
        stored: How many of them the store has now, scored; of later rounds as far as the store decides them.
        evaluations: Block evaluations of one image, on average.
        seconds: Time of one image here, drawn and scored, on one process; ``None`` where the model is not here.
    """

    name: str
    images: int
    stored: int
    evaluations: float
    seconds: float | None = None


@dataclass(frozen=True)
class Plan:
    """All of it.

    Attributes:
        stages: In the order of the run.
        exact: Whether the numbers of images are exact, not only the most.
        processes: Over how many processes the images are spread.
        operations: Floating-point operations of one unguided image, the transformer's and the decoder's; ``None``
            where they cannot be told without the weights.
        blocks: Block evaluations of one unguided image.
        weights: Bytes of all networks; without the weights, of transformer and decoder as the study would hold them.
        peak: Bytes in use at the peak of the trial batches on a GPU; ``None`` on a CPU.
    """

    stages: tuple[Stage, ...]
    exact: bool
    processes: int
    operations: int | None
    blocks: int
    weights: int
    peak: int | None

    @property
    def images(self) -> int:
        """Images of the whole run."""
        return sum(stage.images for stage in self.stages)

    @property
    def stored(self) -> int:
        """Those that the store has now."""
        return sum(stage.stored for stage in self.stages)

    @property
    def evaluations(self) -> float:
        """Block evaluations that are left."""
        return sum((stage.images - stage.stored) * stage.evaluations for stage in self.stages)

    @property
    def seconds(self) -> float | None:
        """Time that is left, on this machine; ``None`` where the model is not here."""
        times = [self.seconds_of(stage) for stage in self.stages]
        known = [time for time in times if time is not None]
        return sum(known) if len(known) == len(times) else None

    def seconds_of(self, stage: Stage) -> float | None:
        """Time that is left of one stage, on this machine."""
        return None if stage.seconds is None else (stage.images - stage.stored) * stage.seconds / self.processes

    def seconds_on(self, gpu: str) -> float | None:
        """Time that is left on one GPU of this name, if it reaches ``SHARE`` of its maker's rate.

        Returns:
            ``None`` where the operations of an image are not known.

        Raises:
            UnknownName: If its rate is not known here.
        """
        if gpu not in GPUS:
            raise UnknownName("GPU", gpu, GPUS)
        if self.operations is None:
            return None
        return self.evaluations / self.blocks * self.operations / (SHARE * GPUS[gpu])
