"""A look at the looks: did brightness, saturation, contrast or sharpness jump along with the reward?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pagopt.report.pictures import MEASURES, Looks
from pagopt.report.reading import Row, paired
from pagopt.results import Estimate, Results

__all__ = ["JUMP", "Guard", "read_guards", "warning"]

JUMP = 0.35
"""A mean that rises or falls by more than this share of its unguided value gets a note."""


@dataclass(frozen=True)
class Guard:
    """One measure of all methods' held-out pictures.

    Attributes:
        measure: Its name.
        means: Mean of each method, in the order of the methods.
        change: Found recipe minus no guidance, on the same tasks.
        share: That change as a share of the unguided mean.
        jumped: Whether the share is beyond ``JUMP`` and the change beyond two standard errors.
    """

    measure: str
    means: tuple[float, ...]
    change: Estimate
    share: float
    jumped: bool


def read_guards(results: Results, rows: Sequence[Row], looks: Mapping[str, Looks]) -> list[Guard]:
    """One guard a measure.

    Args:
        results: What the search left behind.
        rows: Its methods.
        looks: Measures of every picture, by store key.
    """
    base = next((index for index, row in enumerate(rows) if row.role == "none"), 0)
    guards = []
    for measure in MEASURES:
        values = [[float(getattr(looks[key], measure)) for key in method.images] for method in results.methods]
        means = tuple(sum(column) / len(column) if column else math.nan for column in values)
        change = paired(values[-1], values[base])
        share = change.mean / means[base] if means[base] else math.nan
        sure = not math.isfinite(change.se) or abs(change.mean) > 2 * change.se
        guards.append(Guard(measure, means, change, share, abs(share) > JUMP and sure))
    return guards


def warning(guards: Sequence[Guard]) -> str:
    """What jumped, as one sentence; empty when nothing did."""
    ways = [(guard, "rose" if guard.share > 0 else "fell") for guard in guards if guard.jumped]
    if not ways:
        return ""
    texts = [f"{guard.measure} {way} by {abs(guard.share):.0%}" for guard, way in ways]
    listed = texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} and {texts[-1]}"
    return f"From no guidance to the found recipe {listed}."
