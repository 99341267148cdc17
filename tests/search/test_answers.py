"""What a search is answered, and the pool that it is given, by one's own hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pagopt.errors import RecipeError, StudyError
from pagopt.recipe import Recipe
from pagopt.search import HeadHunter, LayerSweep, Lookahead, Racing, RandomSubsets, Refinement, Search
from pagopt.search.interface import ranked
from tests.search.landscape import World

SEARCHES: dict[str, Search] = {
    "headhunter": HeadHunter(2, 2),
    "racing": Racing(2, 2, share=1.0),
    "layers": LayerSweep(2),
    "random": RandomSubsets(3, 10),
    "lookahead": Lookahead(2, beam=4),
    "refinement": Refinement(HeadHunter(2, 1)),
}
WRONG: dict[str, tuple[Any, str]] = {
    "a mapping": (lambda table: {"sharp": table}, "a mapping came, of 'sharp': give the table of one reward"),
    "means": (lambda table: table.mean(axis=1), r"one of shape \(\d+,\) came: give every recipe's score on every task"),
    "too few tasks": (lambda table: table[:, 1:], r"table of shape \(\d+, \d\), a recipe a row, but one of shape"),
    "too few recipes": (lambda table: table[1:], r"but one of shape \(\d+, \d\) came"),
    "not a number": (lambda table: np.where(np.arange(len(table))[:, None] == 0, np.nan, table), "nan for recipe 0"),
    "nothing but nan": (lambda table: table * np.nan, r"\d+ of them are not, the first nan for recipe 0 on task 0"),
    "words": (lambda table: [["good"] * table.shape[1]] * len(table), "a list came that is no table"),
    "nothing": (lambda table: None, "but a NoneType came: give every recipe's score"),
}


@pytest.mark.parametrize("search", SEARCHES)
@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_no_table_of_scores_is_refused(search: str, wrong: str) -> None:
    world = World(1, heads=12, tasks=6)
    change, says = WRONG[wrong]
    with pytest.raises(StudyError, match=says):
        SEARCHES[search].run(lambda *asked: change(world(*asked)), world.pool, Recipe(), tasks=6)


@pytest.mark.parametrize("search", SEARCHES)
def test_nested_lists_and_heads_as_text_are_understood(search: str) -> None:
    world = World(1, heads=12, tasks=6)
    found = SEARCHES[search].run(world, world.pool, Recipe(), tasks=6)
    text: Any = "L0.H0-5 L1.H0-5"
    assert SEARCHES[search].run(lambda *asked: world(*asked).tolist(), text, Recipe(), tasks=6) == found
    assert SEARCHES[search].run(world, [str(head) for head in world.pool], Recipe(), tasks=6) == found  # type: ignore[misc]


@pytest.mark.parametrize("pool", ["L0.H*", ["red"], [1, 2, 3]])
def test_a_pool_that_is_no_heads_is_refused(pool: Any) -> None:
    with pytest.raises(RecipeError):
        HeadHunter(1, 1).run(World(1), pool, Recipe(), tasks=16)


def test_a_ranking_is_checked_too() -> None:
    table = np.arange(6.0).reshape(2, 3)
    ranking = ranked(table, 2, 3)
    assert ranked(ranking, 2, 3) is ranking
    assert ranking.order.tolist() == [1, 0]
    with pytest.raises(StudyError, match=r"shape \(2, 2\), a recipe a row, but one of shape \(2, 3\)"):
        ranked(ranking, 2, 2)
