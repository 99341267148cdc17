"""The terms of an objective as plain data, as studies hold them: rewards by name, with weight and arguments."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml
from jsonargparse import get_loader

from pagopt.combine import Bound, Term, Tolerance, combination
from pagopt.errors import RewardError, UnknownName
from pagopt.reward.identity import canonical, plain

__all__ = ["RewardSpec", "check_terms", "labels_of", "specs_of"]


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
        if not isinstance(self.args, Mapping) or not all(isinstance(key, str) for key in self.args):
            raise RewardError(
                f"the args of reward {self.name!r} are {self.args!r}, not names with values", reward=self.name
            )
        number = isinstance(self.weight, numbers.Real) and not isinstance(self.weight, bool)
        if not number or not math.isfinite(self.weight) or self.weight == 0:
            raise RewardError(
                f"the weight of reward {self.name!r} is {self.weight!r}: it must be a finite number other "
                "than 0, negative where lower is better",
                reward=self.name,
            )
        self.term(self.name)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> RewardSpec:
        """What :meth:`to_dict` gave, or a user wrote.

        Raises:
            UnknownName: For a key that means nothing.
            RewardError: If a value is not what it should be.
        """
        for key in data:
            if key not in cls.__dataclass_fields__:
                raise UnknownName("key of a reward:", str(key), cls.__dataclass_fields__)
        return cls(**{"name": "", **data, "args": data.get("args") or {}})

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


def specs_of(terms: Any) -> list[RewardSpec]:
    """Terms as specs.

    Args:
        terms: A name, a mapping as in :meth:`RewardSpec.from_dict` or a spec, or several of them, or YAML of these.

    Raises:
        UnknownName: For a key that means nothing.
        RewardError: If one means nothing, or is an object, which cannot be written into a study's file.
    """
    several = isinstance(terms, Iterable) and not isinstance(terms, (str, Mapping))
    specs: list[RewardSpec] = []
    for term in terms if several else [terms]:
        if isinstance(term, RewardSpec):
            specs.append(term)
        elif isinstance(term, Mapping):
            specs.append(RewardSpec.from_dict(term))
        elif isinstance(term, str):
            specs += specs_of(_yaml(term)) if term.lstrip().startswith(("[", "{")) else [RewardSpec(term)]
        else:
            raise RewardError(
                f"a {getattr(term, '__name__', type(term).__name__)} object is no name of a reward. Studies are "
                'plain data: name the reward ("clip"), write "path/to/file.py:name" for one of your own, or '
                "RewardSpec(name, weight, args). Objective and Evaluator take objects."
            )
    return specs


def _yaml(text: str) -> Any:
    try:
        return get_loader("yaml")(text)  # to which 1e-1 is a number, as everywhere on the command line
    except yaml.YAMLError as error:
        raise RewardError(
            f"{text} is no reward's name, and no list of rewards: each is a name, or has `name` and, if need be, "
            "`weight`, `args`, `at_least`, `at_most`, `tolerance`, as in [{name: clip, weight: 2}, sharpness]"
        ) from error


def check_terms(specs: Sequence[RewardSpec], combine: str = "sum") -> tuple[Term, ...]:
    """The terms of an objective, without making its rewards.

    Raises:
        RewardError: If these rewards cannot be combined in this way.
        UnknownName: If there is no such combination.
    """
    terms = tuple(spec.term(label) for spec, label in zip(specs, labels_of(specs), strict=True))
    combination(combine).check(terms)
    return terms


def labels_of(specs: Sequence[RewardSpec]) -> tuple[str, ...]:
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
