"""What is to be compared, on which prompts and seeds, and why some are refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pagopt import checked
from pagopt.comparison.entrants import Entrant
from pagopt.errors import StudyError
from pagopt.models import Weights, is_own_model
from pagopt.own_code import refusal
from pagopt.recipe import Recipe
from pagopt.reward import RewardSpec, check_terms, code_in, specs_of
from pagopt.task import Task

__all__ = ["CFG_SCALES", "Comparison", "read_prompts"]

Value = TypeVar("Value", int, str)

CFG_SCALES = (1.5, 2.0, 3.0, 4.0, 6.0)
NONE = "none"
STRIDE = 100_000
"""Between the first and the second seed of a prompt."""
FURTHER = 10**9
"""Between the seed of a task and that of a further picture for best-of-N."""


@dataclass(frozen=True)
class Comparison:
    """Recipes against their baselines.

    Attributes:
        entrants: The recipes, at least one, all different.
        prompts: Whole prompts, all different, none that a search used.
        seeds: How many seeds each prompt is drawn with, at least 1. Seed ``j`` of prompt ``i`` (both from 0) is
            ``first_seed + 100000 j + i``, so that no two pictures share their noise.
        first_seed: At least 0.
        rewards: What to judge by. The first chooses: the best layer and the best of N. Empty for what the searches
            maximised.
        tuning_prompts: Prompts to choose the baselines on, with the seeds 0, 1, 2, ...; empty for the searches' own
            tasks.
        cfg_scales: Scales of classifier-free guidance to choose from, each above 1; empty for none.
        compare_layers: Compare with the best single layer.
        best_of: Compare with the best of as many unguided pictures as each recipe pays for.
        model: Where to draw; ``None`` for the model of the recipes.
        steps: Inference steps; ``None`` as the recipes were found.
        height: Pixels; ``None`` as the model likes it.
        width: Pixels; ``None`` as the model likes it.
        distilled_guidance: As in a study.
        compile: As in a study.
        dtype: As in a study; ``None`` as the recipes were found.
        quantize: The same; "none" for none although they were found so.
        reference: A folder of pictures to measure distances to, if any.
        features: The reward whose features are compared then; ``None`` for the first of ``rewards`` that has any.
        allow_seen: Go on with prompts or seeds that a search used, and say so.
        allow_other_model: Go on with another model than the recipes were found on, and say so.

    Raises:
        StudyError: If it makes no sense, with what to do about it.
        RecipeError: If a recipe's evidence is damaged.
        RewardError: If there are no rewards.
    """

    entrants: Sequence[Entrant]
    prompts: Sequence[str]
    seeds: int = 1
    first_seed: int = 100_000
    rewards: Sequence[RewardSpec] = ()
    tuning_prompts: Sequence[str] = ()
    cfg_scales: Sequence[float] = CFG_SCALES
    compare_layers: bool = True
    best_of: bool = True
    model: str | None = None
    steps: int | None = None
    height: int | None = None
    width: int | None = None
    distilled_guidance: float | None = None
    compile: bool = False
    dtype: str | None = None
    quantize: str | None = None
    reference: str | Path | None = None
    features: RewardSpec | None = None
    allow_seen: bool = False
    allow_other_model: bool = False

    def __post_init__(self) -> None:
        self._check_entrants()
        _check_prompts(self.prompts, "the prompts")
        _check_prompts(self.tuning_prompts, "the tuning prompts")
        if self.seeds < 1:
            raise StudyError(f"seeds must be at least 1, not {self.seeds}: it is how many seeds each prompt gets")
        object.__setattr__(self, "first_seed", checked.seed(self.first_seed, "first_seed"))
        if len(self.tasks()) < 2:
            raise StudyError(
                f"a comparison takes at least 2 tasks, and there is {len(self.tasks())}: give more prompts, or more "
                "--seeds for each. Below about 20 prompts the intervals are wide"
            )
        scales = self.cfg_scales
        if len({f"{scale:g}" for scale in scales}) < len(scales) or any(not scale > 1 for scale in scales):
            raise StudyError(f"cfg_scales must be different and above 1 (1 is no guidance), not {self.cfg_scales}")
        if self.features is not None and self.reference is None:
            raise StudyError("features are for distances to reference pictures: give --reference FOLDER, too")
        check_terms(self.specs())
        for entrant in self.entrants:
            entrant.recipe.active_steps(self.drawn_steps())
        if not self.allow_seen:
            self._refuse_seen()

    def specs(self) -> list[RewardSpec]:
        """The rewards; by default what the searches maximised, each once.

        Raises:
            StudyError: If no recipe says, or one names code: a recipe file may come from anywhere.
        """
        if self.rewards:
            return specs_of(self.rewards)
        found: list[RewardSpec] = []
        for label, spec in ((entrant.label, spec) for entrant in self.entrants for spec in entrant.objective()):
            if code := code_in(spec):
                raise refusal(f"the recipe {label} was found for", code, "--reward")
            if not any((spec.name, spec.args) == (other.name, other.args) for other in found):
                found.append(spec)
        if not found:
            raise StudyError("no recipe says what it was found for: give at least one --reward, see `pagopt rewards`")
        return found

    def tasks(self) -> list[Task]:
        """What every method draws, prompt by prompt."""
        return [
            Task(prompt, self.first_seed + STRIDE * j + i)
            for i, prompt in enumerate(self.prompts)
            for j in range(self.seeds)
        ]

    def further(self, task: Task, count: int) -> list[Task]:
        """A task and others of its prompt, ``count`` in all, for best-of-N."""
        return [Task(task.prompt, task.seed + FURTHER * number) for number in range(count)]

    def tuning_tasks(self) -> list[Task]:
        """What the baselines are chosen on; empty where no recipe says what its search used."""
        if self.tuning_prompts:
            return [Task(prompt, seed) for seed, prompt in enumerate(self.tuning_prompts)]
        return list(dict.fromkeys(task for entrant in self.entrants for task in entrant.searched()))

    def drawn_steps(self) -> int:
        """Inference steps.

        Raises:
            StudyError: If the recipes do not agree, or none says.
        """
        if self.steps is not None:
            if self.steps < 1:
                raise StudyError(f"steps must be at least 1, not {self.steps}")
            return self.steps
        return _agreed("steps", {entrant.label: entrant.steps() for entrant in self.entrants})

    def drawn_model(self) -> str:
        """Name of the model.

        Raises:
            StudyError: If the recipes do not agree, or none says, or they name code.
        """
        if self.model is not None:
            return self.model
        models = {e.label: e.provenance.model if e.provenance else None for e in self.entrants}
        model = _agreed("model", models)
        if is_own_model(model):
            raise refusal(f"the recipe {next(iter(models))} was found on the model of", model, "--model")
        return model

    def asked_weights(self, dtype: str | None = None) -> tuple[str | None, str | None]:
        """How the model's weights are to be held, and quantised; a model of the user's own is asked only what is given.

        Args:
            dtype: What the Trainer's precision says, if anything.

        Raises:
            StudyError: If the recipes do not agree.
            UnknownName: If there is no such dtype or quantization.
        """
        dtype, quantize = dtype or self.dtype, self.quantize
        if is_own_model(self.drawn_model()):
            return dtype, None if quantize == NONE else quantize
        found = {entrant.label: Weights.of(entrant.provenance) for entrant in self.entrants}
        dtype = dtype or _agreed("dtype", {label: one.dtype for label, one in found.items()})
        quantize = quantize or _agreed("quantize", {label: one.quantize or NONE for label, one in found.items()})
        return dtype, None if quantize == NONE else quantize

    def layers_of(self) -> dict[str, Recipe]:
        """The recipes' settings without their heads, each once, by the label of the first recipe that has them.

        A single layer is tried with these; of several strengths with their mean.
        """
        found: dict[Recipe, str] = {}
        for entrant in self.entrants:
            strengths = [strength for strength in entrant.recipe.strengths if strength > 0]
            base = entrant.recipe.replace(heads=(), strength=sum(strengths) / len(strengths))
            found.setdefault(base, entrant.label)
        return {label: base for base, label in found.items()}

    def _check_entrants(self) -> None:
        if not self.entrants:
            raise StudyError("nothing to compare: give at least one recipe file")
        for number, entrant in enumerate(self.entrants):
            if entrant.recipe.is_plain:
                raise StudyError(f"the recipe {entrant.label} does nothing: it has no heads, or scale or strength 0")
            for other in self.entrants[:number]:
                if entrant.recipe == other.recipe:
                    raise StudyError(f"{other.label} and {entrant.label} are the same recipe; give it once")
                if entrant.label == other.label:
                    raise StudyError(f"two recipes are called {entrant.label}; give them different names")

    def _refuse_seen(self) -> None:
        known = {_plain(prompt) for prompt in self.tuning_prompts}
        seen = [prompt for prompt in self.prompts if _plain(prompt) in known]
        if seen:
            raise StudyError(
                f"{len(seen)} of the prompts are among the tuning prompts, too: {_some(seen)}. The baselines are "
                "chosen on those, so leave them out of one file; --allow_seen compares all the same"
            )
        for entrant in self.entrants:
            searched = entrant.searched()
            used = {_plain(task.prompt) for task in searched}
            seen = [prompt for prompt in self.prompts if _plain(prompt) in used]
            if seen:
                raise StudyError(
                    f"the search of recipe {entrant.label} has used {len(seen)} of the {len(self.prompts)} prompts: "
                    f"{_some(seen)}. What it was chosen on flatters it: take these out of the file. --allow_seen "
                    "compares all the same and says so"
                )
            seeds = {task.seed for task in searched} & {task.seed for task in self.tasks()}
            if seeds:
                raise StudyError(
                    f"the search of recipe {entrant.label} has used the seed {min(seeds)}, that is the same noise: "
                    f"give another --first_seed, such as {max(task.seed for task in searched) + 1}. --allow_seen "
                    "compares all the same and says so"
                )


def read_prompts(path: str | Path) -> list[str]:
    """A prompt a line, in UTF-8; empty lines and lines that begin with ``#`` are left out.

    Raises:
        StudyError: If the file cannot be read, holds no prompt, or one twice.
    """
    try:
        lines = Path(path).read_bytes().decode("utf-8-sig").split("\n")
    except OSError as error:
        raise StudyError(f"cannot read the prompts in {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise StudyError(f"cannot read the prompts in {path}: it is no text in UTF-8 ({error.reason})") from error
    found: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        prompt = line.strip()
        if not prompt or prompt.startswith("#"):
            continue
        if prompt in found:
            raise StudyError(
                f"{path} has the prompt {prompt!r} in lines {found[prompt]} and {number}: keep one. For more pictures "
                "of every prompt there is --seeds"
            )
        found[prompt] = number
    if not found:
        raise StudyError(f"{path} holds no prompt: write one a line")
    return list(found)


def _agreed(what: str, said: Mapping[str, Value | None]) -> Value:
    """The one value that the recipes name, by their labels."""
    values = [value for value in dict.fromkeys(said.values()) if value is not None]
    if not values:
        raise StudyError(f"no recipe says with which {what} it was found: give --{what}")
    if len(values) > 1:
        each = ", ".join(f"{label}: {value}" for label, value in said.items())
        raise StudyError(f"the recipes were found with different {what} ({each}): give one --{what} for all")
    return values[0]


def _check_prompts(prompts: Sequence[str], what: str) -> None:
    known: dict[str, str] = {}
    for prompt in prompts:
        if not isinstance(prompt, str) or not prompt.strip():
            raise StudyError(f"{what} hold {prompt!r}, which is no prompt")
        if _plain(prompt) in known:
            raise StudyError(f"{what} hold {prompt!r} twice (case and spaces apart); keep one")
        known[_plain(prompt)] = prompt


def _plain(prompt: str) -> str:
    """Without what makes no other prompt: case and spaces."""
    return " ".join(prompt.casefold().split())


def _some(prompts: Sequence[str]) -> str:
    shown = ", ".join(repr(prompt) for prompt in prompts[:5])
    return shown + (f" and {len(prompts) - 5} more" if len(prompts) > 5 else "")
