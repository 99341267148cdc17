"""A world of two rewards, ranked by a real objective that may have an order of its own."""

from __future__ import annotations

from collections.abc import Sequence

from pagopt.combine import Ranking
from pagopt.heads import Head
from pagopt.recipe import Recipe
from pagopt.reward import Objective, RewardSpec
from tests.search.landscape import World

A, B = "pagopt_rewards.brightness:Brightness", "pagopt_rewards.sharpness:Sharpness"


class TwoRewards:
    """Scores of two worlds; thresholds ask the second reward to be as high as without guidance."""

    def __init__(self, combine: str, seed: int, heads: int = 12, tasks: int = 5) -> None:
        fields = {"thresholds": {"at_least": "baseline"}}.get(combine, {})
        tolerance = "2 se" if combine == "lexicographic" else None
        specs = [RewardSpec(A, tolerance=tolerance), RewardSpec(B, **fields)]  # type: ignore[arg-type]
        self.objective = Objective(specs, combine)
        worlds = [World(seed + number, heads, tasks, pair=1.0) for number in (0, 1000)]
        self.worlds = dict(zip(self.objective.labels, worlds, strict=True))
        self.pool: list[Head] = worlds[0].pool
        self.baseline = {label: world.task for label, world in self.worlds.items()}
        self.drawn: list[tuple[tuple[Head, ...], int]] = []

    def __call__(self, recipes: Sequence[Recipe], tasks: Sequence[int] | None = None) -> Ranking:
        columns = list(range(len(self.baseline[self.objective.labels[0]]))) if tasks is None else list(tasks)
        self.drawn += [(recipe.heads, task) for recipe in recipes for task in columns]
        tables = {label: world(recipes, tasks) for label, world in self.worlds.items()}
        return self.objective.rank(tables, self.baseline)

    def ahead(self, first: Sequence[Head], second: Sequence[Head]) -> bool:
        """Whether the objective puts the first selection strictly ahead of the second."""
        tables = {k: w([Recipe(heads=second), Recipe(heads=first)]) for k, w in self.worlds.items()}
        return int(self.objective.order(tables, self.baseline)[0]) == 1
