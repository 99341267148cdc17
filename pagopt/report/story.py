"""The sentences on top of the page: what the search achieved on tasks it never saw, said as it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pagopt.report.reading import Row, decimals, measured, number, p_text, paired, value_name
from pagopt.results import PairedTest, Results
from pagopt.summary import thresholds

__all__ = ["ALPHA", "SEARCH", "Story", "Words", "tell", "unseen"]

ALPHA = 0.05
"""Below this one-sided p-value a difference counts as shown."""


@dataclass(frozen=True)
class Words:
    """What those are called that a story is about.

    Attributes:
        noun: The last method: "found recipe".
        maker: Who found it: "the search".
        seen: Tasks that it was found on: "search tasks".
        names: Other names of methods within a sentence.
        subject: What raises a score; by default the heads.
    """

    noun: str
    maker: str
    seen: str
    names: Mapping[str, str] = field(default_factory=dict)
    subject: str = ""


SEARCH = Words("found recipe", "the search", "search tasks")


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


def tell(results: Results, rows: Sequence[Row], words: Words = SEARCH) -> Story:
    """Put the held-out comparison into words.

    Args:
        results: What the search left behind.
        rows: Its methods, as :func:`pagopt.report.reading.read_rows` gives them.
        words: What they are called.
    """
    found = rows[-1]
    base = next((row for row in rows if row.role == "none"), rows[0])
    verdict = _verdict(base.test)
    deck = list(thresholds(results).sentences)
    deck += [_against(row, words) for row in rows[:-1] if row is not base and row.test is not None]
    deck += [text for text in (_other_rewards(results, rows.index(base), words), _seen(results, words)) if text]
    return Story(verdict, _tied(_headline(results, base, found, verdict, words)), tuple(map(_tied, deck)))


def _tied(sentence: str) -> str:
    """Keep numbers together with their signs at the end of a line."""
    for sign in (" \N{PLUS-MINUS SIGN} ", "p < ", "p = "):
        sentence = sentence.replace(sign, sign.replace(" ", "\N{NO-BREAK SPACE}"))
    return sentence


def _verdict(test: PairedTest | None) -> str:
    if test is None or not test.difference > 0:
        return "none"
    return "gain" if test.p_value < ALPHA else "unclear"


def _headline(results: Results, base: Row, found: Row, verdict: str, words: Words) -> str:
    places = decimals([base.objective.se, found.objective.se])
    if base.test:
        places = max(places, decimals([base.test.se]))
    before, after = number(base.objective.mean, places), number(found.objective.mean, places)
    name = f"the {value_name(results.objective, results.combine)} score"
    where = f"on {unseen(results.search_tasks, results.held_out_tasks, words.maker)}"
    if found.recipe.is_plain:
        return f"{_capital(words.maker)} ended with no guidance at all; {name} is {after} {where}."
    subject, step = words.subject or f"perturbing {_heads(found)}", f"from {before} to {after}"
    test = f"paired test, {p_text(base.test.p_value)}" if base.test else "not tested"
    if len(results.held_out_tasks) == 1:
        test = "a single task is no test"
    if verdict == "gain":
        return f"{_capital(subject)} raises {name} {step} {where} ({test})."
    if verdict == "unclear":
        return f"No clear gain: {subject} moves {name} {step} {where}, which may well be chance ({test})."
    return f"No gain: {subject} does not raise {name}; it goes {step} {where} ({test})."


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _heads(row: Row) -> str:
    names = [str(head) for head in row.recipe.heads]
    if len(names) == 1:
        return f"head {names[0]}"
    if len(names) <= 4:
        return f"heads {', '.join(names[:-1])} and {names[-1]}"
    return f"{len(names)} heads ({', '.join(names[:3])} and {len(names) - 3} more)"


def _against(row: Row, words: Words) -> str:
    test = row.test
    assert test is not None
    name = words.names.get(row.name, row.name)
    places = decimals([test.se])
    size = measured(abs(test.difference), test.se, places)
    if test.p_value < ALPHA and test.difference > 0:
        return f"It is ahead of {name} by {size} ({p_text(test.p_value)})."
    if test.p_value > 1 - ALPHA and test.difference < 0:
        return f"It is behind {name} by {size}."
    gap = measured(test.difference, test.se, places, sign=True)
    return f"Against {name} nothing is decided: the difference is {gap} ({p_text(test.p_value)})."


def _other_rewards(results: Results, base: int, words: Words) -> str:
    """How the rewards moved that were not optimised."""
    before, after = results.methods[base], results.methods[-1]
    used = {str(item.get("label", item.get("name"))) for item in results.objective}
    parts = []
    for name, values in after.rewards.items():
        if name in used or name not in before.rewards:
            continue
        change = paired(values, before.rewards[name], results.held_out_prompts)
        parts.append(f"{name} {measured(change.mean, change.se, decimals([change.se]), sign=True)}")
    if not parts:
        return ""
    return f"What {words.maker} did not optimise, {words.noun} minus {before.name}: {', '.join(parts)}."


def unseen(searched: Sequence[tuple[str, int]], held_out: Sequence[tuple[str, int]], maker: str) -> str:
    """What the comparison was made on, as new as it is: "87 prompts and seeds that the search never saw".

    Args:
        searched: Prompts and seeds that were searched with.
        held_out: Those of the comparison.
        maker: Who searched: "the search".
    """
    count, known = len(held_out), {prompt for prompt, _ in searched}
    one = "prompt and seed" if count == 1 else "prompts and seeds"
    if set(searched) & set(held_out):
        return f"{count} {one} of the comparison"
    old = sum(prompt in known for prompt, _ in held_out)
    if old == count:
        return f"{count} new seed{'' if count == 1 else 's'} of prompts that {maker} saw"
    some = f" (but {old} of these prompts with other seeds)" if old else ""
    return f"{count} {one} that {maker} never saw{some}"


def _repeated(results: Results) -> int:
    return len(set(results.search_tasks) & set(results.held_out_tasks))


def _seen(results: Results, words: Words) -> str:
    repeated = _repeated(results)
    if not repeated:
        return ""
    count = len(results.held_out_tasks)
    return f"Mind that {repeated} of these {count} tasks were {words.seen} too, which flatters the gain."
