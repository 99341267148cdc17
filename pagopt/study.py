"""A study: what to search for, on which model, with which prompts. One YAML file, or options of the command line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib import resources
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from pagopt import checked
from pagopt.combine import combination
from pagopt.errors import StudyError, UnknownName
from pagopt.heads import Head
from pagopt.models import Weights, own_source
from pagopt.recipe import STRAIGHT, Recipe
from pagopt.reward import RewardSpec, check_terms, own_keys, specs_of
from pagopt.search import Racing, Search, make_search
from pagopt.search.budget import Budget
from pagopt.targets import make_target
from pagopt.task import Task

__all__ = ["Study", "available_studies", "find_study"]


@dataclass(frozen=True)
class Study:
    """What to search for, on which model, with which prompts.

    Args:
        prompts: Contents to draw, such as "red apple". Every candidate draws all of them.
        reward: The objective: a reward's name, or a list of names, or of rewards with `name`, `weight` and `args`, and
            for some combinations `at_least`, `at_most` or `tolerance`. Several are measured in standard deviations of
            the unguided images and combined.
        combine: How several rewards are combined: "sum" (weighted), "harmonic" (good by all at once), "thresholds"
            (the best among those whose rewards with `at_least` or `at_most` keep to it: a number, "baseline", or such
            as "baseline - 0.5 sd"), "lexicographic" (in the order of the list, equal within a `tolerance`: a number,
            "0.5 sd" or "1 se"), "pareto" (fronts that nothing beats by all rewards, then the sum).
        model: "emoji" (shipped), "sd3-medium", a folder in diffusers format, a hub id, or "file.py:function", which
            makes the pipeline.
        style: Put before every prompt as "style, content"; empty for none.
        seeds: One seed for each prompt; default 0, 1, 2, ...
        held_out_prompts: Contents that the search never sees, for the comparison at the end.
        held_out_seeds: One seed for each of them; default 1000, 1001, ...
        watch: Further rewards, a name or a list, that are reported at the end, but not optimised.
        heads: The heads to choose from, such as "L2-5.H*"; "*" is all.
        search: Which algorithm: "exhaustive" (the paper's: every head in every round), "racing" (the same rounds for a
            part of the images), "layers" (whole layers, as in PAG), "lookahead" (pairs of heads), "random" (random
            subsets), "refinement" (racing, then taking out and exchanging heads).
        search_options: Options of that algorithm, such as `share: 0.25` or `seed: 1` for racing.
        budget: What the run may cost, as "500-images" or "2h"; a race plans with it, every search stops at its best
            recipe so far when it is used up.
        rounds: Rounds of the greedy search (R of the paper).
        heads_per_round: Heads added in each round (k of the paper).
        target: What the attention map of a perturbed head is pulled to: identity, image_identity, image_to_image,
            uniform, mean_query, blur, temperature, row_maximum, or one that a package adds.
        target_options: Options of the target, such as `sigma: 2` for blur.
        path: How the map gets there as the strength grows: straight, fisher_rao or log_linear.
        strength: How far, from 0 (not at all) to 1 (the target itself); u of the paper.
        scale: Guidance scale w: how far to steer away from the perturbed prediction.
        cfg: Classifier-free guidance scale g during the search; 1 is off.
        interval: First and last (exclusive) step with guidance, as fractions of the steps.
        steps: Inference steps.
        height: Pixels; default: as the model likes it.
        width: Pixels; default: as the model likes it.
        distilled_guidance: The guidance scale that a distilled model such as FLUX.1-dev takes as an input.
        compile: Compile the model's blocks: a slow start, then faster; the images stay the same up to rounding.
        dtype: Number format of the weights: float32, bfloat16, float16; default: as trainer.precision says, or float32
            (bfloat16 with `quantize`).
        quantize: Hold the linear layers of the transformer and of large text encoders in eight bits: int8, float8, or
            float8_dynamic, which computes in them, too (needs torchao: `pip install 'pagopt[quantize]'`).
        cfg_scales: The CFG scales to compare with; the best on the search's own tasks is taken. Empty for none.
        compare_layers: Compare with the best single layer, too (all heads of one layer, as in PAG).
    """

    prompts: list[str]
    reward: list[RewardSpec | str] | str
    combine: str = "sum"
    model: str = "emoji"
    style: str = ""
    seeds: list[int] | None = None
    held_out_prompts: list[str] = field(default_factory=list)
    held_out_seeds: list[int] | None = None
    watch: list[RewardSpec | str] | str = field(default_factory=list)
    heads: str = "*"
    search: str = "exhaustive"
    search_options: dict[str, int | float | bool | None] = field(default_factory=dict)
    budget: str | None = None
    rounds: int = 5
    heads_per_round: int = 3
    target: str = "identity"
    target_options: dict[str, float | str] = field(default_factory=dict)
    path: str = STRAIGHT
    strength: float = 1.0
    scale: float = 3.0
    cfg: float = 1.0
    interval: tuple[float, float] = (0.0, 1.0)
    steps: int = 20
    height: int | None = None
    width: int | None = None
    distilled_guidance: float | None = None
    compile: bool = False
    dtype: str | None = None
    quantize: str | None = None
    cfg_scales: list[float] = field(default_factory=lambda: [1.5, 2.0, 3.0])
    compare_layers: bool = True

    def __post_init__(self) -> None:
        if not self.prompts:
            raise StudyError("prompts is empty: give at least one prompt to search on")
        if not self.specs:
            raise StudyError("reward is empty: give at least one reward, see `pagopt rewards`")
        check_terms(self.specs, self.combine)
        check_terms(self.watched)
        for name in ("prompts", "held_out_prompts"):
            for prompt in getattr(self, name):
                # An empty prompt is meant: it draws without one. A blank is a slip.
                if not isinstance(prompt, str) or (prompt and not prompt.strip() and not self.style):
                    raise StudyError(f"{name}: {prompt!r} is no prompt")
        for name, prompts in (("seeds", self.prompts), ("held_out_seeds", self.held_out_prompts)):
            seeds = getattr(self, name)
            if seeds is not None and len(seeds) != len(prompts):
                raise StudyError(f"{name} needs one seed for each of the {len(prompts)} prompts, not {len(seeds)}")
            if seeds is not None:
                object.__setattr__(self, name, [checked.seed(seed, f"each of {name}") for seed in seeds])
        if any(not scale > 1 for scale in self.cfg_scales):
            raise StudyError(f"cfg_scales must be above 1 (1 is no guidance), not {self.cfg_scales}")
        for prompt, seed in sorted(set(self.tasks()) & set(self.held_out_tasks())):
            raise StudyError(f"held-out tasks must be new to the search, but it sees {prompt!r} with seed {seed}")
        self.searcher()
        Weights.asked(self.dtype, self.quantize)
        if self.search in {"racing", "refinement"} and len(self.specs) > 1 and not combination(self.combine).additive:
            raise StudyError(
                f"{self.search} compares recipes picture by picture, and combine: {self.combine} ranks them by the "
                "means of all their pictures; take search: exhaustive, or combine: sum or harmonic"
            )
        if self.budget is not None:
            Budget.parse(self.budget)
        if not self.recipe().is_plain:
            raise AssertionError("a study's recipe has no heads yet")
        self.recipe().replace(heads="L0.H0").active_steps(self.steps)
        make_target(self.target, self.target_options, self.path)

    @property
    def specs(self) -> list[RewardSpec]:
        """The objective as a list."""
        return specs_of(self.reward)

    @property
    def watched(self) -> list[RewardSpec]:
        """What is reported beside it."""
        return specs_of(self.watch)

    def own_code(self) -> list[str]:
        """What tells whether something of the user's own has changed: keys of rewards, the digest of a model's code.

        Raises:
            RewardError: If such a reward cannot be loaded.
            ModelError: If the file of such a model cannot be read.
        """
        return [*own_keys([*self.specs, *self.watched]), *filter(None, [own_source(self.model)])]

    def recipe(self) -> Recipe:
        """The recipe that the search starts from: everything but the heads."""
        return Recipe(
            heads=(),
            strength=self.strength,
            target=self.target,
            target_options=self.target_options,
            path=self.path,
            scale=self.scale,
            cfg=self.cfg,
            interval=self.interval,
        )

    def searcher(self) -> Search:
        """The algorithm, with its options; a first look takes a whole number of steps.

        Raises:
            StudyError: If an option is wrong.
        """
        searcher = make_search(self.search, self.rounds, self.heads_per_round, self.search_options)
        if not isinstance(searcher, Racing) or searcher.cheap is None:
            return searcher
        steps = max(1, round(searcher.cheap * self.steps))
        if steps == self.steps:
            raise StudyError(
                f"cheap: {searcher.cheap} of {self.steps} steps is all of them; take less, more steps, or leave it out"
            )
        return replace(searcher, cheap=steps / self.steps)

    def tasks(self) -> list[Task]:
        """Prompts and seeds that the search sees."""
        seeds = self.seeds if self.seeds is not None else range(len(self.prompts))
        return [Task(self._prompt(content), seed) for content, seed in zip(self.prompts, seeds, strict=True)]

    def held_out_tasks(self) -> list[Task]:
        """Prompts and seeds that it never sees."""
        prompts = self.held_out_prompts
        seeds = self.held_out_seeds if self.held_out_seeds is not None else range(1000, 1000 + len(prompts))
        return [Task(self._prompt(content), seed) for content, seed in zip(prompts, seeds, strict=True)]

    def images(self, pool: Sequence[Head]) -> dict[str, int]:
        """How many images each part of its run looks at, at most, in the order of the run.

        Args:
            pool: The heads to choose from.

        Returns:
            By stage: "no guidance", "CFG", "single layers", "search", "held-out tasks".

        Raises:
            StudyError: If the search cannot choose from these heads on these prompts.
        """
        tasks, searcher = len(self.prompts), self.searcher()
        layers = len({head.block for head in pool})
        images = {
            "no guidance": tasks,
            "CFG": len(self.cfg_scales) * tasks,
            "single layers": layers * tasks if self.compare_layers else 0,
            "search": searcher.images(pool, tasks),
            "held-out tasks": (2 + bool(self.cfg_scales) + self.compare_layers) * len(self.held_out_prompts),
        }
        budget = Budget.parse(self.budget).images if self.budget is not None else None
        if budget is not None:
            left = max(0, budget - sum(images.values()) + images["search"])
            images["search"] = left if isinstance(searcher, Racing) else min(images["search"], left)
        return images

    def to_dict(self) -> dict[str, Any]:
        """Plain data for YAML and JSON; ``Study(**...)`` of it through the command line's parser gives it back."""
        data = {**asdict(self), "interval": list(self.interval)}
        data["watch"] = [term.to_dict() for term in self.watched]
        if not isinstance(self.reward, str):
            data["reward"] = [term.to_dict() for term in self.specs]
        # What version 0.1.0 did not know is left out at its default: its folders belong to the same study.
        defaults = {"combine": "sum", "search": "exhaustive", "search_options": {}}
        for name, default in {**defaults, **dict.fromkeys(("budget", "dtype", "quantize"))}.items():
            if data[name] == default:
                del data[name]
        return data

    def _prompt(self, content: str) -> str:
        return ", ".join(part for part in (self.style, content) if part)


def available_studies(group: str = "pagopt.studies") -> dict[str, Path]:
    """Names and files of the installed studies (entry points of the group ``pagopt.studies``)."""
    studies: dict[str, Path] = {}
    for entry in entry_points(group=group):
        for file in resources.files(entry.value).iterdir():
            if file.name.endswith(".yaml"):
                studies[file.name.removesuffix(".yaml")] = Path(str(file))
    return dict(sorted(studies.items()))


def find_study(name: str) -> Path:
    """The file of a shipped study by its name, or a path.

    Raises:
        UnknownName: If it is neither.
    """
    path = Path(name)
    if path.suffix in {".yaml", ".yml"} or path.parent != Path("."):
        if not path.is_file():
            raise StudyError(f"there is no study file {name}; shipped studies: {', '.join(available_studies())}")
        return path
    studies = available_studies()
    if name not in studies:
        raise UnknownName("study", name, studies, "A path to a YAML file works, too.")
    return studies[name]
