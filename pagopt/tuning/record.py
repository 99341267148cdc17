"""What a trial keeps in the Optuna study beside its parameters and values, and how it is read from there."""

from __future__ import annotations

from typing import Any

from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, Trial, TrialState

from pagopt.tuning.known import RECIPE
from pagopt.tuning.outcome import TrialRow

__all__ = ["CAUSE", "LABEL", "keep", "read_row"]

CAUSE = "cause"
LABEL = "label"
PREFIX = "pagopt:"


def keep(storage: BaseStorage, trial: Trial, name: str, value: Any) -> None:
    """Keep what is for :func:`read_row` and no reader of optuna-dashboard, which does not show system attributes."""
    storage.set_trial_system_attr(trial._trial_id, f"{PREFIX}{name}", value)


def read_row(trial: FrozenTrial, steps: int) -> TrialRow:
    """A finished trial as plain data.

    Args:
        trial: Of the study.
        steps: Inference steps where the trial does not say.
    """
    attributes = trial.user_attrs
    kept = {name.removeprefix(PREFIX): value for name, value in trial.system_attrs.items() if name.startswith(PREFIX)}
    return TrialRow(
        number=trial.number,
        state=trial.state.name.lower(),
        label=attributes.get(LABEL, ""),
        values=tuple(trial.values or ()) if trial.state == TrialState.COMPLETE else (),
        parameters=dict(trial.params),
        recipe=kept.get(RECIPE, {}),
        steps=attributes.get("steps", steps),
        objective={int(task): value for task, value in kept.get("objective", {}).items()},
        scores={
            label: {int(task): value for task, value in row.items()} for label, row in kept.get("scores", {}).items()
        },
        limits=dict(trial.constraints or {}) if trial.state == TrialState.COMPLETE else {},
        cause=attributes.get(CAUSE, ""),
    )
