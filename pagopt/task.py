"""What is drawn: a prompt and a seed, under a recipe."""

from __future__ import annotations

from typing import NamedTuple

from pagopt import checked
from pagopt.recipe import Recipe

__all__ = ["Job", "Task"]


class _Task(NamedTuple):
    prompt: str
    seed: int


class Task(_Task):
    """What to draw: a prompt and the seed of its initial noise, a whole number of any kind.

    Raises:
        StudyError: If they are not, or the seed is negative.
    """

    __slots__ = ()

    def __new__(cls, prompt: str, seed: int) -> Task:
        return super().__new__(cls, checked.prompt(prompt), checked.seed(seed))


class Job(NamedTuple):
    """One image: a task under a recipe."""

    recipe: Recipe
    task: Task
