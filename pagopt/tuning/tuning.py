"""A tuning: a study's prompts and rewards, a recipe to start from, and what of it may vary."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pagopt.combine import combination
from pagopt.errors import StudyError, UnknownName
from pagopt.reward import RewardSpec, check_terms, specs_of
from pagopt.search.interface import check_whole
from pagopt.study import Study, available_studies
from pagopt.tuning.diversity import DIVERSITY, check_diversity
from pagopt.tuning.methods import check_pruner, check_sampler

__all__ = ["COST", "GROUP", "SPACE", "Tuning", "available_tunings", "find_tuning"]

GROUP = "pagopt.tunings"
COST = "cost"
"""The objective that is no reward: block evaluations for one picture, the fewer the better."""

SPACE = {"strength": [0.0, 1.0], "scale": {"low": 0.5, "high": 8.0, "log": True}}
"""What varies where nothing is said."""


@dataclass(frozen=True)
class Tuning:
    """What to tune.

    Args:
        study: Model, prompts, rewards, steps, and the CFG scales to compare with. What only a search needs is not used.
        recipe: Where to start: a recipe file, or heads such as "L7.H2 L4.H3", in the order in which they were found.
            Heads take target, strength, scale, cfg and interval from the study.
        space: What may vary: strength, scale, cfg, start, stop, leading, target, path, steps, or TARGET.OPTION. Each a
            fixed value, a range [low, high], or a mapping; see docs/tune.md.
        trials: How many, in all; the same command with more goes on.
        at_once: Trials that are asked for together, so that their pictures fill batches.
        sampler: Which trials to try: tpe, random, gp, qmc.
        sampler_options: Options of Optuna's sampler, such as `n_startup_trials: 20`.
        pruner: When to stop a trial early: wilcoxon, median, percentile, halving, hyperband, or none.
        pruner_options: Options of Optuna's pruner, such as `p_threshold: 0.05`.
        rungs: After how many tasks to look whether a trial goes on, such as [6, 12]; default a quarter and a half.
        objectives: What else to optimise beside the reward: "cost" (block evaluations), "diversity" (how much pictures
            of one prompt differ), or rewards.
        constraints: Rewards, or diversity, with `at_least` or `at_most` that the result has to keep to.
        tuning_seed: Of the sampler, and of the order of tasks.
        allow_other_model: Take a recipe that was found on another model.
    """

    study: Study
    recipe: str = ""
    space: dict[str, Any] = field(default_factory=lambda: dict(SPACE))
    trials: int = 40
    at_once: int = 4
    sampler: str = "tpe"
    sampler_options: dict[str, Any] = field(default_factory=dict)
    pruner: str = "wilcoxon"
    pruner_options: dict[str, Any] = field(default_factory=dict)
    rungs: list[int] | None = None
    objectives: list[RewardSpec | str] = field(default_factory=list)
    constraints: list[RewardSpec] = field(default_factory=list)
    tuning_seed: int = 0
    allow_other_model: bool = False

    def __post_init__(self) -> None:
        for name, least in (("trials", 1), ("at_once", 1), ("tuning_seed", 0)):
            check_whole(name, getattr(self, name), least)
        if not isinstance(self.recipe, str):
            raise StudyError(
                f"recipe is a {type(self.recipe).__name__}, and has to be text, which the report names: heads such as "
                "'L7.H2 L4.H3', or the path of a recipe file. Save a Recipe, as recipe.save('start.json'), and give "
                "'start.json'"
            )
        if not self.recipe:
            raise StudyError(
                "there is nothing to tune: give a recipe, a file such as runs/flat/recipe.json or heads such "
                "as 'L7.H2 L4.H3'"
            )
        if len(self.study.specs) > 1 and not combination(self.study.combine).additive:
            raise StudyError(
                f"a tuning needs one number for each picture, and combine: {self.study.combine} gives none; take sum "
                "or harmonic, or give further rewards as `objectives` or `constraints`"
            )
        check_terms(self.further)
        for spec in self.constraints:
            if (spec.at_least is None) == (spec.at_most is None):
                raise StudyError(
                    f"the constraint {spec.name} needs either at_least or at_most, such as at_least: baseline"
                )
        for item in self.objectives:
            if isinstance(item, RewardSpec) and item.name == COST:
                raise StudyError(f"write the objective {COST} as a word, without a mapping")
        if self.diversity is not None:
            check_diversity(self.diversity, self.study.tasks(), self.study.held_out_tasks())
            asked = [spec for spec in (*self.optimised, *self.constraints) if spec.name == DIVERSITY]
            twice = sum(spec.name == DIVERSITY for spec in self.optimised) > 1
            if twice or any(spec.args != self.diversity.args for spec in asked):
                raise StudyError(
                    f"{DIVERSITY} is measured in one way: name it once among the objectives, and with the same args "
                    "among the constraints"
                )
        check_sampler(self.sampler, self.sampler_options)
        check_pruner(self.pruner, self.pruner_options)
        tasks = len(self.study.tasks())
        if tasks < 2:
            raise StudyError("a tuning needs at least 2 prompts: differences of recipes are measured over them")
        for rung in self.rungs or []:
            check_whole("rungs", rung, 1)
        if self.rungs is not None and (self.rungs != sorted(set(self.rungs)) or any(r > tasks for r in self.rungs)):
            raise StudyError(f"rungs are numbers of tasks, each above the last and at most {tasks}, not {self.rungs}")

    @property
    def optimised(self) -> list[RewardSpec]:
        """The objectives beside the study's, but for cost."""
        return specs_of(item for item in self.objectives if item != COST)

    @property
    def further(self) -> list[RewardSpec]:
        """The rewards beside the study's that are optimised too."""
        return [spec for spec in self.optimised if spec.name != DIVERSITY]

    @property
    def bounds(self) -> list[RewardSpec]:
        """The constraints on rewards."""
        return [spec for spec in self.constraints if spec.name != DIVERSITY]

    @property
    def diversity(self) -> RewardSpec | None:
        """How diversity is measured; ``None`` where it is neither objective nor constraint."""
        asked = [spec for spec in (*self.optimised, *self.constraints) if spec.name == DIVERSITY]
        return asked[0] if asked else None

    @property
    def costs(self) -> bool:
        """Whether cost is an objective."""
        return COST in self.objectives

    def slices(self) -> list[list[int]]:
        """Positions of the tasks in the order in which trials see them, cut where it is looked at.

        The order is drawn from the seed, since a list of prompts may be sorted.
        """
        tasks = len(self.study.tasks())
        order = np.random.default_rng(self.tuning_seed).permutation(tasks).tolist()
        if self.pruner == "none" or self.objectives:  # Optuna prunes with one objective only
            return [order]
        looks = self.rungs if self.rungs is not None else [max(4, -(-tasks // 4)), max(8, -(-tasks // 2))]
        ends = sorted({look for look in looks if look < tasks} | {tasks})
        return [order[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)]

    def describe(self) -> dict[str, Any]:
        """What makes trials comparable, as plain data: not how many there are, nor how many at once."""
        return {
            "space": self.space,
            "sampler": self.sampler,
            "sampler_options": self.sampler_options,
            "pruner": self.pruner,
            "pruner_options": self.pruner_options,
            "rungs": self.rungs,
            "objectives": [item if isinstance(item, str) else item.to_dict() for item in self.objectives],
            "constraints": [spec.to_dict() for spec in self.constraints],
            "tuning_seed": self.tuning_seed,
        }


def available_tunings() -> dict[str, Path]:
    """Names and files of the installed tunings (entry points of the group ``pagopt.tunings``)."""
    return available_studies(GROUP)


def find_tuning(name: str) -> Path:
    """The file of a shipped tuning or study by its name, or a path.

    Raises:
        StudyError: If there is no such file.
        UnknownName: If it is neither.
    """
    path = Path(name)
    if path.suffix in {".yaml", ".yml"} or path.parent != Path("."):
        if not path.is_file():
            raise StudyError(f"there is no tuning file {name}; shipped: {', '.join(available_tunings())}")
        return path
    known = {**available_studies(), **available_tunings()}
    if name not in known:
        raise UnknownName("tuning", name, known, "A path to a YAML file works, too.")
    return known[name]
