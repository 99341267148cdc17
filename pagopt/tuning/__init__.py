"""How to perturb: strength, scale, schedule and the rest of a recipe, tuned with Optuna.

The search finds *where* to perturb; this finds *how*, on the same tasks, with the same evaluator and the same store.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pagopt.lazy import on_first_use

if TYPE_CHECKING:
    from pagopt.tuning.outcome import Goal, TrialRow, Tuned, TunedMethod, load_tuned
    from pagopt.tuning.run import tune
    from pagopt.tuning.space import Space
    from pagopt.tuning.tuning import Tuning, available_tunings, find_tuning

_HOMES = {
    "Goal": "outcome",
    "Space": "space",
    "TrialRow": "outcome",
    "Tuned": "outcome",
    "TunedMethod": "outcome",
    "Tuning": "tuning",
    "available_tunings": "tuning",
    "find_tuning": "tuning",
    "load_tuned": "outcome",
    "tune": "run",
}

__all__ = [
    "Goal",
    "Space",
    "TrialRow",
    "Tuned",
    "TunedMethod",
    "Tuning",
    "available_tunings",
    "find_tuning",
    "load_tuned",
    "tune",
]

__getattr__ = on_first_use(__name__, _HOMES)
