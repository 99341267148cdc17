"""What a comparison found, as plain data, and its JSON file."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pagopt.comparison.reference import Distances
from pagopt.comparison.statistics import Difference
from pagopt.files import write_text

__all__ = ["Choice", "Measure", "Outcome", "Standing"]

SCHEMA = 1


@dataclass(frozen=True)
class Measure:
    """A reward that methods are judged by.

    Attributes:
        label: Its name in the tables.
        name: As :func:`pagopt.reward.load_reward` takes it.
        args: Its arguments.
        higher: Whether higher is better.
        searched: Labels of the recipes whose search maximised it.
    """

    label: str
    name: str
    args: dict[str, Any]
    higher: bool
    searched: tuple[str, ...]


@dataclass(frozen=True)
class Choice:
    """How a baseline was chosen on the search's tasks.

    Attributes:
        kind: "cfg" or "layer".
        reward: By which reward.
        method: Which was best: a name of a standing.
        means: The mean of every candidate, by its name.
        unguided: The same without guidance.
        beats: Whether the best is better than that.
        edge: Whether the best is the largest of the scales, so that a larger one might be better.
    """

    kind: str
    reward: str
    method: str
    means: dict[str, float]
    unguided: float
    beats: bool = True
    edge: bool = False


@dataclass(frozen=True)
class Standing:
    """One method on the tasks of the comparison.

    Attributes:
        name: "no guidance", "CFG 2", "best layer L4", "best of 1.62", or a recipe's label.
        kind: "none", "cfg", "layer", "best-of" or "recipe".
        recipe: What it does, as :meth:`pagopt.Recipe.to_dict`.
        compute: Block evaluations for one picture, in those of an unguided one.
        scores: For each reward the raw scores of all tasks.
        means: Their means.
        errors: Their standard errors, over prompts.
        images: Store keys, one for each task.
        seeds: The seed of each picture: that of the task, but for best-of-N.
    """

    name: str
    kind: str
    recipe: dict[str, Any]
    compute: float
    scores: dict[str, tuple[float, ...]]
    means: dict[str, float]
    errors: dict[str, float]
    images: tuple[str, ...]
    seeds: tuple[int, ...]


@dataclass(frozen=True)
class Outcome:
    """All of it.

    Attributes:
        pagopt: Version.
        model: Name of the model.
        fingerprint: Of the model.
        steps: Inference steps.
        rewards: What was judged by; the first chose the layer and the best of N.
        tasks: Prompts and seeds, prompt by prompt.
        tuning_tasks: What the baselines were chosen on.
        choices: How.
        standings: One for each method.
        differences: Of each recipe from each baseline by each reward.
        distances: To reference pictures, if there were any.
        warnings: What should make a reader doubt a gain, in words.
        notes: What a reader has to know, in words.
        images_generated: New pictures.
        seconds: How long it took.
    """

    pagopt: str
    model: str
    fingerprint: str
    steps: int
    rewards: tuple[Measure, ...]
    tasks: tuple[tuple[str, int], ...]
    tuning_tasks: tuple[tuple[str, int], ...]
    choices: tuple[Choice, ...]
    standings: tuple[Standing, ...]
    differences: tuple[Difference, ...]
    distances: Distances | None = None
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    images_generated: int = 0
    seconds: float = 0.0

    @property
    def prompts(self) -> tuple[str, ...]:
        """The prompt of each task."""
        return tuple(prompt for prompt, _ in self.tasks)

    def standing(self, name: str) -> Standing:
        """The method of this name."""
        return next(standing for standing in self.standings if standing.name == name)

    def tuned(self, reward: str) -> str:
        """The name of the CFG that was tuned for a reward; empty if none was."""
        return next((c.method for c in self.choices if c.kind == "cfg" and c.reward == reward), "")

    def difference(self, method: str, against: str, reward: str) -> Difference:
        """One of the differences."""
        return next(d for d in self.differences if (d.method, d.against, d.reward) == (method, against, reward))

    def save(self, path: str | Path) -> None:
        """Write as JSON, atomically."""
        write_text(path, json.dumps({"schema": SCHEMA, **asdict(self)}, indent=1, ensure_ascii=False) + "\n")
