"""Lightning's ``Trainer`` on the command line: where and on how much of the machine a command runs."""

from __future__ import annotations

from typing import Any

from jsonargparse import ArgumentParser
from lightning.pytorch import Trainer

__all__ = ["add_trainer", "trainer_options"]

# Options that a predict loop has no use for.
UNUSED = {
    "accumulate_grad_batches", "barebones", "check_val_every_n_epoch", "callbacks", "detect_anomaly",
    "enable_checkpointing", "enable_autolog_hparams", "enable_model_summary", "enable_progress_bar", "fast_dev_run",
    "gradient_clip_algorithm", "gradient_clip_val", "limit_test_batches", "limit_train_batches", "limit_val_batches",
    "limit_predict_batches", "log_every_n_steps", "logger", "max_epochs", "max_steps", "max_time", "min_epochs",
    "min_steps", "num_sanity_val_steps", "overfit_batches", "profiler", "reload_dataloaders_every_n_epochs",
    "val_check_interval", "default_root_dir", "model_registry", "inference_mode",
}  # fmt: skip


def add_trainer(command: ArgumentParser) -> None:
    """``--trainer.devices`` and its like."""
    command.add_class_arguments(Trainer, "trainer", skip=UNUSED, instantiate=False)
    if command.groups:
        command.groups["trainer"].title = "Where it runs (options of Lightning's Trainer)"


def trainer_options(options: Any) -> dict[str, Any]:
    """Those that were given."""
    return {key: value for key, value in vars(options.trainer).items() if value is not None}
