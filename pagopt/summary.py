"""Results in other words: paired tests, the evidence in a recipe file, and the table of all scores."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats

from pagopt.results import Estimate, Method, PairedTest, Results

__all__ = ["evidence", "paired_test", "scores_table"]


def paired_test(found: Method, other: Method) -> PairedTest:
    """One-sided paired t-test of "the found recipe is better than the other" over held-out tasks."""
    difference = np.array(found.objective) - np.array(other.objective)
    gain = Estimate.of(difference)
    p = float(stats.ttest_1samp(difference, 0.0, alternative="greater").pvalue) if gain.se > 0 else 1.0
    return PairedTest(other.name, gain.mean, gain.se, p, wins=float((difference > 0).mean()))


def evidence(results: Results) -> dict[str, Any]:
    """What a recipe file says about its worth: scores with standard errors, on which prompts and seeds."""

    def summary(values: Sequence[float]) -> dict[str, float]:
        estimate = Estimate.of(values)
        return {"mean": round(estimate.mean, 6), "se": round(estimate.se, 6)}

    return {
        "steps": results.steps,
        "search_tasks": [list(task) for task in results.search_tasks],
        "held_out_tasks": [list(task) for task in results.held_out_tasks],
        "held_out": {
            method.name: {
                "objective": summary(method.objective),
                **{label: summary(values) for label, values in method.rewards.items()},
            }
            for method in results.methods
        },
        "tests": [{"against": t.against, "difference": t.difference, "p_value": t.p_value} for t in results.tests],
    }


def scores_table(results: Results) -> str:
    """``scores.csv``: the candidates of every round, then every method on every held-out task."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["phase", "method", "base", "prompt", "seed", "reward", "score", "se", "chosen"])
    for done in results.rounds:
        for head, score in done.scores.items():
            chosen = head in done.chosen
            row = [f"round {done.number}", head, " ".join(done.base), "", "", "objective"]
            table.writerow([*row, f"{score.mean:.6g}", f"{score.se:.6g}", int(chosen)])
    for method in results.methods:
        for i, (prompt, seed) in enumerate(results.held_out_tasks):
            for label, values in {"objective": method.objective, **method.rewards}.items():
                table.writerow(["held-out", method.name, "", prompt, seed, label, f"{values[i]:.6g}", "", ""])
    return text.getvalue()
