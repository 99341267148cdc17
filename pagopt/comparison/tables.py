"""A comparison as tables: rows of methods and columns of rewards, as in the paper's Table 1; then the differences."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence

from pagopt.comparison.outcome import Measure, Outcome, Standing
from pagopt.comparison.verdict import span
from pagopt.report.reading import counted, decimals, measured, number, signed

__all__ = [
    "differences_csv", "differences_rows", "distances_rows", "gaps_rows", "heading", "legend", "markdown",
    "methods_rows", "scores_csv", "table_csv", "title",
]  # fmt: skip

MANIFOLD = ("precision", "recall", "density", "coverage")


def heading(measure: Measure) -> str:
    """A reward as the head of a column: with an arrow where lower is better, a star where a search maximised it."""
    return measure.label + ("" if measure.higher else " \N{DOWNWARDS ARROW}") + ("*" if measure.searched else "")


def title(outcome: Outcome) -> str:
    """What the table is about."""
    prompts = len(set(outcome.prompts))
    seeds = len(outcome.tasks) // prompts
    several = f", {seeds} seeds each" if seeds > 1 else ""
    return f"{outcome.model}: {prompts} new prompt{'s' if prompts > 1 else ''}{several}"


def methods_rows(outcome: Outcome) -> list[list[str]]:
    """The header, then a row for each method: its cost and its mean of each reward with a standard error."""
    rows = [["method", "compute", *map(heading, outcome.rewards)]]
    # One place more than the errors call for: differences are paired, and surer than the means.
    places = {m.label: 1 + decimals(s.errors[m.label] for s in outcome.standings) for m in outcome.rewards}
    for standing in outcome.standings:
        cells = [measured(standing.means[k], standing.errors[k], n) for k, n in places.items()]
        rows.append([_named(standing), f"{standing.compute:.2f}", *cells])
    return rows


def distances_rows(outcome: Outcome) -> list[list[str]]:
    """The header, then a row for each method with its distances; only a header where none were measured."""
    rows = [["method", "Frechet \N{DOWNWARDS ARROW}", *MANIFOLD]]
    for one in outcome.distances.methods if outcome.distances else ():
        values = [number(getattr(one.manifold, name), 2) for name in MANIFOLD]
        rows.append([one.method, number(one.frechet.value, 2), *values])
    return rows


def gaps_rows(outcome: Outcome) -> list[list[str]]:
    """The header, then the Frechet distance of a recipe minus that of a baseline."""
    rows = [["Frechet distance, difference", "below 0 the recipe is nearer (95 %)"]]
    for name, one in outcome.distances.differences.items() if outcome.distances else ():
        rows.append([name, f"{signed(one.value, 2)} ({signed(one.low, 2)} to {signed(one.high, 2)})"])
    return rows


def differences_rows(outcome: Outcome) -> list[list[str]]:
    """The header, then each recipe minus each baseline by each reward."""
    rows = [["recipe", "against", "reward", "gain (95 %)", "wins", "p, corrected"]]
    for one in outcome.differences:
        p = "< 0.001" if one.corrected < 0.001 else f"{one.corrected:.3f}"
        rows.append([one.method, one.against, one.reward, span(one), f"{one.wins:.0%}", p])
    return rows


def legend(outcome: Outcome) -> str:
    """How to read the numbers."""
    return (
        "Means with standard errors over prompts. compute: block evaluations for one picture, in those of an unguided "
        "one. gain: recipe minus the other on the same tasks, above 0 the recipe is better; 95 % bootstrap intervals "
        "over prompts; wins: share of tasks on which it is better; p: paired t-test over prompts, two-sided, corrected "
        f"for {counted(len(outcome.differences), 'comparison')} (Holm)."
        + (" *: a search maximised this reward." if any(m.searched for m in outcome.rewards) else "")
    )


def markdown(outcome: Outcome) -> str:
    """``table.md``: the tables, the warnings and the notes."""
    parts = [f"# {title(outcome)}\n", _markdown(methods_rows(outcome)), _markdown(differences_rows(outcome))]
    if outcome.distances:
        parts += [_markdown(distances_rows(outcome)), _markdown(gaps_rows(outcome))]
    parts.append(legend(outcome) + "\n")
    if outcome.warnings:
        parts.append("## Warnings\n\n" + _list(outcome.warnings))
    if outcome.notes:
        parts.append("## How it was made\n\n" + _list(outcome.notes))
    return "\n".join(parts)


def table_csv(outcome: Outcome) -> str:
    """``table.csv``: a row for each method with full numbers."""
    distances = {one.method: one for one in outcome.distances.methods} if outcome.distances else {}
    columns = [f"{m.label} {what}" for m in outcome.rewards for what in ("mean", "se")]
    extra = ["frechet", "frechet low", "frechet high", *MANIFOLD] if distances else []
    rows: list[list[object]] = [["method", "kind", "compute", *columns, *extra]]
    for s in outcome.standings:
        row: list[object] = [s.name, s.kind, f"{s.compute:.6g}"]
        row += [f"{v:.6g}" for m in outcome.rewards for v in (s.means[m.label], s.errors[m.label])]
        if s.name in distances:
            one = distances[s.name]
            values = [one.frechet.value, one.frechet.low, one.frechet.high]
            row += [f"{v:.6g}" for v in (*values, *(getattr(one.manifold, name) for name in MANIFOLD))]
        rows.append(row)
    return _csv(rows)


def differences_csv(outcome: Outcome) -> str:
    """``differences.csv``: the differences with full numbers."""
    rows: list[list[object]] = [
        ["recipe", "against", "reward", "gain", "low", "high", "wins", "p_value", "p_corrected"]
    ]
    for d in outcome.differences:
        values = (d.mean, d.low, d.high, d.wins, d.p_value, d.corrected)
        rows.append([d.method, d.against, d.reward, *(f"{v:.6g}" for v in values)])
    return _csv(rows)


def scores_csv(outcome: Outcome) -> str:
    """``scores.csv``: every picture with its raw scores."""
    labels = [m.label for m in outcome.rewards]
    rows: list[list[object]] = [["method", "prompt", "seed", "image", *labels]]
    for s in outcome.standings:
        for i, prompt in enumerate(outcome.prompts):
            rows.append([s.name, prompt, s.seeds[i], s.images[i], *(f"{s.scores[k][i]:.6g}" for k in labels)])
    return _csv(rows)


def _named(standing: Standing) -> str:
    cfg, scale = standing.recipe.get("cfg") or 1.0, standing.recipe["scale"]
    if standing.kind not in {"recipe", "layer"}:
        return standing.name
    return f"{standing.name} (w {scale:.3g}" + (f", CFG {cfg:.3g})" if cfg > 1 else ")")


def _markdown(rows: Sequence[Sequence[str]]) -> str:
    lines = [rows[0], ["---"] + ["---:"] * (len(rows[0]) - 1), *rows[1:]]
    cells = (" | ".join(cell.replace("|", "\\|") for cell in line) for line in lines)
    return "".join(f"| {line} |\n" for line in cells)


def _list(texts: Iterable[str]) -> str:
    return "".join(f"- {text}\n" for text in texts)


def _csv(rows: Iterable[Sequence[object]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
