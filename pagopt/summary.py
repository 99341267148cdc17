"""Results in other words: paired tests, who met the thresholds, the evidence in a recipe, the table of all scores."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pagopt.combine import Limit
from pagopt.paired import paired_p
from pagopt.results import Estimate, Method, PairedTest, Results, Round

__all__ = [
    "Verdict",
    "evidence",
    "held_out_means",
    "judged",
    "missed",
    "paired_test",
    "passing",
    "scores_table",
    "tested",
    "thresholds",
]


@dataclass(frozen=True)
class Verdict:
    """Whether the found recipe meets the thresholds.

    Attributes:
        met: On the search tasks as well as on the held-out ones; true where there are no thresholds.
        sentences: What there is to say, with numbers; empty where there are no thresholds.
    """

    met: bool
    sentences: tuple[str, ...]


def paired_test(found: Method, other: Method, prompts: Sequence[str]) -> PairedTest:
    """One-sided paired t-test of "the found recipe is better than the other" on held-out tasks.

    Args:
        found: The recipe that was found.
        other: What it is compared with.
        prompts: Those of the tasks, over which it is tested. A single task shows nothing: its p-value is 1.
    """
    difference = np.array(found.objective) - np.array(other.objective)
    gain = Estimate.of(difference, prompts)
    p = paired_p(difference, prompts, "greater") if difference.size > 1 else 1.0
    return PairedTest(other.name, gain.mean, gain.se, p, wins=float((difference > 0).mean()))


def judged(methods: Iterable[Method], prompts: Sequence[str]) -> dict[str, Any]:
    """For a recipe file: the scores of methods on held-out tasks, with standard errors over their prompts."""

    def summary(values: Sequence[float]) -> dict[str, float]:
        estimate = Estimate.of(values, prompts)
        return {"mean": round(estimate.mean, 6), "se": round(estimate.se, 6)}

    return {
        method.name: {
            "objective": summary(method.objective),
            **{label: summary(values) for label, values in method.rewards.items()},
        }
        for method in methods
    }


def tested(tests: Iterable[PairedTest]) -> list[dict[str, Any]]:
    """For a recipe file: the tests in short."""
    return [{"against": t.against, "difference": t.difference, "p_value": t.p_value} for t in tests]


def evidence(results: Results) -> dict[str, Any]:
    """What a recipe file says about its worth: scores with standard errors, on which prompts and seeds."""
    return {
        "steps": results.steps,
        **results.weights,
        **({"combine": results.combine} if results.combine != "sum" else {}),
        "search_tasks": [list(task) for task in results.search_tasks],
        "held_out_tasks": [list(task) for task in results.held_out_tasks],
        "held_out": judged(results.methods, results.held_out_prompts),
        **({"thresholds": list(thresholds(results).sentences)} if results.limits else {}),
        "tests": tested(results.tests),
    }


def missed(limits: Sequence[Limit], means: Mapping[str, float]) -> list[str]:
    """The limits that these means (by label) do not keep to, each in words; empty if they keep to all."""
    words = []
    for limit in limits:
        miss = limit.miss(means[limit.reward])
        if miss > 0:
            words.append(f"{limit.text} by {miss:.3g}")
    return words


def passing(results: Results, done: Round) -> list[str] | None:
    """The candidates of a round that met all thresholds, best first; all of them where there are none.

    ``None`` where the search kept no numbers of single rewards, as a race does that scores few candidates on all tasks.
    """
    if any(limit.reward not in done.parts for limit in results.limits):
        return None
    return [head for head in done.ranked() if not missed(results.limits, done.means(head))]


def held_out_means(method: Method, prompts: Sequence[str]) -> dict[str, float]:
    """A method's mean of each reward over the held-out tasks, whose prompts these are; over prompts, as in tables."""
    return {label: Estimate.of(values, prompts).mean for label, values in method.rewards.items()}


def thresholds(results: Results) -> Verdict:
    """Which thresholds were met, by whom, and how far the nearest was from the others."""
    if not results.limits:
        return Verdict(True, ())
    sentences = []
    for done in results.rounds:
        if passing(results, done) == []:
            nearest = done.ranked()[0]
            why = " and ".join(missed(results.limits, done.means(nearest)))
            sentences.append(
                f"In round {done.number} none of {len(done.scores)} heads met the thresholds; the nearest, {nearest}, "
                f"missed {why}."
            )
    fine = True
    found = {label: score.mean for label, score in results.rounds[-1].score_parts.items()} if results.rounds else {}
    tested = [("search tasks", results.limits, found)] if found else []
    means = held_out_means(results.methods[-1], results.held_out_prompts)
    tested.append(("held-out tasks", results.held_out_limits, means))
    for where, limits, means in tested:
        words = missed(limits, means)
        fine = fine and not words
        every = " and ".join(limit.text for limit in limits)
        does = f"misses {' and '.join(words)}" if words else f"meets the thresholds ({every})"
        sentences.append(f"On the {where} the found recipe {does}.")
    if not fine:
        sentences.append("A lower scale or strength, fewer rounds, or lower thresholds may help.")
    return Verdict(fine, tuple(sentences))


def scores_table(results: Results) -> str:
    """``scores.csv``: the candidates of every round, then every method on every held-out task.

    With several rewards each has its own rows beside those of the objective. With thresholds a last column says whether
    the mean meets them: in a reward's row its own, in the objective's row all.
    """
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    columns = ["phase", "method", "base", "prompt", "seed", "reward", "score", "se", "chosen"]
    table.writerow([*columns, *(["passes"] if results.limits else [])])

    def passes(limits: Sequence[Limit], means: Mapping[str, float], label: str = "") -> list[str]:
        own = [limit for limit in limits if label in {"", limit.reward}]
        known = all(limit.reward in means for limit in own)
        return [(str(int(not missed(own, means))) if known else "")] if results.limits else []

    for done in results.rounds:
        for head, score in done.scores.items():
            means = done.means(head)
            parts = {"": score, **{label: scores[head] for label, scores in done.parts.items()}}
            for label, part in parts.items():
                row = [f"round {done.number}", head, " ".join(done.base), "", "", label or "objective"]
                numbers = [f"{part.mean:.6g}", f"{part.se:.6g}", int(head in done.chosen)]
                table.writerow([*row, *numbers, *passes(results.limits, means, label)])
    for method in results.methods:
        means = held_out_means(method, results.held_out_prompts)
        for i, (prompt, seed) in enumerate(results.held_out_tasks):
            for label, values in {"": method.objective, **method.rewards}.items():
                row = ["held-out", method.name, "", prompt, str(seed), label or "objective", f"{values[i]:.6g}", "", ""]
                table.writerow([*row, *passes(results.held_out_limits, means, label)])
    return text.getvalue()
