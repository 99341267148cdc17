"""Guidance that silently does nothing is the field's commonest fault. Here it is an error."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from pagopt.device import HALF
from pagopt.errors import GuidanceError, ModelError
from pagopt.fork import Fork, SiteKey
from pagopt.models import Attention, Family
from pagopt.recipe import Recipe

__all__ = [
    "check_effect",
    "check_not_cached",
    "check_not_compiled",
    "check_processor",
    "check_reached",
    "warn_of_branches",
    "warn_of_scale",
]

# Two predictions that differ by no more than so many units in the last place, of the largest value, are the same.
ROUNDING = 16


def check_not_compiled(transformer: Any) -> None:
    """Make sure that hooks will run.

    Args:
        transformer: As it stands in the pipeline.

    Raises:
        GuidanceError: If it, or a part of it, was compiled otherwise than by :func:`pagopt.compiled.compile_blocks`.
    """
    for module in (transformer, *transformer.modules()):
        if hasattr(module, "_orig_mod") or getattr(module, "_compiled_call_impl", None) is not None:
            raise GuidanceError(
                "the transformer was compiled by torch.compile, and compiled code runs no hooks that come later: load "
                "the pipeline again and use pagopt.compile_blocks(pipe)"
            )


def check_not_cached(transformer: Any) -> None:
    """Make sure that every block runs in every step.

    Raises:
        GuidanceError: If diffusers keeps outputs of an earlier step (``enable_cache``).
    """
    if getattr(transformer, "is_cache_enabled", False):
        raise GuidanceError(
            "diffusers' cache is on, which takes blocks from an earlier step instead of running them, and they know "
            "nothing of perturbed rows: call pipe.transformer.disable_cache() first"
        )


def check_processor(family: Family, attention: Attention) -> None:
    """Make sure that an attention is computed in a way that is known.

    Raises:
        GuidanceError: If its processor is another.
    """
    try:
        family.check_processor(attention)
    except ModelError as error:
        raise GuidanceError(str(error)) from error


def check_reached(fork: Fork, sample: Tensor, reached: Callable[[SiteKey], bool]) -> None:
    """Make sure that every site was moved, and that the copies came through, after a forward.

    Args:
        fork: The plan of the forward.
        sample: What the transformer returned, (rows and copies, ...).
        reached: Whether a site was.

    Raises:
        GuidanceError: If not.
    """
    for block, site in sorted(fork.sites):
        if not reached((block, site)):
            raise GuidanceError(f"the perturbed site {site} of block L{block} was never reached in the forward pass")
    if sample.shape[0] != fork.rows + len(fork):
        raise GuidanceError(
            f"the transformer returned {sample.shape[0]} rows where {fork.rows} and {len(fork)} perturbed ones "
            "were expected: its blocks do not run through their hooks"
        )


def check_effect(
    fork: Fork, images: Sequence[int], plain: Tensor, perturbed: Tensor, idle: Callable[[int], object] | None = None
) -> None:
    """Make sure that the perturbed predictions differ from the plain ones, by more than rounding.

    One computation in two rows of a batch differs by a few units in the last place (up to 4 were seen in float32, and
    in float64), a head with a strength of 1e-4 by dozens. In half precision no such line can be drawn: there only
    predictions that are the same bit for bit are.

    Args:
        fork: The plan of the forward.
        images: Number of the image that each copy is for.
        plain: Predictions, (copies, ...).
        perturbed: The same with perturbed heads.
        idle: Called with the number of each image whose predictions are the same; without it that is an error.

    Raises:
        GuidanceError: If one is the same.
    """
    units = 0 if plain.dtype in HALF else ROUNDING * torch.finfo(plain.dtype).eps
    away, largest = (each.abs().flatten(1).amax(dim=1) for each in (plain - perturbed, plain))
    same = (away <= units * largest).tolist()
    for image, recipe, unchanged in zip(images, fork.recipes, same, strict=True):
        if unchanged and idle is not None:
            idle(image)
        elif unchanged:
            advice = "other heads" if min(recipe.strengths) == 1 else "a larger strength or other heads"
            raise GuidanceError(
                f"perturbing {' '.join(map(str, recipe.heads))} with strength {recipe.strength} changes nothing in the "
                f"prediction for image {image} (in {str(plain.dtype).removeprefix('torch.')}): take {advice}"
            )


def warn_of_branches(recipes: Sequence[Recipe], doubled: bool) -> bool:
    """Warn if a recipe was made with classifier-free guidance and the pipeline runs without, or the other way round.

    For pipelines that do it in two calls of the transformer: they keep the scale to themselves.

    Args:
        recipes: In use.
        doubled: Whether the pipeline makes an unconditional prediction too.

    Returns:
        Whether it did.
    """
    for recipe in recipes:
        if recipe.cfg is not None and (recipe.cfg > 1) != doubled:
            made = f"with a scale of {recipe.cfg:g} of" if recipe.cfg > 1 else "without"
            runs, do = ("with", "leave out") if doubled else ("without", "pass")
            warnings.warn(
                f"the recipe was made {made} classifier-free guidance, but the pipeline runs {runs} it: {do} its scale "
                "and the negative prompt to get what was searched",
                stacklevel=2,
            )
            return True
    return False


def warn_of_scale(recipes: Sequence[Recipe], cfg: float, offset: float) -> bool:
    """Warn if a recipe was made for another scale of classifier-free guidance than the pipeline's; whether it did.

    Args:
        recipes: In use.
        cfg: The pipeline's scale ``g``.
        offset: What ``g`` is above the pipeline's own number, see :attr:`pagopt.models.Family.scale_offset`.
    """
    for recipe in recipes:
        if recipe.cfg is not None and not math.isclose(recipe.cfg, cfg):
            fitting = recipe.cfg - offset
            warnings.warn(
                f"the recipe was made for guidance_scale={fitting:g}, but the pipeline runs with {cfg - offset:g}: "
                f"pass guidance_scale={fitting:g} to get what was searched",
                stacklevel=2,
            )
            return True
    return False
