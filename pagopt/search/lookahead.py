"""Lookahead: heads are chosen two at a time, by how well they do together.

Generalised sequential forward selection: Kittler, "Feature set search algorithms", in "Pattern Recognition and Signal
Processing", 1978. All pairs of n heads are too many; as in a beam search, only the best few heads are paired.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from math import comb

from pagopt.errors import StudyError
from pagopt.heads import Head, parse_heads
from pagopt.recipe import Recipe
from pagopt.results import Round
from pagopt.search.candidates import expression, record
from pagopt.search.interface import Evaluate, Found, OnRound, check_whole, count_of, pays_for, ranked

__all__ = ["PAIR", "Lookahead"]

PAIR = 2


@dataclass(frozen=True)
class Lookahead:
    """In every round, try each remaining head with the selection, then all pairs of the best ones, and keep a pair.

    What is kept scores no worse than the two best heads of the round, which HeadHunter with two heads a round would
    keep. A round over n heads costs n + beam (beam - 1) / 2 recipes, HeadHunter's n + 1: with 48 heads and a beam of
    12, 114 against 49; with 576 heads, 642 against 577.

    Args:
        rounds: How many pairs, at least 1.
        beam: How many of the best heads of a round are paired, at least 2. With as many as there are heads, every pair
            is tried.

    Raises:
        StudyError: If a number is not whole or below that.
    """

    rounds: int = 3
    beam: int = 12

    def __post_init__(self) -> None:
        check_whole("rounds", self.rounds, 1)
        check_whole("beam", self.beam, PAIR)

    def images(self, pool: int | Sequence[Head], tasks: int) -> int:
        """Exactly what it asks for: every head of the pool in every round, and the pairs of the best."""
        count = count_of(pool)
        self._check(count)
        return tasks * sum(self._round(count - PAIR * number) for number in range(self.rounds))

    def _round(self, heads: int) -> int:
        """The recipes of a round over so many heads."""
        return heads + comb(min(self.beam, heads), PAIR)

    def run(
        self, evaluate: Evaluate, pool: Sequence[Head], recipe: Recipe, tasks: int, on_round: OnRound | None = None
    ) -> Found:
        """Search; see :meth:`pagopt.search.interface.Search.run`.

        Returns:
            The recipe with ``2 * rounds`` heads, and the trace of the rounds: the scores of every head and of the pairs
            (``"L3.H1 L4.H2"``). There is no early stop. Ties go to the pair with the better heads, and of heads to the
            earlier one.
        """
        remaining = list(parse_heads(pool))
        self._check(len(remaining))
        selected: list[Head] = []
        rounds: list[Round] = []
        for number in range(1, self.rounds + 1):
            pays_for(evaluate, self._round(len(remaining)) * tasks)
            alone = [recipe.replace(heads=(*selected, head)) for head in remaining]
            singles = ranked(evaluate(alone), len(alone), tasks)
            beam = [remaining[i] for i in singles.order[: self.beam]]
            pairs = list(combinations(beam, PAIR))
            both = [recipe.replace(heads=(*selected, *pair)) for pair in pairs]
            together = ranked(evaluate(both), len(both), tasks)
            best = int(together.order[0])
            names = [expression(pair) for pair in pairs]
            chosen = [str(head) for head in pairs[best]]
            done = record(number, selected, names, together, chosen, best)
            first = record(number, selected, [str(head) for head in remaining], singles, chosen, 0)
            done = replace(
                done,
                scores={**first.scores, **done.scores},
                parts={label: {**scores, **done.parts[label]} for label, scores in first.parts.items()},
                order=(*done.order, *first.order),
            )
            selected += pairs[best]
            remaining = [head for head in remaining if head not in selected]
            rounds.append(done)
            if on_round is not None:
                on_round(done)
        return recipe.replace(heads=tuple(selected)), rounds

    def _check(self, heads: int) -> None:
        needed = PAIR * self.rounds
        if heads < needed:
            raise StudyError(
                f"{self.rounds} rounds of a pair need {needed} heads to choose from, but there are {heads}; lower "
                "rounds, or widen heads"
            )
