"""How to perturb: strength, scale, schedule and the rest of a recipe, tuned with Optuna.

The search finds *where* to perturb; this finds *how*, on the same tasks, with the same evaluator and the same store.
"""

from __future__ import annotations

from pagopt.tuning.outcome import Goal, TrialRow, Tuned, TunedMethod, load_tuned
from pagopt.tuning.run import tune
from pagopt.tuning.space import Space
from pagopt.tuning.tuning import Tuning, available_tunings, find_tuning

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
