"""HeadHunter chooses by the objective's own order, which need not be that of any number an image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from pagopt.combine import COMBINATIONS, Ranking
from pagopt.heads import Head
from pagopt.recipe import Recipe
from pagopt.reward import Objective, RewardSpec
from pagopt.search import HeadHunter

POOL = [Head(block, head) for block in range(3) for head in range(4)]
A, B = "pagopt_rewards.brightness:Brightness", "pagopt_rewards.sharpness:Sharpness"
TASKS = 5


def objective(combine: str) -> Objective:
    fields = {"thresholds": {"at_least": "baseline"}, "lexicographic": {}}.get(combine, {})
    tolerance = "2 se" if combine == "lexicographic" else None
    return Objective([RewardSpec(A, tolerance=tolerance), RewardSpec(B, **fields)], combine)  # type: ignore[arg-type]


class Landscape:
    """Two rewards of every set of heads, at random; unguided images score around 0."""

    def __init__(self, seed: int) -> None:
        noise = np.random.default_rng(seed)
        self.effects = {head: noise.normal(0, 1, (2, TASKS)) for head in POOL}
        self.baseline = dict(zip(objective("sum").labels, noise.normal(0, 1, (2, TASKS)), strict=True))

    def tables(self, recipes: Sequence[Recipe]) -> dict[str, np.ndarray]:
        scores = [np.cumsum([self.effects[h] for h in r.heads], axis=0)[-1] for r in recipes]
        return dict(zip(self.baseline, np.stack(scores, axis=1), strict=True))


@pytest.mark.parametrize("combine", COMBINATIONS)
@pytest.mark.parametrize("seed", range(4))
def test_the_chosen_heads_are_the_first_of_the_order(combine: str, seed: int) -> None:
    land, made = Landscape(seed), objective(combine)

    def evaluate(recipes: Sequence[Recipe], tasks: Sequence[int] | None = None) -> Ranking:
        return made.rank(land.tables(recipes), land.baseline)

    recipe, rounds = HeadHunter(rounds=3, heads_per_round=2).run(evaluate, POOL, Recipe(), TASKS)
    selected: list[Head] = []
    for done in rounds:
        left = [head for head in POOL if head not in selected]
        candidates = [Recipe(heads=(*selected, head)) for head in left]
        tables = land.tables(candidates)
        order = [str(left[i]) for i in made.order(tables, land.baseline)]
        assert list(done.chosen) == order[:2]
        assert done.ranked() == order
        assert (done.order == ()) == made.additive, "an order that the scores show is not kept twice"
        values = made.combine(tables, land.baseline)
        assert [s.mean for s in done.scores.values()] == pytest.approx(values.mean(axis=1))
        for label, table in tables.items():
            assert [s.mean for s in done.parts[label].values()] == pytest.approx(table.mean(axis=1))
        assert done.means(order[0]) == {label: done.parts[label][order[0]].mean for label in made.labels}
        selected += [Head.parse(name) for name in done.chosen]
        last = land.tables([Recipe(heads=tuple(selected))])
        assert {label: s.mean for label, s in done.score_parts.items()} == {
            label: pytest.approx(table.mean()) for label, table in last.items()
        }
    assert set(recipe.heads) == set(selected)


def test_the_orders_are_not_all_one() -> None:
    """Else the test above would show nothing."""
    chosen = {}
    for combine in COMBINATIONS:
        land, made = Landscape(1), objective(combine)
        rank = lambda recipes, tasks=None, land=land, made=made: made.rank(land.tables(recipes), land.baseline)  # noqa: E731
        chosen[combine] = HeadHunter(rounds=1, heads_per_round=6).run(rank, POOL, Recipe(), TASKS)[1][0].chosen
    assert len(set(chosen.values())) == len(COMBINATIONS)
