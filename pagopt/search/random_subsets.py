"""Random subsets: the baseline that every search has to beat at equal cost, and what they tell of single heads.

Random search: Bergstra and Bengio, "Random search for hyper-parameter optimization", JMLR 13 (2012). The regression of
scores on who takes part: Ilyas, Park, Engstrom, Leclerc, Madry, "Datamodels: predicting predictions from training
data", ICML 2022, https://arxiv.org/abs/2202.00622; here with a ridge penalty chosen by generalised cross-validation
(Golub, Heath, Wahba, Technometrics 21, 1979).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb

import numpy as np
from numpy.typing import NDArray

from pagopt.errors import StudyError
from pagopt.heads import Head, parse_heads
from pagopt.recipe import Recipe
from pagopt.results import Round
from pagopt.search.candidates import expression, record
from pagopt.search.interface import Evaluate, Found, OnRound, check_whole, count_of
from pagopt.search.memory import Memory

__all__ = ["RandomSubsets", "importance"]

Array = NDArray[np.float64]
PENALTIES = np.geomspace(1e-4, 1e4, 49)


@dataclass(frozen=True)
class RandomSubsets:
    """Draw subsets of one size uniformly, score each, and keep the best.

    Args:
        size: Heads of a subset, at least 1.
        number: How many distinct subsets, at least 1.
        regress: Whether to try one more: the ``size`` heads with the highest :func:`importance` over all that were
            drawn. It is kept if it is better than the best of them.
        seed: Of the subsets. With a larger ``number`` the first ones stay the same.

    Raises:
        StudyError: If a number is out of its range.
    """

    size: int = 9
    number: int = 128
    regress: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("size", 1), ("number", 1), ("seed", 0)):
            check_whole(name, getattr(self, name), least)
        if self.regress and self.number < 2:
            raise StudyError("regress needs at least 2 subsets to compare, but number is 1; raise number")

    def images(self, pool: int | Sequence[Head], tasks: int) -> int:
        """The most images that it asks for; with a single reward or a sum exactly that without ``regress``."""
        self._check(count_of(pool))
        # An objective with an order of its own compares the two in one batch.
        return tasks * (self.number + 2 * self.regress)

    def run(
        self, evaluate: Evaluate, pool: Sequence[Head], recipe: Recipe, tasks: int, on_round: OnRound | None = None
    ) -> Found:
        """Search; see :meth:`pagopt.search.interface.Search.run`.

        Returns:
            The recipe with the best subset, and the trace: one round, or two with ``regress``. Candidates are called
            like ``"L3.H1,4 L5.H0"``. Ties go to the subset that was drawn first.
        """
        heads = list(parse_heads(pool))
        subsets = self.subsets(heads)
        memory = Memory(evaluate, tasks)
        ranking = memory([recipe.replace(heads=subset) for subset in subsets])
        best = int(ranking.order[0])
        names = [expression(subset) for subset in subsets]
        rounds = [record(1, (), names, ranking, [names[best]], best)]
        if on_round is not None:
            on_round(rounds[-1])
        found = subsets[best]
        if self.regress:
            found, done = self._regress(memory, heads, subsets, ranking.values.mean(axis=1), found, recipe)
            rounds.append(done)
            if on_round is not None:
                on_round(done)
        return recipe.replace(heads=found), rounds

    def _check(self, heads: int) -> None:
        if heads < self.size:
            raise StudyError(
                f"subsets of {self.size} heads need {self.size} heads to choose from, but there are {heads}; lower "
                "size, or widen heads"
            )
        if comb(heads, self.size) < self.number:
            raise StudyError(
                f"{heads} heads have only {comb(heads, self.size)} subsets of {self.size}, but number is "
                f"{self.number}; lower number, or widen heads"
            )

    def subsets(self, heads: Sequence[Head]) -> list[tuple[Head, ...]]:
        """Those that it draws.

        Raises:
            StudyError: If there are too few.
        """
        self._check(len(heads))
        chance = np.random.default_rng(self.seed)
        drawn: dict[tuple[int, ...], None] = {}  # keeps the order, and each subset once
        while len(drawn) < self.number:
            places = chance.choice(len(heads), self.size, replace=False)
            drawn[tuple(sorted(places.tolist()))] = None
        return [tuple(heads[i] for i in places) for places in drawn]

    def _regress(
        self,
        memory: Memory,
        heads: Sequence[Head],
        subsets: Sequence[tuple[Head, ...]],
        scores: Array,
        best: tuple[Head, ...],
        recipe: Recipe,
    ) -> tuple[tuple[Head, ...], Round]:
        """The heads of the highest importance against the best subset."""
        effects = importance(heads, subsets, scores)
        top = np.argsort(-effects, kind="stable")[: self.size]
        fitted = tuple(sorted(heads[i] for i in top))
        order = ", ".join(f"{heads[i]} {effects[i]:+.3g}" for i in top[:5])
        note = f"The {self.size} heads of the highest importance by regression ({order}{', ...' * (self.size > 5)})"
        pair = [best] if fitted == best else [best, fitted]
        ranking = memory([recipe.replace(heads=subset) for subset in pair])
        first = int(ranking.order[0])
        if fitted == best:
            note += " are the best subset itself."
        else:
            note += f" are {'' if first else 'not '}better than the best subset{'' if first else ', which stays'}."
        names = [expression(subset) for subset in pair]
        return pair[first], record(2, (), names, ranking, [names[first]], first, note)


def importance(heads: Sequence[Head], subsets: Sequence[Sequence[Head]], scores: Array) -> Array:
    """By how much a subset's score is expected to rise when a head takes part: ridge regression.

    It describes subsets as they were drawn: a head's own effect and the average of what it does together with others.

    Args:
        heads: Of whom to know it, n.
        subsets: Who took part, at least 2 subsets.
        scores: Of the subsets, shape ``(n_subsets,)``. Of an objective with an order of its own
            (:attr:`pagopt.combine.Ranking.additive`) the scores are one part only, and so is the importance.

    Returns:
        Shape ``(n,)``, in the unit of the scores, from the average head: subsets of one size say no more.
    """
    place = {head: i for i, head in enumerate(heads)}
    taking = np.zeros((len(subsets), len(heads)))
    for row, subset in zip(taking, subsets, strict=True):
        row[[place[head] for head in subset]] = 1.0
    taking -= taking.mean(axis=0)
    away = np.asarray(scores, dtype=np.float64) - np.mean(scores)
    left, sizes, right = np.linalg.svd(taking, full_matrices=False)
    inside = left.T @ away
    outside = float(away @ away - inside @ inside)
    best, effects = np.inf, np.zeros(len(heads))
    for penalty in PENALTIES * max(float(np.mean(sizes**2)), 1e-12):
        shrink = sizes**2 / (sizes**2 + penalty)
        freedom = len(subsets) - 1 - shrink.sum()  # the mean takes one
        lost = (outside + float((((1 - shrink) * inside) ** 2).sum())) / max(freedom, 1e-9) ** 2
        if lost < best:
            weights = np.divide(sizes, sizes**2 + penalty) * inside
            best, effects = lost, right.T @ weights
    return np.asarray(effects, dtype=np.float64)
