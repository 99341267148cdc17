"""The few drawing helpers that the charts share: escaped elements, linear scales, round ticks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

from markupsafe import Markup, escape

from pagopt.paired import SAME

__all__ = ["Scale", "figure", "pad", "scale", "spread", "tag", "ticks"]

Attribute = str | float | int | None
Scale = Callable[[float], float]


def tag(name: str, *children: str | Markup, **attributes: Attribute) -> Markup:
    """One SVG element; text children and attribute values are escaped.

    Args:
        name: Element name.
        children: Text, or elements made by this function.
        attributes: ``class_`` gives ``class`` and ``stroke_width`` gives ``stroke-width``; ``None`` is left out,
            numbers are rounded to 0.1 of a pixel.
    """
    parts = []
    for key, value in attributes.items():
        if value is not None:
            text = f"{round(value, 1):g}" if isinstance(value, float) else str(value)
            parts.append(f' {key.rstrip("_").replace("_", "-")}="{escape(text)}"')
    body = "".join(escape(child) for child in children)
    return Markup(f"<{name}{''.join(parts)}>{body}</{name}>" if body else f"<{name}{''.join(parts)}/>")


def figure(width: float, height: float, label: str, children: Iterable[Markup]) -> Markup:
    """A whole ``<svg>`` of that size in CSS pixels; ``label`` is what a screen reader says about it."""
    size = {"viewBox": f"0 0 {width:g} {height:g}", "width": f"{width:g}", "height": f"{height:g}"}
    return tag("svg", *children, role="img", aria_label=label, **size)


def scale(low: float, high: float, start: float, end: float) -> Scale:
    """The linear map that takes ``low`` to ``start`` and ``high`` to ``end``."""
    span = (high - low) or 1.0
    return lambda value: start + (value - low) / span * (end - start)


def pad(values: Iterable[float], share: float = 0.06) -> tuple[float, float]:
    """The range of the finite values, widened on both sides by ``share`` of it; never empty.

    Values that are the same but for rounding are one value.
    """
    finite = [value for value in values if math.isfinite(value)] or [0.0]
    low, high = min(finite), max(finite)
    size = max(abs(low), abs(high))
    span = high - low if high - low > SAME * size else 0.0
    margin = (span or size) * share or 1.0
    return low - margin, high + margin


def ticks(low: float, high: float, count: int = 5) -> list[tuple[float, str]]:
    """About ``count`` round values within ``[low, high]`` with their labels."""
    raw = (high - low) / max(count, 1)
    power = 10.0 ** math.floor(math.log10(raw)) if raw > 0 else 1.0
    step = next((m * power for m in (1, 2, 5, 10) if m * power >= raw), power)
    places = max(0, -math.floor(math.log10(step) + 1e-9))
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [(i * step, f"{i * step:.{places}f}".replace("-", "\N{MINUS SIGN}")) for i in range(first, last + 1)]


def spread(positions: Sequence[float], gap: float) -> list[float]:
    """Move labels apart until neighbours are ``gap`` from each other, keeping their order and their middle."""
    order = sorted(range(len(positions)), key=lambda i: positions[i])
    groups: list[tuple[list[int], float]] = []
    for i in order:
        members, centre = [i], positions[i]
        while groups and centre - groups[-1][1] < gap * (len(members) + len(groups[-1][0])) / 2:
            other, there = groups.pop()
            centre = (there * len(other) + centre * len(members)) / (len(other) + len(members))
            members = other + members
        groups.append((members, centre))
    result = [0.0] * len(positions)
    for members, centre in groups:
        for rank, i in enumerate(members):
            result[i] = centre + (rank - (len(members) - 1) / 2) * gap
    return result
