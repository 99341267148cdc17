"""The sentences on top of the page: what the search achieved on tasks it never saw, said as it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pagopt.report.reading import Row, decimals, measured, number, p_text, paired, value_name
from pagopt.results import PairedTest, Results
from pagopt.summary import thresholds

__all__ = ["ALPHA", "Story", "tell"]

ALPHA = 0.05
"""Below this one-sided p-value a difference counts as shown."""


@dataclass(frozen=True)
class Story:
    """The result in words.

    Attributes:
        verdict: "gain", "unclear" or "none", against no guidance.
        headline: One sentence.
        deck: What else has to be said beside it: the other methods, the other rewards, and faults of the comparison.
    """

    verdict: str
    headline: str
    deck: tuple[str, ...]


def tell(results: Results, rows: Sequence[Row]) -> Story:
    """Put the held-out comparison into words.

    Args:
        results: What the search left behind.
        rows: Its methods, as :func:`pagopt.report.reading.read_rows` gives them.
    """
    found = rows[-1]
    base = next((row for row in rows if row.role == "none"), rows[0])
    verdict = _verdict(base.test)
    deck = list(thresholds(results).sentences)
    deck += [_against(row) for row in rows[:-1] if row is not base and row.test is not None]
    deck += [text for text in (_other_rewards(results, rows.index(base)), _seen(results)) if text]
    return Story(verdict, _tied(_headline(results, base, found, verdict)), tuple(map(_tied, deck)))


def _tied(sentence: str) -> str:
    """Keep numbers together with their signs at the end of a line."""
    for sign in (" \N{PLUS-MINUS SIGN} ", "p < ", "p = "):
        sentence = sentence.replace(sign, sign.replace(" ", "\N{NO-BREAK SPACE}"))
    return sentence


def _verdict(test: PairedTest | None) -> str:
    if test is None or not test.difference > 0:
        return "none"
    return "gain" if test.p_value < ALPHA else "unclear"


def _headline(results: Results, base: Row, found: Row, verdict: str) -> str:
    places = decimals([base.objective.se, found.objective.se])
    if base.test:
        places = max(places, decimals([base.test.se]))
    before, after = number(base.objective.mean, places), number(found.objective.mean, places)
    name, count = f"the {value_name(results.objective, results.combine)} score", len(results.held_out_tasks)
    where = f"on {count} prompts and seeds"
    where += " the search never saw" if not _repeated(results) else " of the comparison"
    if found.recipe.is_plain:
        return f"The search ended with no guidance at all; {name} is {after} {where}."
    heads, step = _heads(found), f"from {before} to {after}"
    test = f"paired test, {p_text(base.test.p_value)}" if base.test else "not tested"
    if verdict == "gain":
        return f"Perturbing {heads} raises {name} {step} {where} ({test})."
    if verdict == "unclear":
        return f"No clear gain: perturbing {heads} moves {name} {step} {where}, which may well be chance ({test})."
    return f"No gain: perturbing {heads} does not raise {name}; it goes {step} {where} ({test})."


def _heads(row: Row) -> str:
    names = [str(head) for head in row.recipe.heads]
    if len(names) == 1:
        return f"head {names[0]}"
    if len(names) <= 4:
        return f"heads {', '.join(names[:-1])} and {names[-1]}"
    return f"{len(names)} heads ({', '.join(names[:3])} and {len(names) - 3} more)"


def _against(row: Row) -> str:
    test = row.test
    assert test is not None
    places = decimals([test.se])
    size = measured(abs(test.difference), test.se, places)
    if test.p_value < ALPHA and test.difference > 0:
        return f"It is ahead of {row.name} by {size} ({p_text(test.p_value)})."
    if test.p_value > 1 - ALPHA and test.difference < 0:
        return f"It is behind {row.name} by {size}."
    gap = measured(test.difference, test.se, places, sign=True)
    return f"Against {row.name} nothing is decided: the difference is {gap} ({p_text(test.p_value)})."


def _other_rewards(results: Results, base: int) -> str:
    """How the rewards moved that the search did not optimise."""
    before, after = results.methods[base], results.methods[-1]
    used = {str(item.get("label", item.get("name"))) for item in results.objective}
    parts = []
    for name, values in after.rewards.items():
        if name in used or name not in before.rewards:
            continue
        change = paired(values, before.rewards[name])
        parts.append(f"{name} {measured(change.mean, change.se, decimals([change.se]), sign=True)}")
    if not parts:
        return ""
    return f"What the search did not optimise, found recipe minus {before.name}: {', '.join(parts)}."


def _repeated(results: Results) -> int:
    return len(set(results.search_tasks) & set(results.held_out_tasks))


def _seen(results: Results) -> str:
    repeated = _repeated(results)
    if not repeated:
        return ""
    count = len(results.held_out_tasks)
    return f"Mind that {repeated} of these {count} tasks were search tasks too, which flatters the gain."
