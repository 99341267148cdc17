"""The sentences on top of a tuning's page: what was found, how much better it is on new tasks, at what cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from pagopt.report.reading import Row, decimals, number, value_name
from pagopt.report.story import Story, Words, tell
from pagopt.results import Estimate, Results
from pagopt.tuning.lens import settings
from pagopt.tuning.outcome import Tuned

__all__ = ["NOTHING_BETTER", "story"]

NOTHING_BETTER = "tuning found nothing better than the recipe as it was"
"""Where the best trial is that recipe."""

NAMES = {"as it was": "the recipe as it was", "no guidance": "no guidance"}


def story(tuned: Tuned, results: Results, rows: Sequence[Row]) -> Story:
    """Put a tuning into words.

    Args:
        tuned: The tuning.
        results: Its comparison, the result last.
        rows: Its methods.
    """
    several = len(tuned.goals) > 1
    noun, subject = "tuned recipe", "the tuned recipe"
    if several:
        noun, subject = "first recipe", f"the first of them (trial {tuned.best[0]})"
    elif tuned.is_unchanged:
        subject = NAMES["as it was"]
    told = tell(results, rows, Words(noun, "the trials", "tasks of the trials", NAMES, subject))
    first = [told.headline, *([] if several else [_found(tuned)])]
    if several:
        first.insert(0, _front(tuned, results.combine))
    elif tuned.is_unchanged:
        first.insert(0, f"{NOTHING_BETTER[0].upper()}{NOTHING_BETTER[1:]}.")
    if tuned.missed:
        first.insert(0, f"No trial kept to all constraints; the one shown misses: {', '.join(tuned.missed)}.")
    deck = [*first[1:], *told.deck, _cost(tuned), _limits(tuned)]
    return Story("none" if tuned.missed else told.verdict, first[0], tuple(sentence for sentence in deck if sentence))


def _found(tuned: Tuned) -> str:
    row = tuned.trial(tuned.best[0])
    states = Counter(one.state for one in tuned.trials)
    rest = [
        f"{states[state]} {word}" for state, word in (("pruned", "stopped early"), ("fail", "failed")) if states[state]
    ]
    said = f"; {' and '.join(rest)}" if rest else ""
    label = f" ({row.label})" if row.label else ""
    return f"Found by trial {row.number}{label} of {len(tuned.trials)}{said}: {settings(row)}."


def _front(tuned: Tuned, combine: str) -> str:
    """From the held-out numbers of the front's recipes."""
    fronts = [one for one in tuned.methods if one.trial is not None]
    base = next(one for one in tuned.methods if one.trial is None)
    parts = []
    for goal in tuned.goals:
        if goal.name == "cost":
            costs = [float(one.cost) for one in fronts]
            parts.append(f"block evaluations {min(costs):g} to {max(costs):g} (no guidance {base.cost})")
            continue
        name = value_name(tuned.objective, combine) if goal.name == "objective" else goal.name
        scores = [one.method.objective if name != goal.name else one.method.rewards[name] for one in (*fronts, base)]
        estimates = [Estimate.of(values, tuned.held_out_prompts) for values in scores]
        places = decimals(estimate.se for estimate in estimates)
        means = [estimate.mean for estimate in estimates]
        low, high, plain = (number(value, places) for value in (min(means[:-1]), max(means[:-1]), means[-1]))
        parts.append(f"{name} {low} to {high} (no guidance {plain})")
    count, held_out = len(fronts), len(tuned.held_out_tasks)
    what = "One recipe that no trial beats" if count == 1 else f"{count} recipes to choose from, none beaten"
    seen = set(tuned.held_out_tasks) <= set(tuned.search_tasks)
    where = "1 prompt and seed" if held_out == 1 else f"{held_out} prompts and seeds"
    where += "" if seen else " no trial saw"
    return f"{what} in all objectives at once: {', '.join(parts)}, on {where}."


def _cost(tuned: Tuned) -> str:
    """Block evaluations for one picture, the result first."""
    own = next(one for one in tuned.methods if one.trial is not None)
    others = [
        f"{one.cost} for {NAMES.get(one.method.name, one.method.name)}"
        for one in tuned.methods
        if one.trial is None and not (tuned.is_unchanged and one.method.name == "as it was")
    ]
    return f"One of its pictures costs {own.cost} block evaluations ({', '.join(others)})."


def _limits(tuned: Tuned) -> str:
    limits = tuned.trial(tuned.best[0]).limits
    if tuned.missed or not limits:
        return ""
    before = next((row.limits for row in tuned.trials if row.label == "as it was"), {})
    more = " The recipe as it was does not." if any(miss > 0 for miss in before.values()) else ""
    return f"On the tasks of the trials it keeps to: {', '.join(limits)}.{more}"
