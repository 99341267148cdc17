"""What a search maximises: one reward, or several that are combined against the unguided images."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pagopt.combine import Bound, Limit, Ranking, Scores, Term, Tolerance, combination, fronts
from pagopt.combine.scores import limits_of, scale_of
from pagopt.errors import RewardError
from pagopt.reward.identity import canonical, plain
from pagopt.reward.loading import load_reward
from pagopt.reward.protocol import Reward

__all__ = ["Objective", "RewardSpec", "check_terms"]


@dataclass(frozen=True)
class RewardSpec:
    """One term of an objective.

    Args:
        name: As :func:`~pagopt.reward.load_reward` takes it.
        weight: Its weight; negative where lower is better, never 0.
        args: Arguments of the reward.
        at_least: For ``combine: thresholds``, what its mean has to reach: a number in its own unit, or "baseline" or
            "baseline - 0.5 sd", measured against the unguided images.
        at_most: The same for what its mean must not go beyond.
        tolerance: For ``combine: lexicographic``, up to which difference two recipes count as equal on it: a number in
            its own unit, "0.5 sd" of the unguided images, or "1 se" of the difference of two recipes.

    Raises:
        RewardError: For a weight that is 0 or not finite, an empty name, or a limit or tolerance that is none.
    """

    name: str
    weight: float = 1.0
    args: dict[str, Any] = field(default_factory=dict)
    at_least: float | str | None = None
    at_most: float | str | None = None
    tolerance: float | str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise RewardError("a reward needs a name; `pagopt rewards` lists them")
        if self.name[0] in "[{":  # what the command line could not read as a list of terms, it takes for a name
            raise RewardError(
                f"{self.name} is no reward's name, and no list of rewards: each is a name, or has `name` and, if need "
                "be, `weight`, `args`, `at_least`, `at_most`, `tolerance`, as in [{name: clip, weight: 2}, sharpness]"
            )
        if not isinstance(self.args, Mapping) or not all(isinstance(key, str) for key in self.args):
            raise RewardError(
                f"the args of reward {self.name!r} are {self.args!r}, not names with values", reward=self.name
            )
        if not math.isfinite(self.weight) or self.weight == 0:
            raise RewardError(
                f"the weight of reward {self.name!r} is {self.weight}: it must be a finite number other "
                "than 0, negative where lower is better",
                reward=self.name,
            )
        self.term(self.name)

    def term(self, label: str) -> Term:
        """As a combination sees it."""
        limits = {"at_least": self.at_least, "at_most": self.at_most}
        return Term(
            label,
            float(self.weight),
            {
                kind: Bound.parse(value, f"{kind} of reward {self.name!r}")
                for kind, value in limits.items()
                if value is not None
            },
            None
            if self.tolerance is None
            else Tolerance.parse(self.tolerance, f"the tolerance of reward {self.name!r}"),
        )

    def to_dict(self) -> dict[str, Any]:
        """As JSON, for a study's configuration and a recipe's provenance; what was not asked for is left out."""
        args = {key: plain(value, f"{self.name}: {key!r}") for key, value in self.args.items()}
        asked = {"at_least": self.at_least, "at_most": self.at_most, "tolerance": self.tolerance}
        return {
            "name": self.name,
            "weight": float(self.weight),
            "args": args,
            **{key: value for key, value in asked.items() if value is not None},
        }


class Objective:
    """One reward, or several and how they are combined.

    One reward counts as it is, times its weight. Several have different units, so each is measured in standard
    deviations of the unguided images from their mean, ``z_r = (score_r - mean(baseline_r)) / std(baseline_r)``. By
    default they are summed, ``sum_r weight_r * z_r``; ``combine`` may be "harmonic", "thresholds", "lexicographic" or
    "pareto" instead (:mod:`pagopt.combine`, one a file).

    :meth:`rank` is the objective's own order of recipes. :meth:`combine` gives one number an image, which paired tests
    and races of recipes can take differences of; where :attr:`additive` is true, the order is that of its means.

    Args:
        terms: Specs, or just names, or rewards that are already made (weight 1). At least one.
        combine: How several are combined.

    Attributes:
        specs: The terms.
        labels: Short and distinct names of the terms: "style", or 'style(style="flat")' beside another style.
        weights: The weights by label.
        rewards: The rewards by label.
        terms: The terms as the combination sees them.

    Raises:
        RewardError: Without terms, if a reward cannot be made, or if the terms cannot be combined in this way.
        UnknownName: If there is no such combination.
    """

    def __init__(self, terms: Sequence[RewardSpec | str | Reward], combine: str = "sum") -> None:
        if isinstance(terms, str) or not terms:
            raise RewardError("an objective is a list of at least one reward; `pagopt rewards` lists them")
        self.specs: tuple[RewardSpec, ...] = tuple(_spec(term) for term in terms)
        self.labels: tuple[str, ...] = _labels(self.specs)
        self.combination = combination(combine)
        self.terms: tuple[Term, ...] = check_terms(self.specs, combine)
        made = [
            term if isinstance(term, Reward) else load_reward(spec.name, **spec.args)
            for term, spec in zip(terms, self.specs, strict=True)
        ]
        self.weights: dict[str, float] = {term.label: term.weight for term in self.terms}
        self.rewards: dict[str, Reward] = dict(zip(self.labels, made, strict=True))

    @property
    def additive(self) -> bool:
        """Whether the order of recipes is that of the means of :meth:`combine` over tasks.

        True for one reward, "sum" and "harmonic". Only then do differences on paired tasks say which of two recipes is
        better; else they do so for one part of the objective: what passes is ranked by ("thresholds"), the first reward
        ("lexicographic"), the sum ("pareto").
        """
        return self.combination.additive

    def describe(self) -> list[dict[str, Any]]:
        """The terms as JSON, with their labels."""
        terms = zip(self.labels, self.specs, strict=True)
        return [{"label": label, **spec.to_dict()} for label, spec in terms]

    def scales(self, baseline: Mapping[str, ArrayLike]) -> dict[str, tuple[float, float]]:
        """Mean and standard deviation (ddof 1) of every reward over the unguided images.

        Args:
            baseline: For every label the scores of the tasks, shape ``(n_tasks,)``, without guidance.

        Raises:
            RewardError: With fewer than two tasks, or where a reward gives all of them one score: it then has
                no scale.
        """
        return {label: scale_of(baseline, label) for label in self.labels}

    def combine(
        self, scores: Mapping[str, ArrayLike], baseline: Mapping[str, ArrayLike] | None = None
    ) -> NDArray[np.float64]:
        """One table out of one for each reward.

        Args:
            scores: For every label the scores, shape ``(n_recipes, n_tasks)``; any tasks.
            baseline: For every label those of the search's tasks without guidance, ``(n,)``; unused for one reward.

        Returns:
            Shape ``(n_recipes, n_tasks)``, higher is better. In the reward's own unit times its weight for one reward
            (or one that decides: the first of a lexicographic order, the one that thresholds leave to rank by), else in
            standard deviations above the unguided mean.

        Raises:
            RewardError: If a table is missing, not finite or of another shape, or a reward has no scale.
        """
        return self.combination.values(Scores(self.terms, scores, baseline))

    def rank(self, scores: Mapping[str, ArrayLike], baseline: Mapping[str, ArrayLike] | None = None) -> Ranking:
        """Recipes in the objective's own order, with :meth:`combine`'s table; arguments and errors are the same."""
        known = Scores(self.terms, scores, baseline)
        parts = known.tables if len(self.terms) > 1 else {}
        return Ranking(self.combination.values(known), self.combination.order(known), self.additive, parts)

    def order(
        self, scores: Mapping[str, ArrayLike], baseline: Mapping[str, ArrayLike] | None = None
    ) -> NDArray[np.intp]:
        """Positions of the recipes, best first, shape ``(n_recipes,)``; ties go to the earlier one."""
        return self.rank(scores, baseline).order

    def front(self, scores: Mapping[str, ArrayLike]) -> NDArray[np.intp]:
        """Positions of the recipes that no other beats by all rewards at once, in the order given.

        It is the Pareto front of the recipes' means, whatever the combination is; only the sign of a weight counts.
        """
        known = Scores(self.terms, scores)
        points = np.stack([term.sign * known.mean(term) for term in self.terms], axis=1)
        return np.flatnonzero(fronts(points) == 0)

    def limits(self, baseline: Mapping[str, ArrayLike], tasks: Mapping[str, ArrayLike] | None = None) -> list[Limit]:
        """The thresholds in the rewards' own units; none for other combinations.

        Args:
            baseline: For every label the scores of the search's tasks without guidance, shape ``(n_tasks,)``.
            tasks: The same for other tasks, if the limits are for them: "baseline" is then their mean, and "sd" stays
                that of the search.
        """
        return limits_of(self.terms, baseline, tasks)


def check_terms(specs: Sequence[RewardSpec], combine: str = "sum") -> tuple[Term, ...]:
    """The terms of an objective, without making its rewards.

    Raises:
        RewardError: If these rewards cannot be combined in this way.
        UnknownName: If there is no such combination.
    """
    terms = tuple(spec.term(label) for spec, label in zip(specs, _labels(specs), strict=True))
    combination(combine).check(terms)
    return terms


def _spec(term: RewardSpec | str | Reward) -> RewardSpec:
    if isinstance(term, Reward):
        return RewardSpec(term.name)
    return RewardSpec(term) if isinstance(term, str) else term


def _labels(specs: Sequence[RewardSpec]) -> tuple[str, ...]:
    """The shortest of three ways to write the terms that keeps them apart; equal terms are numbered."""

    def full(spec: RewardSpec) -> str:
        args = ", ".join(f"{key}={canonical(plain(value, key))}" for key, value in sorted(spec.args.items()))
        return f"{spec.name}({args})" if args else spec.name

    ways: tuple[Callable[[RewardSpec], str], ...] = (
        lambda spec: spec.name.rpartition(":")[2],
        lambda spec: spec.name,
        full,
    )
    for way in ways:
        labels = [way(spec) for spec in specs]
        if len(set(labels)) == len(labels):
            return tuple(labels)
    return tuple(
        f"{label}#{labels[:i].count(label) + 1}" if label in labels[:i] else label for i, label in enumerate(labels)
    )
