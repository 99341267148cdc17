"""Optuna's samplers and pruners by name, with their options."""

from __future__ import annotations

import copy
import inspect
import types
import warnings
from collections.abc import Callable, Mapping
from typing import Any, cast

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from pagopt.errors import StudyError, UnknownName

__all__ = [
    "PRUNERS",
    "SAMPLERS",
    "Paired",
    "SeededByNumber",
    "check_pruner",
    "check_sampler",
    "make_pruner",
    "make_sampler",
]


class Paired(optuna.pruners.WilcoxonPruner):
    """Optuna's ``WilcoxonPruner``, which compares the means over the tasks that both trials saw, too.

    Its signed-rank test is paired. But it spares a trial that is clearly behind if its mean so far is above the best
    trial's mean over *all* tasks, and that says more about how hard the first tasks are than about the trial: where
    they score high, nothing would ever be stopped. Here the best trial is shown to it as far as this one has come.
    """

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        """Whether the trial is clearly behind the best one on its tasks."""
        try:
            best = copy.copy(study.best_trial)
        except ValueError:  # none is complete, or none keeps to the constraints
            return False
        values = best.intermediate_values
        best.intermediate_values = {step: values[step] for step in trial.intermediate_values if step in values}
        shown = types.SimpleNamespace(best_trial=best, direction=study.direction)
        return super().prune(cast(Study, shown), trial)


SAMPLERS: dict[str, type[BaseSampler]] = {
    "tpe": optuna.samplers.TPESampler,
    "random": optuna.samplers.RandomSampler,
    "gp": optuna.samplers.GPSampler,
    "qmc": optuna.samplers.QMCSampler,
}
PRUNERS: dict[str, type[BasePruner]] = {
    "wilcoxon": Paired,
    "median": optuna.pruners.MedianPruner,
    "percentile": optuna.pruners.PercentilePruner,
    "halving": optuna.pruners.SuccessiveHalvingPruner,
    "hyperband": optuna.pruners.HyperbandPruner,
    "none": optuna.pruners.NopPruner,
}
# What Optuna's class has no default for.
DEFAULTS: dict[str, dict[str, Any]] = {"percentile": {"percentile": 25.0}}
# Options that a file can hold, by annotation: not functions, nor other samplers.
KINDS: dict[str, tuple[tuple[type, ...], str]] = {
    "bool": ((bool,), "true or false"),
    "int": ((int,), "a whole number"),
    "float": ((int, float), "a number"),
    "str": ((str,), "text"),
    "None": ((type(None),), "null"),
}
TRIED = 3  # made-up trials
# A sequence that one seed gives, with its position in the storage; the others draw anew for each trial.
STATEFUL = {"qmc"}


class SeededByNumber(BaseSampler):
    """A sampler whose random numbers depend on its seed and the number of the trial only.

    So a study that is stopped and goes on asks for the trials that it would have asked for, and two workers never draw
    from the same numbers.

    Args:
        make: Gives the sampler for a seed.
        seed: Of the study.
    """

    def __init__(self, make: Callable[[int], BaseSampler], seed: int) -> None:
        self._make, self._seed = make, seed
        self._made: tuple[int, BaseSampler] | None = None

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """As the sampler of this trial does."""
        return self._of(trial).infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """As the sampler of this trial does."""
        return self._of(trial).sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """As the sampler of this trial does."""
        return self._of(trial).sample_independent(study, trial, param_name, param_distribution)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """As the sampler of this trial does."""
        self._of(trial).before_trial(study, trial)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Any) -> None:
        """As the sampler of this trial does."""
        self._of(trial).after_trial(study, trial, state, values)

    def _of(self, trial: FrozenTrial) -> BaseSampler:
        if self._made is None or self._made[0] != trial.number:
            seed = int(np.random.SeedSequence([self._seed, trial.number]).generate_state(1)[0])
            self._made = (trial.number, self._make(seed))
        return self._made[1]


def make_sampler(name: str, options: Mapping[str, Any], seed: int) -> BaseSampler:
    """A sampler by name; :func:`check_sampler` says what is refused."""

    def make(seed: int) -> BaseSampler:
        further = {"warn_independent_sampling": False} if name in {"gp", "qmc"} else {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of an option; check_sampler has let it be said once
            sampler: BaseSampler = _made("sampler", name, SAMPLERS[name], {**further, "seed": seed, **options})
        return sampler

    return make(seed) if name in STATEFUL else SeededByNumber(make, seed)


def make_pruner(name: str, options: Mapping[str, Any]) -> BasePruner:
    """A pruner by name; :func:`check_pruner` says what is refused."""
    pruner: BasePruner = _made("pruner", name, PRUNERS[name], {**DEFAULTS.get(name, {}), **options})
    return pruner


def check_sampler(name: str, options: Mapping[str, Any]) -> None:
    """Refuse what is no sampler.

    Args:
        name: Of the sampler.
        options: Of it.

    Raises:
        UnknownName: If there is no such sampler or option.
        StudyError: If it is an object of Optuna's instead of a name, an option's value means nothing, or the sampler is
            one that pagopt does not use.
    """
    _check_named("sampler", name, SAMPLERS)
    if name == "cmaes":
        raise StudyError(
            "Optuna's CMA-ES keeps a Python pickle in the storage, and whoever can write there could run code here: "
            "pagopt does not use it. Take gp, which is made for as few trials, or tpe"
        )
    if name not in SAMPLERS:
        raise UnknownName("sampler", name, SAMPLERS)
    if "seed" in options:
        raise StudyError("sampler_options: the seed is tuning_seed")
    _check_options("sampler", name, SAMPLERS[name], options)
    _made("sampler", name, SAMPLERS[name], {"seed": 0, **options})
    # Some values are refused only after the startup trials, which may be many.
    soon = {"n_startup_trials": 1} if name in {"tpe", "gp"} else {}
    _try_out("sampler", name, options, make_sampler(name, {**options, **soon}, 0), optuna.pruners.NopPruner())


def check_pruner(name: str, options: Mapping[str, Any]) -> None:
    """Refuse what is no pruner.

    Raises:
        UnknownName: If there is no such pruner or option.
        StudyError: If it is an object of Optuna's instead of a name, or an option's value means nothing.
    """
    _check_named("pruner", name, PRUNERS)
    if name not in PRUNERS:
        raise UnknownName("pruner", name, PRUNERS)
    _check_options("pruner", name, PRUNERS[name], options)
    pruner = make_pruner(name, options)
    _try_out("pruner", name, options, optuna.samplers.RandomSampler(seed=0), pruner)


def _check_named(what: str, name: object, known: Mapping[str, object]) -> None:
    if not isinstance(name, str):
        given = name.__name__ if isinstance(name, type) else type(name).__name__
        raise StudyError(
            f"{what} is {given}, and has to be a name, since a run keeps what it was made with as plain data: give one "
            f"of {', '.join(known)}, and its arguments as {what}_options"
        )


def _check_options(what: str, name: str, kind: type[Any], options: Mapping[str, Any]) -> None:
    """Refuse options that there are not, and values of a wrong kind, which Optuna would stumble over amid the run."""
    known = {}
    for parameter in inspect.signature(kind).parameters.values():
        kinds = inspect.formatannotation(parameter.annotation).strip("'").split(" | ")
        if parameter.name != "seed" and KINDS.keys() >= set(kinds):
            known[parameter.name] = kinds
    for option, value in options.items():
        if option not in known:
            raise UnknownName(f"option of the {what} {name!r}", option, known)
        if not any(type(value) in KINDS[one][0] for one in known[option]):
            able = " or ".join(KINDS[one][1] for one in known[option])
            raise StudyError(f"{what}_options: {option} of {name} is {able}, not {value!r}")


def _try_out(what: str, name: str, options: Mapping[str, Any], sampler: BaseSampler, pruner: BasePruner) -> None:
    """Ask for a few made-up trials, since Optuna refuses some values of options only then."""
    if not options:
        return
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        study = optuna.create_study(sampler=sampler, pruner=pruner)
        for _ in range(TRIED):
            trial = study.ask()
            value = trial.suggest_float("number", 0.0, 1.0)
            trial.suggest_categorical("choice", ["one", "other"])
            for step in range(TRIED):
                trial.report(value, step)
                trial.should_prune()
            study.tell(trial, value)
    except (ArithmeticError, TypeError, ValueError) as error:
        raise _refusal(what, name, options, error) from error
    finally:
        optuna.logging.set_verbosity(level)


def _made(what: str, name: str, kind: type[Any], options: dict[str, Any]) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        try:
            return kind(**options)
        except (TypeError, ValueError) as error:
            raise _refusal(what, name, options, error) from error


def _refusal(what: str, name: str, options: Mapping[str, Any], error: Exception) -> StudyError:
    return StudyError(f"the {what} {name} does not take {dict(options)}: {error}")
