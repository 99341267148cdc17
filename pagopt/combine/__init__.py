"""How several rewards become one order of recipes. One combination a file; numpy only.

Every combination measures a reward's unit against the unguided images, gives each image one number
(:meth:`Combination.values`) and recipes an order (:meth:`Combination.order`). For ``sum`` and ``harmonic`` the order is
that of the means of the numbers; the others decide on the recipes' means of all rewards.
"""

from __future__ import annotations

from pagopt.combine.combination import Combination
from pagopt.combine.harmonic import Harmonic
from pagopt.combine.lexicographic import Lexicographic
from pagopt.combine.limits import Bound, Limit, Tolerance
from pagopt.combine.pareto import Pareto, fronts
from pagopt.combine.ranking import Ranking
from pagopt.combine.scores import Scores, Term
from pagopt.combine.thresholds import Thresholds
from pagopt.combine.weighted_sum import WeightedSum
from pagopt.errors import UnknownName

__all__ = [
    "COMBINATIONS",
    "Bound",
    "Combination",
    "Limit",
    "Ranking",
    "Scores",
    "Term",
    "Tolerance",
    "combination",
    "fronts",
]

COMBINATIONS: dict[str, Combination] = {
    kind.name: kind for kind in (WeightedSum(), Harmonic(), Thresholds(), Lexicographic(), Pareto())
}
"""All of them by name."""


def combination(name: str) -> Combination:
    """One by its name.

    Raises:
        UnknownName: If there is none of that name.
    """
    if name not in COMBINATIONS:
        raise UnknownName("combination", str(name), COMBINATIONS)
    return COMBINATIONS[name]
