"""What every training stage shares: Lightning's Trainer, an open-ended learning rate, resuming, a moving average.

Batches are made inside `training_step` from the number of the step, so a resumed run sees exactly the batches that an
uninterrupted run would have seen.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint, TQDMProgressBar
from torch import nn
from torch.utils.data import DataLoader, IterableDataset

from tools.emoji.muon import Muon

__all__ = ["MovingAverage", "Stage", "fit", "rate"]


def rate(step: int, steps: int, *, warmup: int = 100, decay: float = 0.4) -> float:
    """Learning-rate factor: linear warm-up, constant, cosine to 2 % over the last `decay` of the run.

    Until the decay begins nothing depends on `steps`, so a run may be lengthened or shortened on resume.
    """
    if step < warmup:
        return (step + 1) / warmup
    start = int(steps * (1 - decay))
    if step < start:
        return 1.0
    progress = min(1.0, (step - start) / max(1, steps - start))
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * progress))


class MovingAverage(nn.Module):
    """Exponential moving average of a module's parameters; its memory grows to `decay` with the number of updates."""

    def __init__(self, module: nn.Module, decay: float = 0.999) -> None:
        super().__init__()
        self.module = copy.deepcopy(module).requires_grad_(False).eval()
        self.decay = decay

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        """Take in the parameters after optimizer step number `step`."""
        decay = min(self.decay, (1 + step) / (10 + step))
        mine: list[torch.Tensor] = list(self.module.parameters())
        torch._foreach_lerp_(mine, [p.detach() for p in module.parameters()], 1 - decay)


class Stage(lightning.LightningModule):
    """A training run of `steps` steps: subclasses say what the parameters are and what one step's loss is."""

    def __init__(self, *, steps: int, lr: float, batch: int, seed: int, weight_decay: float = 0.01) -> None:
        super().__init__()
        self.steps, self.lr, self.batch, self.seed, self.weight_decay = steps, lr, batch, seed, weight_decay

    def trained(self) -> nn.Module:
        """The module that is optimised."""
        raise NotImplementedError

    def orthogonal(self) -> list[nn.Parameter]:
        """Matrices whose updates are orthogonalised; none unless a subclass says so."""
        return []

    def loss(self, step: int, generator: torch.Generator) -> dict[str, torch.Tensor]:
        """Losses of one step by name, `loss` being the one that is minimised; all randomness from `generator`."""
        raise NotImplementedError

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        """Make the batch of this step and return its loss."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.global_step)
        losses = self.loss(self.global_step, generator)
        self.log_dict({k: v.detach() for k, v in losses.items()}, prog_bar=True)
        return losses["loss"]

    def configure_optimizers(self) -> dict[str, Any]:
        """Muon for the matrices that :meth:`orthogonal` names, AdamW for the rest; vectors do not decay."""
        chosen = self.orthogonal()
        known = {id(p) for p in chosen}
        rest = [p for p in self.trained().parameters() if p.requires_grad and id(p) not in known]
        groups = [
            {"params": chosen, "weight_decay": self.weight_decay, "orthogonal": True},
            {"params": [p for p in rest if p.ndim > 1], "weight_decay": self.weight_decay, "orthogonal": False},
            {"params": [p for p in rest if p.ndim <= 1], "weight_decay": 0.0, "orthogonal": False},
        ]
        optimizer = Muon([group for group in groups if group["params"]], lr=self.lr)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate(step, self.steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class _Steps(IterableDataset[int]):
    """An endless stream of nothing: the module makes its own batches."""

    def __iter__(self) -> Iterator[int]:
        while True:
            yield 0


def fit(
    stage: Stage,
    folder: Path,
    *,
    steps: int | None = None,
    every: int = 500,
    precision: str = "32-true",
    quiet: bool = False,
) -> int:
    """Train until `steps` (default: the stage's own) or go on from `folder/last.ckpt`; return the steps done.

    Checkpoints hold tensors and plain values only and are read with `weights_only=True`.
    """
    last = folder / "last.ckpt"
    saver = ModelCheckpoint(folder, filename="state", every_n_train_steps=every, save_last=True, save_top_k=1)
    trainer = lightning.Trainer(
        accelerator="auto",
        devices=1,
        precision=precision,
        max_steps=steps or stage.steps,
        logger=False,
        callbacks=[saver] if quiet else [saver, TQDMProgressBar(refresh_rate=50)],
        enable_progress_bar=not quiet,
        enable_model_summary=False,
        gradient_clip_val=1.0,
    )
    data = DataLoader(_Steps(), batch_size=None)
    trainer.fit(stage, data, ckpt_path=str(last) if last.exists() else None, weights_only=True)
    if trainer.interrupted:
        raise KeyboardInterrupt
    trainer.save_checkpoint(last, weights_only=False)
    return trainer.global_step
