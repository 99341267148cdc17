"""Which parameters mattered: PED-ANOVA (Watanabe, Bansal and Hutter, https://arxiv.org/abs/2304.10255), by Optuna.

It compares where the best trials lie with where all trials lie, one parameter at a time, and needs no scikit-learn.
With few trials chance alone gives every parameter some importance, so the same is done with the values shuffled.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.importance import PedAnovaImportanceEvaluator
from optuna.study import StudyDirection
from optuna.trial import create_trial

from pagopt.tuning.lens import Lens, is_log
from pagopt.tuning.outcome import TrialRow, Tuned

__all__ = ["LEAST", "Importance", "Importances", "importances"]

LEAST = 15
"""Trials below which nothing is said."""

TOP = 5
"""Best trials that PED-ANOVA looks at, at least; its authors' advice."""

SHUFFLES = 40
QUANTILE = 0.95


@dataclass(frozen=True)
class Importance:
    """Of one parameter.

    Attributes:
        name: By its name in the Optuna study.
        value: Divergence of the best trials from all; 0 or more.
        chance: What shuffled values stay below in 95 of 100 cases.
    """

    name: str
    value: float
    chance: float


@dataclass(frozen=True)
class Importances:
    """Of all parameters.

    Attributes:
        items: The most important first; empty where there are too few trials.
        sentence: How they were found, or why there are none.
    """

    items: tuple[Importance, ...]
    sentence: str


def importances(tuned: Tuned) -> Importances:
    """How much each parameter decided about being among the best trials.

    Args:
        tuned: The tuning. Trials that were stopped early count with what is expected of them.
    """
    several = len(tuned.goals) > 1
    lens = Lens(tuned, "")
    rows = [row for row, _ in lens.levels(tuned.trials) if row.state == "complete" or not several]
    values = [list(row.values) for row in rows] if several else [[value] for value in _ranked(lens, rows)]
    kinds = _distributions(tuned, rows)
    if not kinds or len(rows) < LEAST:
        why = (
            f"there are {len(rows)} usable trials, and it takes {LEAST} to say something" if kinds else "nothing varied"
        )
        return Importances((), f"No importances: {why}.")
    if len({tuple(value) for value in values}) == 1:
        return Importances((), "No importances: all trials have the same value.")
    share = max(0.1, TOP / len(rows))
    found = _divergences(tuned, rows, values, kinds, share)
    draw = np.random.default_rng(0)
    shuffled = [
        _divergences(tuned, rows, [values[i] for i in draw.permutation(len(rows))], kinds, share)
        for _ in range(SHUFFLES)
    ]
    items = [
        Importance(name, value, float(np.quantile([other[name] for other in shuffled], QUANTILE)))
        for name, value in found.items()
    ]
    best = "best by all objectives" if several else "best"
    if not several and any(row.limits for row in rows):
        best = "best that keep to the constraints"
    sentence = (
        f"PED-ANOVA over {len(rows)} trials: how far the {math.ceil(share * len(rows))} {best} lie elsewhere than all "
        f"of them. The tick is what shuffled scores stay below in 95 of 100 cases; a shorter bar may be chance."
    )
    return Importances(tuple(sorted(items, key=lambda item: -item.value)), sentence)


def _ranked(lens: Lens, rows: Sequence[TrialRow]) -> list[float]:
    """The objective; of trials that miss a constraint something below all others, the lower the more they miss it."""
    levels = [lens.level(row) for row in rows]
    misses = [sum(max(0.0, miss) for miss in row.limits.values()) for row in rows]
    floor = min(levels) - 1
    return [floor - miss if miss else level for level, miss in zip(levels, misses, strict=True)]


def _divergences(
    tuned: Tuned,
    rows: Sequence[TrialRow],
    values: Sequence[Sequence[float]],
    kinds: Mapping[str, BaseDistribution],
    share: float,
) -> dict[str, float]:
    directions = [StudyDirection.MAXIMIZE if goal.higher else StudyDirection.MINIMIZE for goal in tuned.goals]
    said = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # a study in memory is no news
    try:
        study = optuna.create_study(directions=directions)
    finally:
        optuna.logging.set_verbosity(said)
    for row, value in zip(rows, values, strict=True):
        own: dict[str, Any] = {name: row.parameters[name] for name in kinds if name in row.parameters}
        kind = {name: kinds[name] for name in own}
        study.add_trial(create_trial(params=own, distributions=kind, values=list(value)))
    evaluator = PedAnovaImportanceEvaluator(target_quantile=share)
    return dict(evaluator.evaluate(study, params=list(kinds)))


def _distributions(tuned: Tuned, rows: Sequence[TrialRow]) -> dict[str, BaseDistribution]:
    """Of every parameter over what was tried of it; those with one value are left out."""
    kinds: dict[str, BaseDistribution] = {}
    for name in dict.fromkeys(name for row in rows for name in row.parameters):
        values = [row.parameters[name] for row in rows if name in row.parameters]
        if len(set(values)) < 2:
            continue
        if any(isinstance(value, str | bool) for value in values) or _has_choices(tuned, name):
            kinds[name] = CategoricalDistribution(sorted(set(values), key=str))
        elif all(isinstance(value, int) for value in values):
            kinds[name] = IntDistribution(min(values), max(values), log=is_log(tuned, name))
        else:
            kinds[name] = FloatDistribution(float(min(values)), float(max(values)), log=is_log(tuned, name))
    return kinds


def _has_choices(tuned: Tuned, name: str) -> bool:
    given = tuned.settings.get("space", {}).get(name.partition(" ")[0])
    return isinstance(given, Mapping) and "choices" in given
