"""A sampler that is not asked about trials whose parameters are known: those that a stopped process had begun."""

from __future__ import annotations

from typing import Any

from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

__all__ = ["RECIPE", "Known"]

RECIPE = "recipe"
"""The attribute of a trial whose parameters are all drawn."""


class Known(BaseSampler):
    """Another sampler, which draws a trial once.

    Optuna draws whenever a trial is taken up. A sampler that counts its draws in the storage, as ``qmc`` does, would
    then skip a point for every trial that is taken up again.

    Args:
        sampler: The other one.
    """

    def __init__(self, sampler: BaseSampler) -> None:
        self._sampler = sampler

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """As the other does; nothing for a trial that is drawn."""
        return {} if RECIPE in trial.user_attrs else self._sampler.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """As the other does; nothing for a trial that is drawn."""
        if RECIPE in trial.user_attrs:
            return {}
        found = self._sampler.sample_relative(study, trial, search_space)
        # Of a trial that is drawn in part: what was drawn one by one uses up its random numbers again.
        given = {**found, **trial.system_attrs.get("fixed_params", {})}
        for name, distribution in trial.distributions.items():
            if name not in given and not distribution.single():
                self._sampler.sample_independent(study, trial, name, distribution)
        return found

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """As the other does."""
        return self._sampler.sample_independent(study, trial, param_name, param_distribution)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """As the other does."""
        self._sampler.before_trial(study, trial)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Any) -> None:
        """As the other does."""
        self._sampler.after_trial(study, trial, state, values)
