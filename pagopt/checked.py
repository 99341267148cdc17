"""Values from a user's hand or file: each function returns the value in its canonical form, or says the rule."""

from __future__ import annotations

import math
import numbers
import operator
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from pagopt.errors import RecipeError, StudyError
from pagopt.heads import Head, expand_heads

__all__ = [
    "Option",
    "interval",
    "kept_strengths",
    "no_constant",
    "no_duplicates",
    "number",
    "options",
    "prompt",
    "scalar",
    "seed",
    "sorted_strengths",
    "strengths_by_head",
    "unknown_keys",
]

Option = bool | int | float | str


def sorted_strengths(heads: list[Head], strength: float | Iterable[float]) -> float | tuple[float, ...]:
    """Strengths in the order of the sorted heads; one number where all are the same."""
    if isinstance(strength, str | bytes | Mapping) or not isinstance(strength, Iterable):
        return number("strength", strength, low=0.0, high=1.0)
    values = [number("strength", value, low=0.0, high=1.0) for value in strength]
    if len(values) != len(heads):
        raise RecipeError(f"there are {len(values)} strengths for {len(heads)} heads; give one each, or one number")
    ordered = tuple(value for _, value in sorted(zip(heads, values, strict=True)))
    if not ordered:
        return 1.0
    return ordered[0] if len(set(ordered)) == 1 else ordered


def strengths_by_head(
    given: Mapping[str | Head, float], strength: float | Iterable[float]
) -> tuple[list[Head], list[float]]:
    """Heads and strengths from a mapping; an address of several gives its strength to each of them."""
    if strength != 1.0:
        raise RecipeError(f"heads give each its strength, and strength is {strength!r}, too: leave one of the two out")
    pairs = [(head, value) for address, value in given.items() for head in expand_heads(address)]
    return [head for head, _ in pairs], [value for _, value in pairs]


def kept_strengths(known: Mapping[Head, float], changes: Mapping[str, Any]) -> float | list[float]:
    """Those of the heads in ``changes``, as ``known``."""
    if isinstance(changes["heads"], Mapping):
        return 1.0  # it says them itself
    heads = expand_heads(changes["heads"])
    lacking = [str(head) for head in heads if head not in known]
    if lacking:
        raise RecipeError(
            f"every head of this recipe has a strength of its own, and there is none for {', '.join(lacking)}: give "
            "strength, too, or heads as a mapping such as {'L4.H1': 0.5}"
        )
    return [known[head] for head in heads]


def interval(value: Iterable[float]) -> tuple[float, float]:
    """Two fractions, the first below the second."""
    bounds = tuple(value) if isinstance(value, Iterable) and not isinstance(value, str) else ()
    if len(bounds) != 2:
        raise RecipeError(f"interval must be two fractions of the steps, such as (0.0, 0.6); got {value!r}")
    start, stop = (number("interval", bound, low=0.0, high=1.0) for bound in bounds)
    if start >= stop:
        raise RecipeError(f"interval [{start:g}, {stop:g}) is empty: its start must lie below its stop")
    return start, stop


def options(value: Mapping[str, Option] | Iterable[tuple[str, Option]]) -> tuple[tuple[str, Option], ...]:
    """Options by name, as sorted pairs; numbers are floats, so that ``1`` and ``1.0`` are the same option."""
    try:
        given = dict(value)
    except (TypeError, ValueError):
        given = {"": value}  # type: ignore[dict-item]
    known = {name: _option(option) for name, option in given.items()}
    if not all(isinstance(name, str) and name and option is not None for name, option in known.items()):
        raise RecipeError(f"target_options are numbers or words by name, such as {{'sigma': 2.0}}; got {value!r}")
    return tuple(sorted((name, option) for name, option in known.items() if option is not None))


def _option(value: Any) -> Option | None:
    """An option in its canonical form; ``None`` if it is none. A whole number that no float holds stays."""
    if isinstance(value, bool | str):
        return value
    if isinstance(value, numbers.Integral):
        whole = int(value)
        return float(whole) if abs(whole) <= 2**53 else whole
    if isinstance(value, numbers.Real) and math.isfinite(value):
        return float(value) + 0.0  # -0.0 becomes 0.0
    return None


def prompt(value: Any) -> str:
    """A text that can be written down.

    Raises:
        StudyError: If it is none, or has a part that is no character.
    """
    if not isinstance(value, str):
        raise StudyError(f"a prompt is a text, not {value!r} ({type(value).__name__})")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        part = value[error.start : error.end]
        raise StudyError(f"the prompt {value!r} is no text in UTF-8: {part!r} is no character") from None
    return value


def seed(value: Any, name: str = "a seed") -> int:
    """A whole number of any kind, as an int.

    Args:
        value: What was given.
        name: What a message calls it.

    Raises:
        StudyError: If it is none, or torch's generators do not take it.
    """
    try:
        whole = int(operator.index(value))
    except TypeError:
        raise StudyError(f"{name} must be a whole number, not {value!r} ({type(value).__name__})") from None
    if not 0 <= whole < 2**64:
        raise StudyError(f"{name} must not be negative, nor 2**64 or more: {whole}")
    return whole


def scalar(value: Any) -> Any:
    """A NumPy number as Python's own; for ``json.dumps(default=...)``."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{value!r:.80} is a {type(value).__name__}: use numbers, texts, lists and mappings")


def number(name: str, value: Any, low: float, high: float = math.inf) -> float:
    """A finite number of a range."""
    expected = f"at least {low:g}" if high == math.inf else f"between {low:g} and {high:g}"
    if not isinstance(value, bool | str | bytes):
        try:
            number = float(value)
        except (TypeError, ValueError, OverflowError):
            number = math.nan
        if math.isfinite(number) and low <= number <= high:
            return number + 0.0  # -0.0 becomes 0.0, so that equal recipes have equal keys
    raise RecipeError(f"{name} must be a number {expected}, got {value!r}")


def unknown_keys(unknown: Iterable[str], known: Iterable[str], where: str) -> str:
    """What to say of keys that mean nothing."""
    return f"unknown {where} key {', '.join(map(repr, sorted(unknown)))}; known: {', '.join(known)}"


def no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object whose keys differ; for ``json.loads``."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice in one object")
    return found


def no_constant(text: str) -> Any:
    """Refuse NaN and infinities; for ``json.loads``."""
    raise ValueError(f"{text} is no JSON number")
