"""Values from a user's hand or file: each function returns the value in its canonical form, or says the rule."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from pagopt.errors import RecipeError
from pagopt.heads import Head, expand_heads

__all__ = [
    "Option",
    "interval",
    "kept_strengths",
    "no_constant",
    "no_duplicates",
    "number",
    "options",
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
    """Options by name, as sorted pairs."""
    try:
        given = dict(value)
    except (TypeError, ValueError):
        given = {"": value}  # type: ignore[dict-item]
    for name, option in given.items():
        finite = not isinstance(option, float) or math.isfinite(option)
        if not (isinstance(name, str) and name and isinstance(option, bool | int | float | str) and finite):
            raise RecipeError(f"target_options are numbers or words by name, such as {{'sigma': 2.0}}; got {value!r}")
    return tuple(sorted(given.items()))


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
