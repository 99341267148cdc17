"""What a search leaves behind, as plain data: the trace of its rounds and the comparison on held-out tasks.

It is written to JSON (:meth:`Results.save`) and read back (:func:`load_results`), so that the report, a notebook and
a later version of pagopt all start from the same file, ``results.json``.
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from pagopt.combine import Limit
from pagopt.errors import StudyError
from pagopt.files import write_text
from pagopt.paired import SAME, group_means
from pagopt.recipe import Recipe

__all__ = ["Estimate", "Method", "PairedTest", "Results", "Round", "load_results"]

SCHEMA = 1


@dataclass(frozen=True)
class Estimate:
    """A mean over tasks and its standard error."""

    mean: float
    se: float

    @classmethod
    def of(cls, values: ArrayLike, prompts: Sequence[Hashable] | None = None) -> Estimate:
        """From one value for each task; a single task has no standard error, which counts as 0.

        Values that are the same but for rounding have none either.

        Args:
            values: Shape ``(n,)``.
            prompts: The prompt of each task, where several tasks may share one: pictures of a prompt are alike, so the
                mean and its error are those over prompts (:mod:`pagopt.paired`).
        """
        array = np.asarray(values, dtype=np.float64)
        if prompts is not None and array.size > 1:
            array = group_means(array, prompts)
        varied = array.size > 1 and not np.ptp(array) <= SAME * np.abs(array).max()
        se = float(array.std(ddof=1) / np.sqrt(array.size)) if varied else 0.0
        return cls(float(array.mean()), se)


@dataclass(frozen=True)
class Round:
    """One round of a search (paper, Algorithm 1).

    Some searches try something other than single heads. What they call their candidates is in
    :mod:`pagopt.search.candidates`.

    Attributes:
        number: 1, 2, ...
        base: Heads that were selected before this round, such as ``("L4.H1",)``.
        scores: For every candidate head, the score of ``base`` with it.
        chosen: The heads added in this round, best first.
        score: Score of the whole selection at the end of the round on the search tasks.
        parts: With several rewards, by label, each one's own score of every candidate head, like ``scores``.
        score_parts: The same of the whole selection.
        order: The candidate heads, best first, where the objective's order is not that of ``scores``; else empty.
        tasks: In a race, how many tasks each candidate head has seen. Its score is then what is believed of it on an
            average task, and the standard error how sure that is. Empty where all have seen all tasks.
        right: In a race, how many of the chosen heads are expected to be truly among the best.
        note: What else there is to say of the round, as sentences; mostly empty.
    """

    number: int
    base: tuple[str, ...]
    scores: dict[str, Estimate]
    chosen: tuple[str, ...]
    score: Estimate
    parts: dict[str, dict[str, Estimate]] = field(default_factory=dict)
    score_parts: dict[str, Estimate] = field(default_factory=dict)
    order: tuple[str, ...] = ()
    tasks: dict[str, int] = field(default_factory=dict)
    right: float | None = None
    note: str = ""

    def ranked(self) -> list[str]:
        """The candidate heads, best first."""
        return list(self.order) or sorted(self.scores, key=lambda name: -self.scores[name].mean)

    def means(self, head: str) -> dict[str, float]:
        """A candidate's mean of each reward, by label; empty with a single reward."""
        return {label: scores[head].mean for label, scores in self.parts.items()}


@dataclass(frozen=True)
class Method:
    """One row of the comparison on held-out tasks.

    Attributes:
        name: "no guidance", "CFG 2.0", "best layer L4", "HeadHunter", ...
        recipe: What it does, as :meth:`pagopt.Recipe.to_dict`.
        objective: The objective for every held-out task.
        rewards: Every reward's raw score for every held-out task.
        images: Store keys of the images, one per held-out task.
        looks: How the images look: a value for every held-out task by measure, see :func:`pagopt.looks.looks_table`.
            Empty in files of the first versions.
    """

    name: str
    recipe: dict[str, Any]
    objective: tuple[float, ...]
    rewards: dict[str, tuple[float, ...]]
    images: tuple[str, ...]
    looks: dict[str, tuple[float, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class PairedTest:
    """The found recipe against one other method, on the same prompts and seeds.

    Attributes:
        against: Name of the other method.
        difference: Mean of (found recipe - other), over prompts.
        se: Standard error of that mean.
        p_value: One-sided p-value of the paired t-test over prompts, for "the found recipe is better".
        wins: Share of tasks on which the found recipe is better.
    """

    against: str
    difference: float
    se: float
    p_value: float
    wins: float


@dataclass(frozen=True)
class Results:
    """All of it. Tasks are ``(prompt, seed)`` pairs; ``methods[-1]`` is the found recipe.

    ``baseline`` is the objective on the search tasks without guidance, on the scale of the rounds.

    ``combine`` says how several rewards were combined (:mod:`pagopt.combine`). ``limits`` are the thresholds, if any,
    for means over the search tasks, ``held_out_limits`` for means over the held-out tasks: they differ where a
    threshold is measured against the unguided images of the same tasks. ``weights`` says how the model's were held,
    where it is not plain float32 (:class:`pagopt.models.Weights`). ``own_code`` tells
    whether rewards, or a model, of the user's own have changed (:meth:`pagopt.study.Study.own_code`), ``model_files``
    whether files of the model's folder may have (:func:`pagopt.models.model_files`).
    """

    study: str
    model: str
    fingerprint: str
    pagopt: str
    layers: int
    heads: int
    steps: int
    objective: list[dict[str, Any]]
    search_tasks: list[tuple[str, int]]
    held_out_tasks: list[tuple[str, int]]
    rounds: list[Round]
    methods: list[Method]
    tests: list[PairedTest]
    images_generated: int
    seconds: float
    baseline: Estimate
    combine: str = "sum"
    limits: list[Limit] = field(default_factory=list)
    held_out_limits: list[Limit] = field(default_factory=list)
    weights: dict[str, str] = field(default_factory=dict)
    own_code: list[str] = field(default_factory=list)
    model_files: str = ""

    @property
    def held_out_prompts(self) -> list[str]:
        """The prompt of every held-out task."""
        return [prompt for prompt, _ in self.held_out_tasks]

    @property
    def recipe(self) -> Recipe:
        """The recipe that the search found."""
        return Recipe.from_dict(self.methods[-1].recipe)

    def save(self, path: str | Path) -> None:
        """Write as JSON, atomically."""
        write_text(path, json.dumps({"schema": SCHEMA, **asdict(self)}, indent=1) + "\n")


def load_results(path: str | Path) -> Results:
    """Read what :meth:`Results.save` wrote.

    Raises:
        StudyError: If the file is damaged or of another schema.
    """
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
        if data.pop("schema") != SCHEMA:
            raise ValueError("another schema")
        data["rounds"] = [
            Round(
                number=r["number"],
                base=tuple(r["base"]),
                scores=_estimates(r["scores"]),
                chosen=tuple(r["chosen"]),
                score=Estimate(**r["score"]),
                # Results of version 0.1.0 have none of these.
                parts={label: _estimates(scores) for label, scores in r.get("parts", {}).items()},
                score_parts=_estimates(r.get("score_parts", {})),
                order=tuple(r.get("order", ())),
                tasks=dict(r.get("tasks", {})),
                right=r.get("right"),
                note=r.get("note", ""),
            )
            for r in data["rounds"]
        ]
        data["methods"] = [
            Method(
                name=m["name"],
                recipe=m["recipe"],
                objective=tuple(m["objective"]),
                rewards={name: tuple(values) for name, values in m["rewards"].items()},
                images=tuple(m["images"]),
                looks={name: tuple(values) for name, values in m.get("looks", {}).items()},
            )
            for m in data["methods"]
        ]
        data["own_code"] = data.pop("own_rewards", data.get("own_code", []))  # its first name
        data["baseline"] = Estimate(**data["baseline"])
        data["tests"] = [PairedTest(**t) for t in data["tests"]]
        for tasks in ("search_tasks", "held_out_tasks"):
            data[tasks] = [(str(prompt), int(seed)) for prompt, seed in data[tasks]]
        for limits in ("limits", "held_out_limits"):
            data[limits] = [Limit(**limit) for limit in data.get(limits, [])]
        return Results(**data)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StudyError(f"{path} is not a results file of this version ({error}); delete it and run again") from error


def _estimates(data: Mapping[str, Mapping[str, float]]) -> dict[str, Estimate]:
    return {name: Estimate(**estimate) for name, estimate in data.items()}
