"""Searches: which heads to perturb. One algorithm a file, named by its source."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from pagopt.errors import StudyError, UnknownName
from pagopt.search.headhunter import HeadHunter
from pagopt.search.interface import Evaluate, Search
from pagopt.search.layers import LayerSweep
from pagopt.search.lookahead import Lookahead
from pagopt.search.racing import Racing
from pagopt.search.random_subsets import RandomSubsets
from pagopt.search.refinement import Refinement

__all__ = [
    "SEARCHES",
    "TITLES",
    "Evaluate",
    "HeadHunter",
    "LayerSweep",
    "Lookahead",
    "Racing",
    "RandomSubsets",
    "Refinement",
    "Search",
    "make_search",
]

SEARCHES: dict[str, Callable[..., Search]] = {
    "exhaustive": HeadHunter,
    "racing": Racing,
    "layers": LayerSweep,
    "lookahead": Lookahead,
    "random": RandomSubsets,
    "refinement": Refinement,
}
"""By the name that a study gives them."""

TITLES = {
    "exhaustive": "HeadHunter",
    "racing": "HeadHunter, racing",
    "layers": "layer sweep",
    "lookahead": "lookahead",
    "random": "random subsets",
    "refinement": "refinement",
}
"""What the found recipe is called in tables."""


def make_search(name: str, rounds: int, heads_per_round: int, options: Mapping[str, Any]) -> Search:
    """A search by its name.

    Args:
        name: One of ``SEARCHES``.
        rounds: R of the paper, for the searches that have rounds.
        heads_per_round: k of the paper, for those that add several heads in a round.
        options: Further arguments of its class. "refinement" also takes those of racing, whose result it refines.

    Raises:
        UnknownName: If there is no such search, or it has no such option.
        StudyError: If a value is out of its range.
    """
    if name not in SEARCHES:
        raise UnknownName("search", str(name), SEARCHES)
    given = {"rounds": rounds, "heads_per_round": heads_per_round}
    if name == "refinement":
        start = make_search("racing", rounds, heads_per_round, {k: v for k, v in options.items() if k in RACING})
        return _made(name, {"start": start}, {k: v for k, v in options.items() if k not in RACING})
    return _made(name, given, options)


RACING = {"confidence", "rescue", "seed"}


def _made(name: str, given: Mapping[str, Any], options: Mapping[str, Any]) -> Search:
    known = inspect.signature(SEARCHES[name]).parameters
    for option in options:
        if option not in known or option in given:
            raise UnknownName(f"option of the search {name!r}", option, sorted(set(known) - set(given)))
    try:
        return SEARCHES[name](**{key: value for key, value in given.items() if key in known}, **options)
    except TypeError as error:
        raise StudyError(f"search_options {dict(options)} do not fit the search {name!r}: {error}") from error
