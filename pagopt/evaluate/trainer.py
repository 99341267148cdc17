"""The Lightning ``Trainer`` that draws and scores."""

from __future__ import annotations

import inspect
from typing import Any

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer

from pagopt.errors import StudyError, UnknownName

__all__ = ["check_whole", "make_trainer"]


def make_trainer(**options: Any) -> Trainer:
    """A ``Trainer`` that only predicts: no logger, no checkpoints, no bar of its own.

    Args:
        **options: Any option of Lightning's ``Trainer``, which win over these defaults.

    Raises:
        UnknownName: If it has no such option.
        StudyError: If Lightning does not take them here, such as a GPU where there is none; or if it would leave out
            part of the images.
    """
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_model_summary": False,
        "enable_progress_bar": False,
    }
    usual = inspect.signature(Trainer).parameters
    for name in options:
        if name not in usual:
            raise UnknownName("option of Lightning's Trainer", name, usual)
    if "spawn" in str(options.get("strategy")):
        raise StudyError(
            f"trainer.strategy is {options['strategy']}, which starts its processes anew for every round of a search: "
            "take ddp"
        )
    try:
        trainer = Trainer(**{**quiet, **options})
    except (MisconfigurationException, ImportError, RuntimeError, TypeError, ValueError) as error:
        said = [f"trainer.{name} {value}" for name, value in options.items() if value != usual[name].default]
        given = ", ".join(said) or "its defaults"
        raise StudyError(f"Lightning's Trainer does not take {given} here: {str(error).splitlines()[0]}") from error
    check_whole(trainer)
    return trainer


def check_whole(trainer: Trainer) -> None:
    """Make sure that every image is drawn.

    Raises:
        StudyError: If the ``Trainer`` was told to stop before the end.
    """
    limit = trainer.limit_predict_batches  # 1.0 is everything, 1 is one batch
    if trainer.fast_dev_run or not isinstance(limit, float) or limit != 1.0:
        option = f"fast_dev_run={trainer.fast_dev_run}" if trainer.fast_dev_run else f"limit_predict_batches={limit}"
        raise StudyError(
            f"Lightning's Trainer has {option}, so it would leave images out, and every image is needed: leave the "
            "option out, and ask for fewer prompts or recipes"
        )
