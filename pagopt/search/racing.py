"""Racing: the heads that HeadHunter would select, for a small part of its images.

Every round is a race (:mod:`pagopt.search.race`): clearly worse heads go early, close ones see more tasks.

Later rounds begin with the heads that were good before and a rescue pool of the others, since heads that are weak alone
can matter in combination (Ahn et al., "Where and How to Perturb", NeurIPS 2025, https://arxiv.org/abs/2506.10978).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import spearmanr

from pagopt.errors import StudyError
from pagopt.heads import Head
from pagopt.recipe import Recipe
from pagopt.results import Estimate, Round
from pagopt.search.evidence import DRAWS, Belief, believe
from pagopt.search.headhunter import HeadHunter
from pagopt.search.interface import (
    Evaluate,
    Found,
    OnRound,
    check_counts,
    check_enough,
    check_pool,
    check_whole,
    count_of,
    ranked,
)
from pagopt.search.race import FIRST, Race

__all__ = ["CHECKED", "TRUSTED", "Racing"]

CHECKED = 16
"""Heads that show whether a first look can be trusted."""

TRUSTED = 0.5
"""The rank correlation from which on it is."""

SUREST = 1 - 1 / DRAWS
"""The highest confidence that the draws of a belief can tell."""


@dataclass(frozen=True)
class Racing:
    """HeadHunter's rounds as races.

    Args:
        rounds: R of the paper, at least 1.
        heads_per_round: k of the paper, at least 1.
        share: The images that the races may cost, as a share of those of the exhaustive search, from 0 to 1. With few
            tasks they cost more: every candidate draws two before the first can go.
        budget: The images that they may cost, instead of ``share``.
        confidence: A head goes when it is among the best with a probability below ``1 - confidence``, and below a third
            of what that would be if nothing were known (``race.FAINT``); up to ``SUREST``.
        start: The share of the remaining heads with which a later round begins: those that were best before.
        rescue: The share of the remaining heads that is brought back beside them, at random.
        cheap: A first look at all heads with this part of the inference steps, above 0 and below 1; round 1 then begins
            like a later round. ``None`` is without. Some heads are drawn with all steps, too: if the two do not agree
            (their rank correlation is below ``TRUSTED``), the look is dropped and all heads race. A ``budget`` has to
            pay for that, too.
        seed: Of the order of the tasks and of the rescue pool.

    Raises:
        StudyError: If a number is out of its range.
    """

    rounds: int = 5
    heads_per_round: int = 3
    share: float = 0.25
    budget: int | None = None
    confidence: float = 0.98
    start: float = 0.34
    rescue: float = 0.1
    cheap: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        check_counts(self.rounds, self.heads_per_round)
        for name in ("share", "start"):
            if not 0 < getattr(self, name) <= 1:
                raise StudyError(f"{name} must be above 0 and at most 1, not {getattr(self, name)}")
        if not 0 <= self.rescue <= 1:
            raise StudyError(f"rescue must be from 0 to 1, not {self.rescue}")
        if self.cheap is not None and not 0 < self.cheap < 1:
            raise StudyError(f"cheap must be above 0 and below 1, not {self.cheap}; leave it out to draw all steps")
        if self.budget is not None:
            check_whole("budget", self.budget, 1)
        check_whole("seed", self.seed, 0)
        if not 0.5 <= self.confidence <= SUREST:
            raise StudyError(
                f"confidence must be at least 0.5 and at most {SUREST}, not {self.confidence}: chances are counted in "
                f"{DRAWS} draws, which tell no smaller ones apart"
            )

    def images(self, pool: int | Sequence[Head], tasks: int) -> int:
        """The images that a search may draw at most, the selections after each round included.

        A first look may be dropped, so all heads have to be paid for in round 1.
        """
        heads = count_of(pool)
        check_enough(heads, self.rounds, self.heads_per_round)
        return self._most(heads, tasks, self.starters(heads, standing=False))

    def _most(self, pool: int, tasks: int, starters: Sequence[int]) -> int:
        """The same where rounds begin with so many heads."""
        if self.budget is not None:
            return self.budget
        exhaustive = HeadHunter(self.rounds, self.heads_per_round).images(pool, tasks)
        return max(math.floor(self.share * exhaustive), self._fewest(pool, tasks, starters))

    def _fewest(self, pool: int, tasks: int, starters: Sequence[int]) -> int:
        """The images without which a round has too few to begin."""
        return sum(starters) * min(FIRST, tasks) + self.rounds * tasks + self._look_images(pool, tasks)

    def starters(self, pool: int, standing: bool) -> list[int]:
        """How many heads each round begins with; in round 1 all, unless a first look says how they stand."""
        remaining = [pool - r * self.heads_per_round for r in range(self.rounds)]
        fewest = 2 * self.heads_per_round
        return [
            left
            if number == 0 and not standing
            else min(left, max(fewest, math.ceil((self.start + self.rescue) * left)))
            for number, left in enumerate(remaining)
        ]

    def _look_images(self, pool: int, tasks: int) -> int:
        """What the first look costs, in images with all steps."""
        if self.cheap is None:
            return 0
        return self._cheap_images(pool, tasks) + min(CHECKED, pool) * min(FIRST, tasks)

    def _cheap_images(self, pool: int, tasks: int) -> int:
        """What its images with fewer steps count as."""
        return math.ceil((self.cheap or 0.0) * pool * min(FIRST, tasks))

    def _look(
        self, evaluate: Evaluate, heads: list[Head], recipe: Recipe, tasks: Sequence[int], chance: np.random.Generator
    ) -> tuple[Standing, float]:
        """A first look with fewer steps, and its rank correlation with full images; empty where that is too low."""
        recipes = [recipe.replace(heads=(head,)) for head in heads]
        standing = Standing()
        looks = ranked(evaluate(recipes, tasks, self.cheap or 1.0), len(recipes), len(tasks))
        standing.update(heads, believe(looks.values))
        checked = sorted(chance.choice(len(heads), min(CHECKED, len(heads)), replace=False).tolist())
        full = ranked(evaluate([recipes[i] for i in checked], tasks), len(checked), len(tasks)).values.mean(axis=1)
        cheap = [standing.mean[heads[i]] for i in checked]
        agreement = float(spearmanr(cheap, full).statistic) if np.ptp(full) > 0 and np.ptp(cheap) > 0 else 0.0
        return (standing if agreement >= TRUSTED else Standing()), agreement

    def run(
        self, evaluate: Evaluate, pool: Sequence[Head], recipe: Recipe, tasks: int, on_round: OnRound | None = None
    ) -> Found:
        """Search; see :meth:`pagopt.search.interface.Search.run`.

        Returns:
            The recipe with the ``rounds * heads_per_round`` selected heads, and the trace of the rounds.
        """
        remaining = check_pool(pool, self.rounds, self.heads_per_round)
        chance = np.random.default_rng(self.seed)
        size = len(remaining)
        starters = self.starters(size, standing=False)
        standing, looked = Standing(), ""
        if self.cheap is not None:
            self._check_budget(self._fewest(size, tasks, starters))
            standing, agreement = self._look(
                evaluate, remaining, recipe, chance.permutation(tasks)[:FIRST].tolist(), chance
            )
            starters = self.starters(size, standing=bool(standing.mean))
            looked = (
                f" A first look at all heads with {self.cheap:.0%} of the steps agreed with full images by "
                f"{agreement:.2f} (rank correlation of {min(CHECKED, size)} heads)"
                + ("." if standing.mean else f", less than {TRUSTED}: all heads raced.")
                + f" A budget counts its {size * min(FIRST, tasks)} images as {self._cheap_images(size, tasks)}."
            )
        left = self._most(size, tasks, starters) - self.rounds * tasks - self._look_images(size, tasks)
        selected: list[Head] = []
        rounds: list[Round] = []
        for number in range(self.rounds):
            heads = self._starters(remaining, standing, starters[number], chance)
            recipes = [recipe.replace(heads=(*selected, head)) for head in heads]
            race = Race(evaluate, recipes, chance.permutation(tasks).tolist(), self.heads_per_round, standing.of(heads))
            budget = left * starters[number] // sum(starters[number:])
            places = race.run(budget, self.confidence)
            best = [heads[i] for i in places]
            left -= race.images
            base = tuple(str(head) for head in sorted(selected))
            selected += best
            selection = ranked(evaluate([recipe.replace(heads=tuple(selected))]), 1, tasks)
            # Where an earlier look told every score, a variance is 0 but for rounding.
            deviations = np.sqrt(race.belief.covariance.diagonal().clip(min=0.0))
            right = float(race.belief.chances(self.heads_per_round)[places].sum())
            done = Round(
                number=number + 1,
                base=base,
                scores={
                    str(head): Estimate(float(mean), float(deviation))
                    for head, mean, deviation in zip(heads, race.belief.mean, deviations, strict=True)
                },
                chosen=tuple(str(head) for head in best),
                score=Estimate.of(selection.values[0]),
                score_parts={label: Estimate.of(table[0]) for label, table in selection.parts.items()},
                tasks={str(head): int(count) for head, count in zip(heads, race.seen, strict=True)},
                right=round(right, 3),
                note=self._note(race, right) + (looked if number == 0 else ""),
            )
            standing.update(heads, race.belief)
            remaining = [head for head in remaining if head not in best]
            rounds.append(done)
            if on_round is not None:
                on_round(done)
        return recipe.replace(heads=tuple(selected)), rounds

    def _check_budget(self, fewest: int) -> None:
        """Refuse a first look after which the budget could not pay for all heads, before it is drawn."""
        if self.budget is not None and self.budget < fewest:
            raise StudyError(
                f"if the first look (cheap: {self.cheap:.3g}) is dropped, all heads race, and the search draws at "
                f"least {fewest} images with it; the budget is {self.budget}. Raise the budget, leave out cheap, or "
                "choose from fewer heads or rounds"
            )

    def _note(self, race: Race, right: float) -> str:
        """What a reader of the trace has to know."""
        whole = int((race.seen == len(race.order)).sum())
        return (
            f"A race of {len(race.recipes)} heads over {len(race.order)} tasks: {race.images} images, {whole} heads "
            f"saw every task. Expected to be truly among the best {self.heads_per_round}: {right:.1f} of the chosen. "
            "A score is what is believed of a head on an average task."
        )

    def _starters(
        self, remaining: list[Head], standing: Standing, number: int, chance: np.random.Generator
    ) -> list[Head]:
        """The best of before and the rescue pool, in the order of the heads."""
        if number >= len(remaining):
            return remaining
        rescued = min(number // 2, math.ceil(self.rescue * len(remaining)))
        order = standing.rank(remaining)
        good, weak = order[: number - rescued], order[number - rescued :]
        return sorted([*good, *(weak[i] for i in chance.choice(len(weak), rescued, replace=False))])


class Standing:
    """What is known of all heads from the rounds so far."""

    def __init__(self) -> None:
        self.mean: dict[Head, float] = {}
        self.variance: dict[Head, float] = {}

    def rank(self, heads: Sequence[Head]) -> list[Head]:
        """Best first; ties in the order given."""
        return sorted(heads, key=lambda head: -self.mean[head])

    def of(self, heads: Sequence[Head]) -> Belief | None:
        """Of these heads, without what their errors have in common; ``None`` before the first round."""
        if not self.mean:
            return None
        variance = np.array([self.variance[head] for head in heads])
        return Belief(np.array([self.mean[head] for head in heads]), np.diag(variance), 0.0, 0.0)

    def update(self, heads: Sequence[Head], belief: Belief) -> None:
        """After a round: who did not take part is expected to have moved with the rest."""
        if self.mean:
            old, new = float(np.mean([self.mean[head] for head in heads])), float(belief.mean.mean())
            self.mean = {head: new + belief.slope * (mean - old) for head, mean in self.mean.items()}
            self.variance = {head: belief.slope**2 * variance for head, variance in self.variance.items()}
        self.mean.update(zip(heads, belief.mean.tolist(), strict=True))
        self.variance.update(zip(heads, belief.covariance.diagonal().tolist(), strict=True))
