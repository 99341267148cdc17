"""What a trace calls its candidates, and which heads a name speaks of.

HeadHunter and Racing try one more head at a time, and a head's own name says that. Other searches try layers, sets,
removals and exchanges, which are named

- ``"L3.H0-5"`` or ``"L3.H1 L4.H2"`` for several heads that are added, as :func:`pagopt.heads.expand_heads` reads them,
- ``"without L3.H1"`` for what is taken out,
- ``"L4.H2 for L3.H1"`` for an exchange.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from statistics import fmean

from pagopt.combine import Ranking
from pagopt.heads import MAIN_SITE, Head, expand_heads
from pagopt.results import Estimate, Round
from pagopt.search.interface import estimates

__all__ = ["HeadScore", "added", "expression", "found_order", "head_scores", "record", "selection", "touched"]

WITHOUT = "without "
FOR = " for "


@dataclass(frozen=True)
class HeadScore:
    """What a round says of one head.

    Attributes:
        score: Of the head's own candidate, else the mean over all candidates that add it or take it out; the standard
            error is then the mean of theirs.
        words: What was scored: ``"L3.H1"``, ``"L3.H1, in L3.H0-5"``, ``"without L3.H1"``, ``"L3.H1, mean of 12"``.
    """

    score: Estimate
    words: str


def expression(heads: Iterable[Head]) -> str:
    """Heads as one short text, ``"L3.H0-5 L4.H1,3"``; :func:`pagopt.heads.expand_heads` reads it."""
    words = []
    for (block, site), group in groupby(sorted(set(heads)), key=lambda head: (head.block, head.site)):
        middle = "" if site == MAIN_SITE else f"{site}."
        words.append(f"L{block}.{middle}H{_numbers([head.head for head in group])}")
    return " ".join(words)


def _numbers(numbers: Sequence[int]) -> str:
    """Sorted numbers, runs as ranges: ``"0-2,5"``."""
    parts = []
    for _, group in groupby(enumerate(numbers), key=lambda pair: pair[1] - pair[0]):
        run = [number for _, number in group]
        parts.append(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}")
    return ",".join(parts)


def touched(name: str) -> tuple[tuple[Head, ...], tuple[Head, ...]]:
    """The heads that a candidate adds, and those that it takes out.

    Raises:
        RecipeError: If it is no name of a candidate.
    """
    if name.startswith(WITHOUT):
        return (), tuple(expand_heads(name.removeprefix(WITHOUT)))
    new, _, old = name.partition(FOR)
    return tuple(expand_heads(new)), tuple(expand_heads(old))


def head_scores(item: Round) -> dict[Head, HeadScore]:
    """A round head by head, whatever its candidates were."""
    own: dict[Head, HeadScore] = {}
    among: dict[Head, list[str]] = {}
    for name, score in item.scores.items():
        new, old = touched(name)
        if len(new) + len(old) == 1:
            own[(*new, *old)[0]] = HeadScore(score, name)
        for head in (*new, *old):
            among.setdefault(head, []).append(name)
    return {head: own.get(head) or _mean(item, head, names) for head, names in among.items()}


def _mean(item: Round, head: Head, names: Sequence[str]) -> HeadScore:
    scores = [item.scores[name] for name in names]
    words = f"in {names[0]}" if len(names) == 1 else f"mean of {len(names)}"
    return HeadScore(Estimate(fmean(s.mean for s in scores), fmean(s.se for s in scores)), f"{head}, {words}")


def added(base: Iterable[Head], name: str) -> tuple[Head, ...]:
    """A selection after a candidate, sorted."""
    new, old = touched(name)
    return tuple(sorted({*base, *new} - set(old)))


def selection(item: Round) -> tuple[Head, ...]:
    """What was selected at the end of a round, sorted: its ``base`` with what it chose."""
    heads: tuple[Head, ...] = tuple(expand_heads(item.base))
    for name in item.chosen:
        heads = added(heads, name)
    return tuple(sorted(heads))


def found_order(rounds: Iterable[Round]) -> tuple[Head, ...]:
    """The heads that a search ended with, in the order in which it found them; exchanged ones come last."""
    heads: list[Head] = []
    for done in rounds:
        base: tuple[Head, ...] = tuple(expand_heads(done.base))
        heads = [head for head in heads if head in base] + [head for head in base if head not in heads]
        for name in done.chosen:
            after = added(heads, name)
            heads = [head for head in heads if head in after] + [head for head in after if head not in heads]
    return tuple(heads)


def record(
    number: int,
    base: Iterable[Head],
    names: Sequence[str],
    ranking: Ranking,
    chosen: Sequence[str],
    row: int,
    note: str = "",
) -> Round:
    """A round as a trace keeps it.

    Args:
        number: 1, 2, ...
        base: Heads selected before it.
        names: The candidates.
        ranking: Of the candidates, in this order; one more row, if any, comes before them, is that of ``base``, and is
            not listed.
        chosen: What the round changed.
        row: The row of the selection at its end.
        note: What else is to be said.
    """
    first = len(ranking.values) - len(names)
    return Round(
        number=number,
        base=tuple(str(head) for head in sorted(base)),
        scores=estimates(names, ranking.values[first:]),
        chosen=tuple(chosen),
        score=Estimate.of(ranking.values[row]),
        parts={label: estimates(names, table[first:]) for label, table in ranking.parts.items()},
        score_parts={label: Estimate.of(table[row]) for label, table in ranking.parts.items()},
        order=() if ranking.additive else tuple(names[i - first] for i in ranking.order if i >= first),
        note=note,
    )
