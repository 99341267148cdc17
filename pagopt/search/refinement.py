"""Refinement: does taking a head out, or exchanging it, make what another search found better?

A greedy search never takes back what it chose. Floating search does (Pudil, Novovicova, Kittler, "Floating search
methods in feature selection", Pattern Recognition Letters 15, 1994). Scores of images are noisy, and the best of many
noisy changes looks like a gain even where there is none: a change is taken only when the paired difference is clear.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from pagopt.combine import Ranking
from pagopt.errors import StudyError
from pagopt.heads import Head, parse_heads
from pagopt.recipe import Recipe
from pagopt.results import Estimate, Round
from pagopt.search.candidates import FOR, WITHOUT, added, head_scores, record, touched
from pagopt.search.headhunter import HeadHunter
from pagopt.search.interface import Evaluate, Found, OnRound, Search, check_whole
from pagopt.search.memory import Memory

__all__ = ["Refinement"]


@dataclass(frozen=True)
class Refinement:
    """Another search, and then one change at a time until none helps.

    A round tries to take out each selected head. Where that does not help, the next round tries to exchange each for
    each of the ``partners`` best heads outside. After a change that helps it begins again with removals.

    Args:
        start: The search whose result is refined.
        share: The images that the changes may cost, as a share of those of ``start``, above 0.
        budget: The images that they may cost, instead of ``share``.
        partners: How many heads from outside are tried in exchanges, at least 0; 0 only takes out. They are those that
            stood best in the trace of ``start``.
        errors: A change is taken when its gain, paired over the tasks, is above so many standard errors; at least 0.

    Raises:
        StudyError: If a number is out of its range.
    """

    start: Search = field(default_factory=HeadHunter)
    share: float = 1.0
    budget: int | None = None
    partners: int = 8
    errors: float = 1.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.share) and self.share > 0):
            raise StudyError(f"share must be a number above 0, not {self.share}")
        if self.budget is not None:
            check_whole("budget", self.budget, 1)
        check_whole("partners", self.partners, 0)
        if not (math.isfinite(self.errors) and self.errors >= 0):
            raise StudyError(f"errors must be a number of at least 0, not {self.errors}")

    def images(self, pool: int | Sequence[Head], tasks: int) -> int:
        """The most images that it asks for: those of ``start``, and the budget of the changes."""
        return self.start.images(pool, tasks) + self._budget(pool, tasks)

    def _budget(self, pool: int | Sequence[Head], tasks: int) -> int:
        """The images that the changes may cost; :meth:`run` says what is refused."""
        if tasks < 2:
            raise StudyError(
                f"changes are judged by differences over at least 2 tasks, but there is {tasks}; "
                "add prompts, or search without refining"
            )
        budget = self.budget
        if budget is None:
            budget = math.floor(self.share * self.start.images(pool, tasks))
        if budget < 2 * tasks:
            raise StudyError(
                f"the selection and one change of it are {2 * tasks} images on {tasks} tasks, but refining may cost "
                f"{budget}; raise {'share' if self.budget is None else 'budget'}"
            )
        return budget

    def run(
        self, evaluate: Evaluate, pool: Sequence[Head], recipe: Recipe, tasks: int, on_round: OnRound | None = None
    ) -> Found:
        """Search; see :meth:`pagopt.search.interface.Search.run`.

        Objectives with an order of their own (:attr:`pagopt.combine.Ranking.additive`) have no standard error of a
        difference: there a change is taken when the objective puts it ahead of the selection.

        Returns:
            The refined recipe, and the trace: the rounds of ``start``, then one for each try. There a candidate is
            called ``"without L3.H1"`` or ``"L4.H2 for L3.H1"``, ``chosen`` is the change that was taken, if any, and
            ``note`` says by how much it is better, or why none was taken. Ties go to the selection as it is.

        Raises:
            StudyError: With a single task, which tells no standard error; or if the budget pays for no change.
        """
        heads = list(parse_heads(pool))
        budget = self._budget(heads, tasks)
        memory = Memory(evaluate, tasks)
        found, trace = self.start.run(memory, heads, recipe, tasks, on_round)
        trial = Trial(memory, found, memory.images + budget, self.errors)
        standing = _standing(trace)
        held, kind = {found.heads}, 0
        while kind < 2:
            names = list((_removals, self._exchanges)[kind](trial.recipe.heads, heads, standing))
            names = [name for name in names if added(trial.recipe.heads, name) not in held]
            done = trial.run(len(trace) + 1, names, ("removals", "exchanges")[kind]) if names else None
            if done is not None:
                trace.append(done)
                if on_round is not None:
                    on_round(done)
            kind = 0 if done is not None and done.chosen else kind + 1
            held.add(trial.recipe.heads)
        return trial.recipe, trace

    def _exchanges(
        self, selected: Sequence[Head], heads: Sequence[Head], standing: dict[Head, tuple[int, float]]
    ) -> Iterator[str]:
        """The best heads from outside, each for every selected one, the weakest of these first."""
        outside = [head for head in heads if head not in selected]
        partners = sorted(outside, key=lambda head: standing.get(head, NEVER), reverse=True)[: self.partners]
        for new in partners:
            for old in sorted(selected, key=lambda head: standing.get(head, NEVER)):
                yield f"{new}{FOR}{old}"


NEVER = (0, 0.0)


def _removals(
    selected: Sequence[Head], heads: Sequence[Head], standing: dict[Head, tuple[int, float]]
) -> Iterator[str]:
    """Each selected head, the weakest first; one stays."""
    if len(selected) > 1:
        for head in sorted(selected, key=lambda head: standing.get(head, NEVER)):
            yield f"{WITHOUT}{head}"


def _standing(trace: Sequence[Round]) -> dict[Head, tuple[int, float]]:
    """The last round in which a head was a candidate, and its score there: in a race, who was tried later is better."""
    standing: dict[Head, tuple[int, float]] = {}
    for done in trace:
        if any(touched(name)[1] for name in done.scores):
            continue  # what a selection is without a head says the opposite of it
        standing.update({head: (done.number, said.score.mean) for head, said in head_scores(done).items()})
    return standing


class Trial:
    """Changes of a recipe, judged.

    Args:
        memory: Scores recipes.
        recipe: What is to be changed.
        limit: Images up to which :attr:`Memory.images` may grow.
        errors: See :class:`Refinement`.

    Attributes:
        recipe: With the changes that were taken.
    """

    def __init__(self, memory: Memory, recipe: Recipe, limit: int, errors: float) -> None:
        self.memory = memory
        self.recipe = recipe
        self.limit = limit
        self.errors = errors

    def run(self, number: int, names: Sequence[str], what: str) -> Round | None:
        """Try changes, and take the best that is clearly better; ``None`` if the budget pays for none."""
        heads = self.recipe.heads
        recipes = [self.recipe.replace(heads=added(heads, name)) for name in names]
        paid = self._paid(recipes)
        if not paid:
            return None
        tried = names[:paid]
        ranking = self.memory([self.recipe, *recipes[:paid]])
        ahead = [int(i) for i in ranking.order[: list(ranking.order).index(0)]]
        taken = next((i for i in ahead if not ranking.additive or self._clear(_gain(ranking, i))), None)
        note = self._note(ranking, tried, taken, what)
        if paid < len(names):
            note += f" The budget paid for {paid} of {len(names)} {what}."
        done = record(number, heads, tried, ranking, [] if taken is None else [tried[taken - 1]], taken or 0, note)
        if taken is not None:
            self.recipe = recipes[taken - 1]
        return done

    def _paid(self, recipes: Sequence[Recipe]) -> int:
        """How many of them, from the first on, the budget pays for, beside the recipe as it is."""
        left = self.limit - self.memory.images - self.memory.price([self.recipe])
        for count, recipe in enumerate(recipes):
            left -= self.memory.price([recipe])
            if left < 0:
                return count
        return len(recipes)

    def _clear(self, gain: Estimate) -> bool:
        return gain.mean > self.errors * gain.se

    def _note(self, ranking: Ranking, names: Sequence[str], taken: int | None, what: str) -> str:
        if not ranking.additive:
            if taken is None:
                return f"The objective puts none of {len(names)} {what} ahead of the selection."
            return f"The objective puts {names[taken - 1]} ahead of the selection; no standard error says how surely."
        bar = f"{self.errors:g} standard error{'s' * (self.errors != 1)}"
        if taken is not None:
            gain = _gain(ranking, taken)
            return (
                f"Taken: {names[taken - 1]}, better by {_said(gain)} on the same tasks, more than {bar}. It is the "
                f"best of {len(names)} {what}, which flatters it."
            )
        best = next(int(i) for i in ranking.order if i > 0)
        return (
            f"None of {len(names)} {what} is better by more than {bar}; the best is {names[best - 1]}: "
            f"{_said(_gain(ranking, best), sign='+')}."
        )


def _gain(ranking: Ranking, row: int) -> Estimate:
    """A change against the selection, paired."""
    return Estimate.of(ranking.values[row] - ranking.values[0])


def _said(gain: Estimate, sign: str = "") -> str:
    return f"{gain.mean:{sign}.3g} \N{PLUS-MINUS SIGN} {gain.se:.2g}"
