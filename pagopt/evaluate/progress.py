"""One bar over the many predict loops of a search."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from tqdm.auto import tqdm

__all__ = ["Progress"]


class Progress(Callback):  # type: ignore[misc]
    """One bar with the time left over a whole search, instead of one for each of its many predict loops.

    Args:
        total: Jobs in all; those that the store has count as done.
    """

    def __init__(self, total: int = 0, **options: Any) -> None:
        self.bar: tqdm[Any] = tqdm(total=total, unit="image", dynamic_ncols=True, smoothing=0.1, delay=0, **options)

    def on_predict_batch_end(self, trainer: Trainer, module: LightningModule, outputs: int, *_: Any) -> None:
        """Count the jobs of the batch; the other processes are about as far."""
        done = min(outputs * trainer.world_size, self._left)
        self.add(done)
        self._left -= done

    def start(self, jobs: int) -> None:
        """Announce a predict loop over this number of jobs."""
        self._left = jobs

    def finish(self) -> None:
        """Count what the loop did beyond its full batches."""
        self.add(self._left)
        self._left = 0

    def add(self, jobs: int) -> None:
        """Count jobs as done."""
        self.bar.update(jobs)

    @property
    def done(self) -> int:
        """Jobs so far."""
        return int(self.bar.n)

    def expect(self, total: int) -> None:
        """Correct the number of jobs in all."""
        self.bar.total = total
        self.bar.refresh()

    def label(self, text: str) -> None:
        """Say what is going on."""
        self.bar.set_description(text)

    def close(self) -> None:
        """Leave the bar as it is."""
        self.bar.close()
