"""What a search maximises: one reward, or a weighted sum of several measured against the unguided images."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pagopt.errors import RewardError
from pagopt.reward.identity import canonical, plain
from pagopt.reward.loading import load_reward
from pagopt.reward.protocol import Reward

__all__ = ["Objective", "RewardSpec"]


@dataclass(frozen=True)
class RewardSpec:
    """One term of an objective.

    Args:
        name: As :func:`~pagopt.reward.load_reward` takes it.
        weight: Its weight; negative where lower is better, never 0.
        args: Arguments of the reward.

    Raises:
        RewardError: For a weight that is 0 or not finite, or an empty name.
    """

    name: str
    weight: float = 1.0
    args: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise RewardError("a reward needs a name; `pagopt rewards` lists them")
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

    def to_dict(self) -> dict[str, Any]:
        """As JSON, for a recipe's provenance."""
        args = {key: plain(value, f"{self.name}: {key!r}") for key, value in self.args.items()}
        return {"name": self.name, "weight": float(self.weight), "args": args}


class Objective:
    """One reward, or a weighted sum of rewards.

    One reward counts as it is, times its weight. Several have different units, so each is measured in
    standard deviations of the unguided images from their mean:
    ``sum_r weight_r * (score_r - mean(baseline_r)) / std(baseline_r)``.

    Args:
        terms: Specs, or just names, or rewards that are already made (weight 1). At least one.

    Attributes:
        specs: The terms.
        labels: Short and distinct names of the terms: "style", or 'style(style="flat")' beside another style.
        weights: The weights by label.
        rewards: The rewards by label.

    Raises:
        RewardError: Without terms, or if a reward cannot be made.
    """

    def __init__(self, terms: Sequence[RewardSpec | str | Reward]) -> None:
        if isinstance(terms, str) or not terms:
            raise RewardError("an objective is a list of at least one reward; `pagopt rewards` lists them")
        self.specs: tuple[RewardSpec, ...] = tuple(_spec(term) for term in terms)
        made = [
            term if isinstance(term, Reward) else load_reward(spec.name, **spec.args)
            for term, spec in zip(terms, self.specs, strict=True)
        ]
        self.labels: tuple[str, ...] = _labels(self.specs)
        self.weights: dict[str, float] = {
            label: float(spec.weight) for label, spec in zip(self.labels, self.specs, strict=True)
        }
        self.rewards: dict[str, Reward] = dict(zip(self.labels, made, strict=True))

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
        scales = {}
        for label in self.labels:
            scores = _array(baseline, label, 1, "unguided images")
            if scores.size < 2:
                raise RewardError(
                    f"{len(self.labels)} rewards can be added only with a scale for each, and {scores.size} "
                    "unguided image gives none. Use at least 2 prompts or seeds, or a single reward.",
                    reward=label,
                )
            mean, deviation = float(scores.mean()), float(scores.std(ddof=1))
            if deviation <= 1e-7 * float(np.abs(scores).max()):  # float32 cannot tell these apart
                raise RewardError(
                    f"reward {label!r} gives all {scores.size} unguided images the score {mean:.6g}, so it has "
                    "no scale to be added with. Use more varied prompts, or leave it out.",
                    reward=label,
                )
            scales[label] = (mean, deviation)
        return scales

    def combine(
        self, scores: Mapping[str, ArrayLike], baseline: Mapping[str, ArrayLike] | None = None
    ) -> NDArray[np.float64]:
        """One table out of one for each reward.

        Args:
            scores: For every label the scores, shape ``(n_recipes, n_tasks)``.
            baseline: For every label those of the same tasks without guidance, ``(n_tasks,)``; unused for one
                reward.

        Returns:
            Shape ``(n_recipes, n_tasks)``, higher is better: in the reward's own unit times its weight for one
            reward, else in weighted standard deviations above the unguided mean.

        Raises:
            RewardError: If a table is missing, not finite or of another shape, or a reward has no scale.
        """
        tables = {label: _array(scores, label, 2, "images") for label in self.labels}
        shapes = {table.shape for table in tables.values()}
        if len(shapes) > 1:
            raise RewardError(f"the tables of the rewards differ in shape: {sorted(shapes)}")
        if len(self.labels) == 1:
            (label,) = self.labels
            return self.weights[label] * tables[label]
        total = np.zeros(shapes.pop())
        for label, (mean, deviation) in self.scales(baseline or {}).items():
            total += self.weights[label] * (tables[label] - mean) / deviation
        return total


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


def _array(tables: Mapping[str, ArrayLike], label: str, ndim: int, what: str) -> NDArray[np.float64]:
    if label not in tables:
        raise RewardError(f"there are no scores of reward {label!r} for the {what}", reward=label)
    array = np.asarray(tables[label], dtype=np.float64)
    if array.ndim != ndim:
        raise RewardError(
            f"the scores of {label!r} for the {what} have shape {array.shape}, not {ndim} axes", reward=label
        )
    if not np.isfinite(array).all():
        raise RewardError(f"the scores of {label!r} for the {what} are not all finite", reward=label)
    return array
