"""Trials to scores, values and missed constraints: the rewards of a tuning and the evaluators that apply them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pagopt.combine import Limit
from pagopt.combine.scores import limits_of
from pagopt.comparison.compute import block_evaluations
from pagopt.errors import PagoptError, StoreError, UnknownName
from pagopt.evaluate import Evaluator
from pagopt.experiment import Run
from pagopt.own_code import is_own
from pagopt.recipe import PLAIN, Recipe
from pagopt.reward import Objective, RewardSpec, available_rewards
from pagopt.reward.loading import OWN
from pagopt.task import Task
from pagopt.tuning.diversity import DIVERSITY, Diversity
from pagopt.tuning.ledger import Asked, Seen
from pagopt.tuning.outcome import Goal
from pagopt.tuning.tuning import COST, Tuning

__all__ = ["Beside", "Scoring"]


class Beside:
    """The rewards that a tuning has beside the study's.

    Args:
        tuning: Objectives and constraints.

    Attributes:
        further: Of the objectives; ``None`` if there are none.
        bounds: Of the constraints; ``None`` if there are none.

    Raises:
        UnknownName: If there is no such objective or constraint.
        RewardError: If one cannot be made.
    """

    def __init__(self, tuning: Tuning) -> None:
        _check_names("objective", tuning.further, (COST, DIVERSITY))
        _check_names("constraint", tuning.bounds, (DIVERSITY,))
        self.further = Objective(tuning.further) if tuning.further else None
        self.bounds = Objective([_bare(spec) for spec in tuning.bounds]) if tuning.bounds else None


class Scoring:
    """What trials are judged by.

    Args:
        tuning: Objectives and constraints.
        run: Model, store, trainer and the rewards of the study.
        beside: The other rewards of the tuning.

    Attributes:
        rewards: Those of the trials by label: the study's, and those of further objectives and constraints.
        every: Those of the comparison: the watched ones, too.
        goals: The objectives.
        limits: The constraints in the rewards' own units, once :meth:`measure_by` was called.
    """

    def __init__(self, tuning: Tuning, run: Run, beside: Beside) -> None:
        self.tuning, self.run, self.objective = tuning, run, run.objective
        self.further, self.bounds = beside.further, beside.bounds
        self.rewards = dict(self.objective.rewards)
        self.labels = {
            "further": self._join(self.further) if self.further else {},
            "bounds": self._join(self.bounds) if self.bounds else {},
        }
        self.every = {**self.run.judge.rewards}
        for label, reward in self.rewards.items():
            self.every.setdefault(label, reward)
        self.goals = [Goal("objective", higher=True)]
        if self.further:
            own = self.labels["further"]
            self.goals += [Goal(own[label], weight > 0) for label, weight in self.further.weights.items()]
        self.goals += [Goal(DIVERSITY, spec.weight > 0) for spec in tuning.optimised if spec.name == DIVERSITY]
        self.diversity: Diversity | None = None
        if tuning.diversity is not None:
            optimised = [*self.objective.rewards, *self.labels["further"].values()]
            device = run.trainer.strategy.root_device
            self.diversity = Diversity(tuning.diversity, self.every, optimised, run.store, device)
        if tuning.costs:
            self.goals.append(Goal(COST, higher=False))
        self.limits: list[Limit] = []
        self._evaluators: dict[tuple[int, bool], Evaluator] = {}

    def measure_by(self, baseline: dict[str, NDArray[np.float64]]) -> None:
        """Take in every reward's scores of the unguided images, shape ``(n_tasks,)``."""
        if self.diversity is not None:
            row = self.shares([PLAIN], self.run.tasks, self.evaluator(self.tuning.study.steps))[DIVERSITY][0]
            baseline = {**baseline, DIVERSITY: row}
        self.run.baseline = {label: baseline[label] for label in self.objective.rewards}
        self.limits = self._limits(baseline)

    def evaluator(self, steps: int, judge: bool = False) -> Evaluator:
        """Scores recipes with this number of steps; ``judge`` with the rewards that are only watched, too."""
        if (steps, judge) not in self._evaluators:
            run = self.run
            renderer = run.renderer.at_steps(steps)
            rewards = self.every if judge else self.rewards
            batch_size = run.evaluator.batch_size
            made = Evaluator(renderer, rewards, run.store, run.trainer, batch_size, run.progress)
            self._evaluators[steps, judge] = made
        return self._evaluators[steps, judge]

    @property
    def images_generated(self) -> int:
        """Pictures drawn so far."""
        return sum(one.images_generated for one in self._evaluators.values())

    def combined(self, tables: dict[str, NDArray[np.float64]]) -> NDArray[np.float64]:
        """The first objective of recipes, shape ``(n_recipes, n_tasks)``."""
        return self.objective.combine({k: tables[k] for k in self.objective.rewards}, self.run.baseline)

    def cost(self, recipe: Recipe, steps: int) -> int:
        """Block evaluations for one picture."""
        return block_evaluations(recipe, self.run.head_map.blocks, steps)

    def values(self, one: Asked, seen: Seen) -> tuple[list[float], dict[str, float]]:
        """The objectives, and how far each constraint is missed."""
        means = {**seen.means(), COST: float(self.cost(one.recipe, one.steps)), "objective": seen.mean}
        limits = {
            limit.text: (limit.value - means[limit.reward]) * (1 if limit.kind == "at_least" else -1)
            for limit in self.limits
        }
        return [means[goal.name] for goal in self.goals], limits

    def shares(
        self, recipes: Sequence[Recipe], tasks: Sequence[Task], evaluator: Evaluator
    ) -> dict[str, NDArray[np.float64]]:
        """Diversity of recipes whose pictures are drawn, shape ``(n_recipes, n_tasks)``; empty if nobody asked for it.

        Raises:
            PagoptError: If features cannot be computed.
        """
        if self.diversity is None:
            return {}
        rows = [self.diversity(keys, tasks) for keys in evaluator.keys(recipes, tasks)]
        return {DIVERSITY: np.stack(rows)}

    def complete(self, one: Asked, seen: Seen) -> None:
        """Take in what only all pictures together give, or why it cannot be had."""
        try:
            tables = self.shares([one.recipe], self.run.tasks, self.evaluator(one.steps))
        except StoreError:
            raise
        except (PagoptError, RuntimeError) as error:
            seen.cause = f"{type(error).__name__}: {error}"
            return
        for label, table in tables.items():
            seen.scores[label] = dict(enumerate(table[0].tolist()))

    def keys(self) -> dict[str, str]:
        """What the trials' values depend on: the key of every reward, by label."""
        found = {label: reward.key() for label, reward in self.rewards.items()}
        if self.diversity is not None:
            found[f"features of {DIVERSITY}"] = self.diversity.extractor.reward.key()
        return found

    def scores(self, trials: Sequence[Asked], tasks: Sequence[int]) -> dict[int, dict[str, NDArray[np.float64]] | str]:
        """For every trial the scores on these tasks, by reward; or why there are none."""
        found: dict[int, dict[str, NDArray[np.float64]] | str] = {}
        shown = [self.run.tasks[task] for task in tasks]
        for steps in dict.fromkeys(one.steps for one in trials):
            same = [one for one in trials if one.steps == steps]
            try:
                tables = self.evaluator(steps)([one.recipe for one in same], shown)
                for index, one in enumerate(same):
                    found[one.number] = {label: table[index] for label, table in tables.items()}
            except StoreError:
                raise
            except (PagoptError, RuntimeError) as error:
                if self.run.trainer.world_size > 1:  # the other processes may not have failed
                    raise
                if len(same) == 1:
                    found[same[0].number] = f"{type(error).__name__}: {error}"
                else:
                    for one in same:
                        found |= self.scores([one], tasks)
        return found

    def _join(self, more: Objective) -> dict[str, str]:
        """Add rewards to those of the trials; returns under which label each of them is."""
        labels = {}
        for label, reward in more.rewards.items():
            known = {**self.run.judge.rewards, **self.rewards}
            same = [name for name, other in known.items() if other.key() == reward.key()]
            labels[label] = same[0] if same else self._free(label)
            self.rewards[labels[label]] = self.rewards.get(labels[label], reward)
        return labels

    def _free(self, label: str) -> str:
        return label if label not in {*self.rewards, *self.run.judge.rewards} else f"{label} (beside)"

    def _limits(self, baseline: dict[str, NDArray[np.float64]]) -> list[Limit]:
        """The constraints in the rewards' own units."""
        own, labels = self.labels["bounds"], self.bounds.labels if self.bounds else ()
        terms = [spec.term(own[label]) for label, spec in zip(labels, self.tuning.bounds, strict=True)]
        terms += [spec.term(DIVERSITY) for spec in self.tuning.constraints if spec.name == DIVERSITY]
        return limits_of(terms, baseline)


def _check_names(kind: str, specs: Sequence[RewardSpec], more: Sequence[str]) -> None:
    """Of rewards, with what else there is to name in their place."""
    known = available_rewards()
    for spec in specs:
        if spec.name not in known and not is_own(spec.name):
            raise UnknownName(kind, spec.name, [*more, *known], OWN)


def _bare(spec: RewardSpec) -> RewardSpec:
    return RewardSpec(spec.name, spec.weight, spec.args)
