"""What a search maximises: one reward, or several that are combined against the unguided images."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pagopt.combine import Limit, Ranking, Scores, Term, combination, fronts
from pagopt.combine.scores import limits_of, scale_of
from pagopt.errors import RewardError
from pagopt.reward.loading import as_reward, load_reward
from pagopt.reward.protocol import Reward
from pagopt.reward.spec import RewardSpec, check_terms, labels_of, specs_of

__all__ = ["Objective", "rewards_by_label"]


class Objective:
    """One reward, or several and how they are combined.

    One reward counts as it is, times its weight. Several have different units, so each is measured in standard
    deviations of the unguided images from their mean, ``z_r = (score_r - mean(baseline_r)) / std(baseline_r)``. By
    default they are summed, ``sum_r weight_r * z_r``; ``combine`` may be "harmonic", "thresholds", "lexicographic" or
    "pareto" instead (:mod:`pagopt.combine`, one a file).

    :meth:`rank` is the objective's own order of recipes. :meth:`combine` gives one number an image, which paired tests
    and races of recipes can take differences of; where :attr:`additive` is true, the order is that of its means.

    Args:
        terms: A list of specs, names, or what is already made (weight 1): rewards, functions ``f(images, prompts)``,
            objects with such a ``__call__``. At least one; a single one but a name needs no list.
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

    def __init__(self, terms: Any, combine: str = "sum") -> None:
        listed = [terms] if isinstance(terms, RewardSpec) or callable(terms) else terms
        if isinstance(listed, str | Mapping) or not isinstance(listed, Iterable) or not (listed := list(listed)):
            raise RewardError("an objective is a list of at least one reward; `pagopt rewards` lists them")
        given = [term if isinstance(term, (RewardSpec, str)) else as_reward(term) for term in listed]
        self.specs: tuple[RewardSpec, ...] = tuple(
            specs_of(RewardSpec(term.name) if isinstance(term, Reward) else term for term in given)
        )
        self.labels: tuple[str, ...] = labels_of(self.specs)
        self.combination = combination(combine)
        self.terms: tuple[Term, ...] = check_terms(self.specs, combine)
        made = [
            term if isinstance(term, Reward) else load_reward(spec.name, **spec.args)
            for term, spec in zip(given, self.specs, strict=True)
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

    def limits(self, baseline: Mapping[str, ArrayLike], means: Mapping[str, float] | None = None) -> list[Limit]:
        """The thresholds in the rewards' own units; none for other combinations.

        Args:
            baseline: For every label the scores of the search's tasks without guidance, shape ``(n_tasks,)``.
            means: The unguided means on other tasks, if the limits are for them: "baseline" is then these, and "sd"
                stays that of the search.
        """
        return limits_of(self.terms, baseline, means)


def rewards_by_label(rewards: Objective | Mapping[str, Any]) -> dict[str, Reward]:
    """The rewards of an objective, or rewards and functions by label, as rewards.

    Raises:
        RewardError: If they are something else.
    """
    if isinstance(rewards, Objective):
        return rewards.rewards
    if isinstance(rewards, Mapping):
        return {label: as_reward(reward) for label, reward in rewards.items()}
    raise RewardError(
        f"rewards is a {type(rewards).__name__}: give an Objective, or rewards by label, such as {{'mine': reward}}"
    )
