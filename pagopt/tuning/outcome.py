"""What a tuning leaves behind, as plain data: all trials, and the comparison on held-out tasks."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pagopt.errors import StudyError
from pagopt.files import write_text
from pagopt.recipe import Recipe
from pagopt.results import Estimate, Method, PairedTest

__all__ = ["Goal", "TrialRow", "Tuned", "TunedMethod", "load_tuned", "means", "trials_csv"]

SCHEMA = 1
KIND = "tuning"


@dataclass(frozen=True)
class Goal:
    """One objective of a tuning.

    Attributes:
        name: "objective", the label of a reward, or "cost".
        higher: Whether more is better.
    """

    name: str
    higher: bool


@dataclass(frozen=True)
class TrialRow:
    """One trial.

    Attributes:
        number: Of the trial in the Optuna study.
        state: "complete", "pruned" or "fail".
        label: What it is, if it was not a sampler's: "no guidance", "u = 0.5", "as it was".
        values: Of the objectives, over all tasks, in the order of the goals; empty unless it is complete.
        parameters: By their names in the Optuna study.
        recipe: What it drew with, as :meth:`pagopt.Recipe.to_dict`.
        steps: Inference steps.
        objective: The objective by position of the search task; some tasks only if it was pruned.
        scores: The same for every reward.
        limits: How far each constraint was missed; 0 or less where it was met.
        cause: Why it failed.
        picture: Store key of its picture for the first task that trials see; empty if there is none.
    """

    number: int
    state: str
    label: str
    values: tuple[float, ...]
    parameters: dict[str, Any]
    recipe: dict[str, Any]
    steps: int
    objective: dict[int, float]
    scores: dict[str, dict[int, float]]
    limits: dict[str, float] = field(default_factory=dict)
    cause: str = ""
    picture: str = ""

    @property
    def is_feasible(self) -> bool:
        """Whether it is complete and keeps to all constraints."""
        return self.state == "complete" and all(miss <= 0 for miss in self.limits.values())


@dataclass(frozen=True)
class TunedMethod:
    """One row of the comparison on held-out tasks.

    Attributes:
        method: Name, recipe, scores and pictures.
        steps: Inference steps.
        cost: Block evaluations for one picture.
        trial: Number of the trial that it comes from, if it is a tuned one.
    """

    method: Method
    steps: int
    cost: int
    trial: int | None = None


@dataclass(frozen=True)
class Tuned:
    """All of it. Tasks are ``(prompt, seed)`` pairs.

    Attributes:
        tuning: Its name.
        model: The name by which the model was loaded.
        fingerprint: Of the model.
        pagopt: Version that wrote it.
        steps: Inference steps where the space does not say.
        start: The recipe file, or the heads.
        settings: Space, sampler, pruner, objectives and constraints, as they were given.
        goals: The objectives.
        objective: The rewards of the first one, as JSON.
        search_tasks: What the trials were judged on.
        held_out_tasks: What the comparison was judged on.
        baseline: The first objective on the search tasks without guidance.
        as_it_was: The same of the recipe as it was.
        left_out: Which first points the space does not hold, and why.
        trials: By number.
        best: The number of the best trial, or the front's, by the first objective.
        methods: No guidance, CFG, the recipe as it was, and the tuned ones.
        tests: For each tuned method by name, against each other method.
        images_generated: Pictures that this run drew.
        seconds: How long it took.
        references: Means of "no guidance" and "as it was" on the search tasks, by method and reward.
        weights: How the model's were held, where it is not plain float32 (:class:`pagopt.models.Weights`).
        own_code: Tells whether rewards, or a model, of the user's own have changed
            (:meth:`pagopt.study.Study.own_code`).
        model_files: Tells whether files of the model's folder may have changed (:func:`pagopt.models.model_files`).
    """

    tuning: str
    model: str
    fingerprint: str
    pagopt: str
    steps: int
    start: str
    settings: dict[str, Any]
    goals: list[Goal]
    objective: list[dict[str, Any]]
    search_tasks: list[tuple[str, int]]
    held_out_tasks: list[tuple[str, int]]
    baseline: Estimate
    as_it_was: Estimate
    left_out: dict[str, str]
    trials: list[TrialRow]
    best: list[int]
    methods: list[TunedMethod]
    tests: dict[str, list[PairedTest]]
    images_generated: int
    seconds: float
    references: dict[str, dict[str, float]] = field(default_factory=dict)
    weights: dict[str, str] = field(default_factory=dict)
    own_code: list[str] = field(default_factory=list)
    model_files: str = ""

    @property
    def held_out_prompts(self) -> list[str]:
        """The prompt of every held-out task."""
        return [prompt for prompt, _ in self.held_out_tasks]

    @property
    def recipe(self) -> Recipe:
        """The best recipe by the first objective."""
        return Recipe.from_dict(self.trial(self.best[0]).recipe)

    @property
    def is_unchanged(self) -> bool:
        """Whether the only result draws what the recipe as it was draws."""
        images = {one.method.name: one.method.images for one in self.methods}
        # Equal recipes may be written differently; equal pictures have equal keys.
        return len(self.goals) == 1 and images["tuned"] == images["as it was"]

    @property
    def missed(self) -> list[str]:
        """The constraints that the result misses, because no trial kept to all."""
        return [name for name, miss in self.trial(self.best[0]).limits.items() if miss > 0]

    def trial(self, number: int) -> TrialRow:
        """The trial of this number."""
        return next(row for row in self.trials if row.number == number)

    def save(self, path: str | Path) -> None:
        """Write as JSON, atomically."""
        write_text(path, json.dumps({"kind": KIND, "schema": SCHEMA, **asdict(self)}, indent=1) + "\n")


def means(methods: Sequence[str], tables: Mapping[str, NDArray[np.float64]]) -> dict[str, dict[str, float]]:
    """By method and reward, of tables of shape ``(n_methods, n_tasks)``."""
    every = {label: table.mean(axis=1).tolist() for label, table in tables.items()}
    return {method: {label: row[place] for label, row in every.items()} for place, method in enumerate(methods)}


def load_tuned(path: str | Path) -> Tuned:
    """Read what :meth:`Tuned.save` wrote.

    Raises:
        StudyError: If the file is damaged, of another schema, or no tuning's.
    """
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
        if data.pop("kind") != KIND or data.pop("schema") != SCHEMA:
            raise ValueError("another kind or schema")
        data["own_code"] = data.pop("own_rewards", data.get("own_code", []))  # its first name
        data["goals"] = [Goal(**goal) for goal in data["goals"]]
        data["baseline"], data["as_it_was"] = Estimate(**data["baseline"]), Estimate(**data["as_it_was"])
        data["trials"] = [_row(row) for row in data["trials"]]
        data["methods"] = [TunedMethod(**{**one, "method": _method(one["method"])}) for one in data["methods"]]
        data["tests"] = {name: [PairedTest(**test) for test in tests] for name, tests in data["tests"].items()}
        for tasks in ("search_tasks", "held_out_tasks"):
            data[tasks] = [(str(prompt), int(seed)) for prompt, seed in data[tasks]]
        return Tuned(**data)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StudyError(f"{path} is not a tuning of this version ({error}); delete it and run again") from error


def trials_csv(rows: Sequence[TrialRow], goals: Sequence[Goal]) -> str:
    """``trials.csv``: one line a trial. A pruned one has the mean of the tasks that it saw."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    names = sorted({name for row in rows for name in row.parameters})
    labels = list(dict.fromkeys(label for row in rows for label in row.scores))
    limits = list(dict.fromkeys(name for row in rows for name in row.limits))
    table.writerow(
        ["trial", "state", "label", "tasks", "mean", "se", *(f"value {goal.name}" for goal in goals)]
        + [f"reward {label}" for label in labels]
        + [f"missed {name}" for name in limits]
        + [*names, "steps", "cause"]
    )
    for row in rows:
        seen = Estimate.of([row.objective[task] for task in sorted(row.objective)]) if row.objective else None
        values = [f"{value:.6g}" for value in row.values] or [""] * len(goals)
        means = [f"{np.mean(list(row.scores[label].values())):.6g}" if label in row.scores else "" for label in labels]
        table.writerow(
            [row.number, row.state, row.label, len(row.objective)]
            + ([f"{seen.mean:.6g}", f"{seen.se:.6g}"] if seen else ["", ""])
            + [*values, *means, *(f"{row.limits[name]:.6g}" if name in row.limits else "" for name in limits)]
            + [*(_cell(row.parameters.get(name, "")) for name in names), row.steps, row.cause]
        )
    return text.getvalue()


def _cell(value: Any) -> Any:
    return f"{value:.6g}" if isinstance(value, float) else value


def _row(data: dict[str, Any]) -> TrialRow:
    data["objective"] = {int(task): value for task, value in data["objective"].items()}
    data["scores"] = {k: {int(task): v for task, v in row.items()} for k, row in data["scores"].items()}
    return TrialRow(**{**data, "values": tuple(data["values"])})


def _method(data: dict[str, Any]) -> Method:
    return Method(
        name=data["name"],
        recipe=data["recipe"],
        objective=tuple(data["objective"]),
        rewards={name: tuple(values) for name, values in data["rewards"].items()},
        images=tuple(data["images"]),
        looks={name: tuple(values) for name, values in data["looks"].items()},
    )
