"""Guards against reward hacking: did the look of the pictures jump along with the reward?

The criteria, over the held-out tasks, found recipe minus no guidance, task by task; means and errors are over prompts:

- brightness, saturation, contrast and sharpness: the mean moved by more than ``JUMP`` of its unguided value;
- variety (mean distance of two pictures): it fell by more than ``JUMP``, so the pictures have become alike;
- twins (share of pictures that are near copies of another one): it rose by more than ``COPIES``;
- and the change is beyond two standard errors. For variety, the mean of a symmetric function of pairs, its standard
  error is twice that of the mean of each picture's own distances (Hoeffding, "A class of statistics with
  asymptotically normal distribution", 1948, doi 10.1214/aoms/1177730196).

A measure that goes together with a reward of the objective over the unguided pictures, and moved the way this reward
likes, was asked for: it is said, but not as a warning.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pagopt.looks import MEASURES
from pagopt.report.reading import paired, read_rows
from pagopt.report.story import ALPHA
from pagopt.results import Estimate, Results

__all__ = ["COPIES", "JUMP", "TOGETHER", "Guard", "Notice", "describe", "notice", "read_guards"]

JUMP = 0.2
"""A mean that moves by more than this share of its unguided value can be seen in the pictures."""

COPIES = 0.1
"""A rise of the share of near copies by more than this counts."""

TOGETHER = 0.8
"""From this correlation on, over at least ``ENOUGH`` unguided pictures, a measure counts as what a reward measures."""

ENOUGH = 8


@dataclass(frozen=True)
class Guard:
    """One measure of all methods' held-out pictures.

    Attributes:
        measure: Its name, one of :data:`pagopt.looks.MEASURES`.
        means: Mean of each method, in the order of the methods.
        change: Found recipe minus no guidance, on the same tasks, with its standard error.
        share: That change as a share of the unguided mean (of twins the change itself); infinite where that mean is 0.
        jumped: Whether it meets the criteria above.
        asked: The reward of the objective that this measure goes together with, if it moved as that reward likes.
        correlation: With that reward, over the unguided pictures; 0 without one.
        most: The held-out tasks in which it moved most that way, by number, at most four.
    """

    measure: str
    means: tuple[float, ...]
    change: Estimate
    share: float
    jumped: bool
    asked: str = ""
    correlation: float = 0.0
    most: tuple[int, ...] = ()


@dataclass(frozen=True)
class Notice:
    """What the guards say.

    Attributes:
        kind: "jump": look closely; "asked": only what was asked for moved; "calm": nothing did.
        text: In words; empty when calm.
    """

    kind: str
    text: str


def read_guards(results: Results) -> list[Guard]:
    """One guard a measure; none where the pictures were not measured.

    Args:
        results: What the search left behind. The last method is the found recipe.
    """
    base = next((index for index, row in enumerate(read_rows(results)) if row.role == "none"), 0)
    measured = [name for name in MEASURES if all(name in method.looks for method in results.methods)]
    return [_guard(name, results, base) for name in measured]


def _guard(measure: str, results: Results, base: int) -> Guard:
    before, after = results.methods[base].looks[measure], results.methods[-1].looks[measure]
    prompts = results.held_out_prompts
    means = tuple(Estimate.of(method.looks[measure], prompts).mean for method in results.methods)
    change = paired(after, before, prompts)
    if measure == "variety":
        change = Estimate(change.mean, 2 * change.se)
    if measure == "twins":
        share, moved = change.mean, change.mean > COPIES
    else:
        share = change.mean / means[base] if means[base] else math.copysign(math.inf, change.mean)
        moved = change.mean != 0 and (-share if measure == "variety" else abs(share)) > JUMP
    sure = not math.isfinite(change.se) or abs(change.mean) > 2 * change.se
    up = change.mean > 0
    asked, correlation = _asked(results, base, before, up)
    order = np.argsort(np.subtract(before, after) if up else np.subtract(after, before), kind="stable")
    return Guard(measure, means, change, share, moved and sure, asked, correlation, tuple(order[:4].tolist()))


def _asked(results: Results, base: int, values: Sequence[float], up: bool) -> tuple[str, float]:
    """The reward of the objective that a measure goes together with, and their correlation."""
    if len(values) < ENOUGH:
        return "", 0.0
    found = ("", 0.0)
    for term in results.objective:
        label = str(term.get("label", term.get("name")))
        scores = results.methods[base].rewards.get(label, ())
        if len(scores) != len(values) or not np.std(scores) > 0 or not np.std(values) > 0:
            continue
        correlation = float(np.corrcoef(scores, values)[0, 1])
        liked = (correlation > 0) == (float(term.get("weight", 1.0)) > 0)
        if liked == up and abs(correlation) >= max(TOGETHER, abs(found[1])):
            found = (label, correlation)
    return found


def notice(results: Results, guards: Sequence[Guard], noun: str = "found recipe") -> Notice:
    """What jumped, in words.

    Args:
        results: What the search left behind.
        guards: Its guards.
        noun: What the last method is called.
    """
    jumped = [guard for guard in guards if guard.jumped]
    side, asked = [g for g in jumped if not g.asked], [g for g in jumped if g.asked]
    sentences = []
    if side:
        base = results.methods[0].name
        gain = any(t.difference > 0 and t.p_value < ALPHA for t in results.tests if t.against == base)
        start = "The gain comes with a change of look" if gain else "The look changed"
        sentences.append(f"{start}, from no guidance to the {noun}: {_listed([_words(g) for g in side])}.")
    for guard in asked:
        sentences.append(
            f"{_words(guard).capitalize()}{', too' if side else ''}, but that is what {guard.asked} measures (over the "
            f"unguided pictures they go together, r = {guard.correlation:.2f}): it was asked for."
        )
    return Notice("jump" if side else "asked" if asked else "calm", " ".join(sentences))


def describe(results: Results, guards: Sequence[Guard]) -> dict[str, Any]:
    """The guards as JSON, for a recipe's evidence; empty where nothing was measured."""
    if not guards:
        return {}
    base = {guard.measure: guard.means[-1] - guard.change.mean for guard in guards}
    return {
        "measures": {
            guard.measure: {
                "no guidance": round(base[guard.measure], 6),
                "found": round(guard.means[-1], 6),
                "se of change": round(guard.change.se, 6) if math.isfinite(guard.change.se) else None,
                "jumped": guard.jumped,
                **({"asked for by": guard.asked} if guard.jumped and guard.asked else {}),
            }
            for guard in guards
        },
        "notice": notice(results, guards).text,
    }


def _words(guard: Guard) -> str:
    if guard.measure == "twins":
        after = guard.means[-1]
        return f"{after:.0%} of the pictures are near copies of another one ({after - guard.change.mean:.0%} before)"
    way = "rose" if guard.change.mean > 0 else "fell"
    size = f"by {abs(guard.share):.0%}" if math.isfinite(guard.share) else "from 0"
    alike = " (the pictures have become alike)" if guard.measure == "variety" else ""
    return f"{guard.measure} {way} {size}{alike}"


def _listed(texts: Sequence[str]) -> str:
    return texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} and {texts[-1]}"
