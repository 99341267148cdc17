"""What an atlas draws: every head of a model alone, all with the same prompts and seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from pagopt import checked
from pagopt.errors import StudyError
from pagopt.heads import Head, HeadMap
from pagopt.models import Weights, check_model
from pagopt.recipe import STRAIGHT, Recipe
from pagopt.reward import RewardSpec, check_terms, specs_of
from pagopt.targets import make_target
from pagopt.task import Task

__all__ = ["EXAMPLES", "Atlas"]

EXAMPLES = ("flat, red apple", "glossy, cat face")
"""Prompts that the embedded model draws where none are given."""

STRIDE = 100_000
"""Between the first and the second seed of a prompt."""


@dataclass(frozen=True)
class Atlas:
    """What to draw: every head alone (and every layer), with the same prompts and seeds.

    Args:
        prompts: Whole prompts, all different. Empty for two examples, which the embedded model has.
        model: "emoji" (shipped), "sd3-medium", a folder in diffusers format, a hub id, or
            "file.py:function", which makes the pipeline.
        heads: The heads to draw, such as "L2-5.H*"; "*" is all.
        layers: Whole layers, too: all heads of a block at once, as in perturbed-attention guidance.
        seeds: How many seeds each prompt is drawn with.
        first_seed: Seed `j` of prompt `i` (both from 0) is `first_seed + 100000 j + i`.
        rewards: What to measure beside the looks of the pictures: rewards, or their names.
        target: What the attention map of a perturbed head is pulled to: identity, image_identity, image_to_image,
            uniform, mean_query, blur, temperature, row_maximum, or one that a package adds.
        target_options: Options of the target, such as `sigma: 2` for blur.
        path: How the map gets there as the strength grows: straight, fisher_rao or log_linear.
        strength: How far, from 0 (not at all) to 1 (the target itself); u of the paper.
        scale: Guidance scale w: how far to steer away from the perturbed prediction.
        cfg: Classifier-free guidance scale g, of the pictures without perturbation, too; 1 is off.
        interval: First and last (exclusive) step with guidance, as fractions of the steps.
        steps: Inference steps.
        height: Pixels; default: as the model likes it.
        width: Pixels; default: as the model likes it.
        distilled_guidance: The guidance scale that a distilled model such as FLUX.1-dev takes as an input.
        compile: Compile the model's blocks: a slow start, then faster.
        dtype: Number format of the weights: float32, bfloat16, float16; default: as trainer.precision says, or float32
            (bfloat16 with `quantize`).
        quantize: Hold the linear layers of the transformer and of large text encoders in eight bits: int8, float8, or
            float8_dynamic (needs torchao: `pip install 'pagopt[quantize]'`).

    Raises:
        StudyError: If there is nothing to draw, or it makes no sense.
        RecipeError: If a setting of the guidance is out of its range.
        UnknownName: If there is no such target, option or path.
    """

    prompts: Sequence[str] = ()
    model: str = "emoji"
    heads: str = "*"
    layers: bool = True
    seeds: int = 1
    first_seed: int = 0
    rewards: Sequence[RewardSpec | str] = ()
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

    def __post_init__(self) -> None:
        if not self.prompts:
            if self.model != "emoji":
                check_model(self.model)  # a slip in the name comes first
                raise StudyError(f"nothing to draw: give at least one prompt for {self.model}")
            object.__setattr__(self, "prompts", EXAMPLES)
        for number, prompt in enumerate(self.prompts):
            if not isinstance(prompt, str) or not prompt.strip():
                raise StudyError(f"the prompts hold {prompt!r}, which is no prompt")
            if prompt in self.prompts[:number]:
                raise StudyError(f"the prompts hold {prompt!r} twice: for more pictures of a prompt there are seeds")
        if self.seeds < 1:
            raise StudyError(f"seeds must be at least 1, not {self.seeds}: it is how many seeds each prompt gets")
        object.__setattr__(self, "first_seed", checked.seed(self.first_seed, "first_seed"))
        if self.scale == 0 or self.strength == 0:
            raise StudyError("with a scale or a strength of 0 no head does anything")
        check_terms(self.specs)
        Weights.asked(self.dtype, self.quantize)
        self.recipe().replace(heads="L0.H0").active_steps(self.steps)
        make_target(self.target, self.target_options, self.path)

    @property
    def specs(self) -> list[RewardSpec]:
        """The rewards."""
        return specs_of(self.rewards)

    def recipe(self) -> Recipe:
        """Everything but the heads."""
        return Recipe(
            strength=self.strength,
            target=self.target,
            target_options=self.target_options,
            path=self.path,
            scale=self.scale,
            cfg=self.cfg,
            interval=self.interval,
        )

    def tasks(self) -> list[Task]:
        """What is drawn under every head, prompt by prompt."""
        return [
            Task(prompt, self.first_seed + STRIDE * j + i)
            for i, prompt in enumerate(self.prompts)
            for j in range(self.seeds)
        ]

    def entries(self, heads: HeadMap) -> dict[str, tuple[Head, ...]]:
        """What is perturbed, by name: every head, "L4.H2", and then every layer that holds one of them, "L4".

        Raises:
            UnknownName: If the model has no such heads.
            RecipeError: If ``heads`` is no expression.
        """
        pool = heads.select(self.heads)
        found: dict[str, tuple[Head, ...]] = {str(head): (head,) for head in pool}
        if self.layers:
            found |= {f"L{block}": heads.layer(block) for block in sorted({head.block for head in pool})}
        return found

    def recipes(self, entries: Mapping[str, tuple[Head, ...]]) -> list[Recipe]:
        """What every task is drawn with: no guidance, and then every entry."""
        return [Recipe(scale=0.0, cfg=self.cfg), *(self.recipe().replace(heads=heads) for heads in entries.values())]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for YAML and JSON."""
        rewards = [spec.to_dict() for spec in self.specs]
        return {**asdict(self), "prompts": list(self.prompts), "interval": list(self.interval), "rewards": rewards}
