"""What can go wrong for a user, as one small tree of exceptions.

The command line prints a :class:`PagoptError` without a traceback: its text has to say the rule, the values, and what
to do next.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = [
    "GuidanceError",
    "ModelError",
    "PagoptError",
    "RecipeError",
    "RewardError",
    "StoreError",
    "StudyError",
    "Terminated",
    "UnknownName",
]


class PagoptError(Exception):
    """Anything a user can cause and can put right."""


class Terminated(KeyboardInterrupt):
    """The process was asked to end (SIGTERM), as by a scheduler or by ``kill``; what is finished is kept."""


class UnknownName(PagoptError):
    """A name that nothing answers to; the message lists what exists and suggests the nearest.

    Args:
        kind: What was looked for: "reward", "study", "head", ...
        name: What the user wrote.
        known: What exists. At most 60 are printed.
        hint: One more sentence, if any.
    """

    def __init__(self, kind: str, name: str, known: Iterable[str], hint: str = "") -> None:
        names = list(known)
        near = difflib.get_close_matches(name, names, n=1)
        guess = f" Did you mean {near[0]!r}?" if near else ""
        shown = ", ".join(names[:60]) + (", ..." if len(names) > 60 else "")
        listing = f" Known: {shown}." if names else f" There is no {kind} at all."
        super().__init__(f"unknown {kind} {name!r}.{guess}{listing}" + (f" {hint}" if hint else ""))


class RecipeError(PagoptError):
    """A recipe with values that mean nothing, or a damaged recipe file."""


class ModelError(PagoptError):
    """A model that cannot be loaded or belongs to no supported family."""


class GuidanceError(PagoptError):
    """Guidance that could not be applied, or would have done nothing."""


class RewardError(PagoptError):
    """A reward that cannot be made, failed, or returned what is no score.

    Args:
        message: The rule, the values, what to do next.
        reward: Name of the reward, where one is at fault.
        index: Position of the offending image in the batch, where known.
        prompt: That image's prompt, where known.
    """

    def __init__(
        self, message: str, *, reward: str | None = None, index: int | None = None, prompt: str | None = None
    ) -> None:
        super().__init__(message)
        self.reward = reward
        self.index = index
        self.prompt = prompt


class StoreError(PagoptError):
    """A store that cannot be read or written."""


class DamagedImage(StoreError):
    """An image file of a store that can be read, but is not what it should be."""


class StudyError(PagoptError):
    """A study whose configuration makes no sense, or whose folder belongs to another one."""
