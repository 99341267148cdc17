"""What the numbers of a comparison mean, in words: which gains disappear, and what a reader has to know."""

from __future__ import annotations

from collections.abc import Sequence

from pagopt.comparison.comparison import Comparison
from pagopt.comparison.outcome import Choice, Outcome
from pagopt.comparison.statistics import Difference
from pagopt.report.reading import decimals, signed

__all__ = ["notes", "span", "warnings"]

FEW = 20
"""Prompts below which intervals are wide and rest on the shape of the differences."""


def span(found: Difference) -> str:
    """``+3.1 (+1.2 to +5.0)``."""
    places = 1 + decimals([(found.high - found.low) / 4])
    return f"{signed(found.mean, places)} ({signed(found.low, places)} to {signed(found.high, places)})"


def warnings(outcome: Outcome) -> tuple[str, ...]:
    """Gains over no guidance that are none over a baseline which anyone could have had, and losses that come along.

    Args:
        outcome: With its differences.
    """
    words: list[str] = []
    for recipe in (standing.name for standing in outcome.standings if standing.kind == "recipe"):
        gained = []
        for measure in outcome.rewards:
            gain = outcome.difference(recipe, "no guidance", measure.label)
            if not gain.better:
                continue
            gained.append(measure.label)
            start = f"{recipe} gains {span(gain)} in {measure.label} over no guidance, but "
            tuned = outcome.tuned(measure.label)
            if tuned:
                words += _gone(start, outcome.difference(recipe, tuned, measure.label), f"{tuned}, tuned for it")
            for other in outcome.standings:
                if other.kind == "best-of" and other.name == _best_of(outcome, recipe):
                    choice = f"{other.name} unguided pictures, which cost the same"
                    words += _gone(start, outcome.difference(recipe, other.name, measure.label), choice)
        own = [m.label for m in outcome.rewards if recipe in m.searched]
        others = [m.label for m in outcome.rewards if recipe not in m.searched]
        if gained and others and set(gained) <= set(own):
            words.append(
                f"{recipe} gains in what its search maximised ({_listed(gained)}) and in nothing else: there is no "
                f"clear gain in {_listed(others)}."
            )
        lost = [
            f"{m.label} {span(d)}"
            for m in outcome.rewards
            if (d := outcome.difference(recipe, "no guidance", m.label)).worse
        ]
        if lost:
            where = f"gains in {_listed(gained)} but " if gained else ""
            words.append(f"{recipe} {where}loses against no guidance in: {', '.join(lost)}.")
    return tuple(words)


def notes(comparison: Comparison, outcome: Outcome, bests: Sequence[str]) -> tuple[str, ...]:
    """How the baselines were made and what limits the comparison.

    Args:
        comparison: What was asked for.
        outcome: What came out.
        bests: How each best-of-N was drawn, in words.
    """
    words: list[str] = []
    first = outcome.rewards[0].label
    searched = [f"{m.label} ({', '.join(m.searched)})" for m in outcome.rewards if m.searched]
    if searched:
        words.append(f"Maximised by a search, so look at the other rewards too: {', '.join(searched)}.")
    where = "the tuning prompts" if comparison.tuning_prompts else "the search's own tasks"
    words += [_chosen(choice, len(outcome.tuning_tasks), where) for choice in outcome.choices]
    if len(comparison.layers_of()) > 1 and any(choice.kind == "layer" for choice in outcome.choices):
        words.append("The recipes have different settings; each layer was tried with those of all of them.")
    if not outcome.tuning_tasks and (comparison.cfg_scales or comparison.compare_layers):
        words.append(
            "No recipe says what its search used, so there is neither a tuned CFG nor a best layer to compare with: "
            "give --tune_prompts FILE."
        )
    words += bests
    if bests:
        words.append(f"Best-of-N picks by {first} and is judged by it, too: in {first} it sees its own reward.")
    silent = [e.label for e in comparison.entrants if not e.searched()]
    if silent:
        words.append(f"Not known is what the search of {', '.join(silent)} used; it may have seen these prompts.")
    if comparison.allow_seen:
        words.append("Tasks that a search has used were allowed (--allow_seen): its numbers may be flattered.")
    old = {task.prompt for entrant in comparison.entrants for task in entrant.held_out()} & set(comparison.prompts)
    if old:
        words.append(
            f"{len(old)} of the prompts were held-out prompts of a study: nothing was chosen on them, but they were "
            "looked at."
        )
    others = [e.label for e in comparison.entrants if e.provenance and e.provenance.fingerprint != outcome.fingerprint]
    if others:
        words.append(f"Found on other weights than these (--allow_other_model): {', '.join(others)}.")
    if len(comparison.prompts) == 1:
        words.append("There is a single prompt: the intervals are over its seeds and say nothing about other prompts.")
    elif len(comparison.prompts) < FEW:
        words.append(f"With {len(comparison.prompts)} prompts the intervals are rough; take {FEW} or more.")
    if outcome.distances is not None:
        drawn, d = len(outcome.tasks), outcome.distances
        words.append(
            f"Distances compare {drawn} drawn with {d.references} reference pictures in {d.width} features of "
            f"{d.features}. A Frechet distance is too large for few pictures: compare it within this table only."
        )
        if any(m.searched and m.name == d.features for m in outcome.rewards):
            words.append(
                f"The distances are in the features of {d.features}, which a search maximised: they flatter it. Give "
                "--features another reward."
            )
    return tuple(words)


def _gone(start: str, found: Difference, baseline: str) -> list[str]:
    """What to say where a gain does not hold against a baseline."""
    if found.better:
        return []
    against = f"against {baseline}: {span(found)}"
    if found.worse:
        return [f"{start}it is worse {against}."]
    return [f"{start}that gain disappears {against}. By this reward the recipe cannot be told from it."]


def _best_of(outcome: Outcome, recipe: str) -> str:
    """The best-of-N that costs what a recipe costs."""
    compute = outcome.standing(recipe).compute
    return next((s.name for s in outcome.standings if s.kind == "best-of" and s.compute == compute), "")


def _chosen(choice: Choice, tasks: int, where: str) -> str:
    best = choice.means[choice.method]
    text = f"{choice.method} is the best of {len(choice.means)} for {choice.reward} on {where} ({tasks}): "
    places = decimals([abs(best) / 30])
    text += f"{best:.{places}f}, unguided {choice.unguided:.{places}f}."
    if not choice.beats:
        text += " None of them does better there than no guidance."
    if choice.edge:
        text += " It is the largest scale that was tried: a larger one may be better yet, see --cfg_scales."
    return text


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
