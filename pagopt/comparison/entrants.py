"""The recipes of a comparison, and what is known of the search that found each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pagopt.errors import RecipeError, StudyError
from pagopt.recipe import Provenance, Recipe, load_recipe
from pagopt.reward import RewardSpec
from pagopt.task import Task

__all__ = ["Entrant", "load_entrants"]


@dataclass(frozen=True)
class Entrant:
    """One recipe of a comparison.

    Attributes:
        label: Its name in the tables.
        recipe: What it does.
        provenance: Where it comes from, if its file says so.
    """

    label: str
    recipe: Recipe
    provenance: Provenance | None = None

    def searched(self) -> list[Task]:
        """The tasks that its search looked at; empty where the file does not say.

        Raises:
            RecipeError: If the file says something that is no list of prompts and seeds.
        """
        return self._tasks("search_tasks")

    def held_out(self) -> list[Task]:
        """The tasks of its study's own comparison."""
        return self._tasks("held_out_tasks")

    def steps(self) -> int | None:
        """Inference steps that it was found with."""
        found = self.provenance.evidence.get("steps") if self.provenance else None
        if found is not None and (type(found) is not int or found < 1):
            raise RecipeError(f"the evidence of recipe {self.label} has steps = {found!r}: a whole number from 1 on")
        return found

    def objective(self) -> list[RewardSpec]:
        """What its search maximised.

        Raises:
            RecipeError: If the file names no rewards there.
        """
        specs = []
        for term in self.provenance.objective if self.provenance else []:
            try:
                specs.append(RewardSpec(term["name"], float(term.get("weight", 1.0)), dict(term.get("args") or {})))
            except (AttributeError, KeyError, TypeError, ValueError) as error:
                raise RecipeError(f"the objective of recipe {self.label} names no reward: {term!r}") from error
        return specs

    def _tasks(self, name: str) -> list[Task]:
        listed = self.provenance.evidence.get(name, []) if self.provenance else []
        tasks = []
        for item in listed if isinstance(listed, list) else [listed]:
            pair = isinstance(item, list | tuple) and len(item) == 2
            if not (pair and isinstance(item[0], str) and type(item[1]) is int and item[1] >= 0):
                raise RecipeError(
                    f"the evidence of recipe {self.label} has {item!r} among its {name}: each is a prompt and a seed, "
                    'such as ["flat, red apple", 0]'
                )
            tasks.append(Task(item[0], item[1]))
        return tasks


def load_entrants(paths: Sequence[str | Path]) -> list[Entrant]:
    """Read recipe files and name them: by the file, ``flat`` for ``flat.json``, or by the folder of a ``recipe.json``.

    Raises:
        RecipeError: If a file cannot be read.
        StudyError: If a file is given twice.
    """
    files = [Path(path) for path in paths]
    for number, file in enumerate(files):
        if file.resolve() in [other.resolve() for other in files[:number]]:
            raise StudyError(f"the recipe {file} is given twice; give it once")
    loaded = [load_recipe(file) for file in files]
    labels = [_name(file) for file in files]
    if not _distinct(labels):
        labels = [str(file) for file in files]
    return [Entrant(label, *pair) for label, pair in zip(labels, loaded, strict=True)]


def _name(file: Path) -> str:
    return file.resolve().parent.name if file.stem == "recipe" else file.stem


def _distinct(labels: Iterable[str]) -> bool:
    every = list(labels)
    return len(set(every)) == len(every) and all(every)
