"""Guidance that silently does nothing is the field's commonest fault. Here it is an error."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pagopt.device import HALF
from pagopt.errors import GuidanceError, ModelError
from pagopt.fork import Fork, SiteKey
from pagopt.models import Attention, Family
from pagopt.recipe import Recipe

__all__ = [
    "check_effect",
    "check_hooked",
    "check_processor",
    "check_reached",
    "check_transformer",
    "warn_of_branches",
    "warn_of_scale",
]

# Two predictions that differ by no more than so many units in the last place, of the largest value, are the same.
ROUNDING = 16


# Hooks of diffusers' own that change where and in which dtype weights lie, and nothing that is computed.
_HARMLESS = {
    "group_offloading",
    "lazy_prefetch_group_offloading",
    "layer_execution_tracker",
    "layerwise_casting",
    "peft_autocast_disable",
}


def check_transformer(transformer: Any, modules: Iterable[nn.Module]) -> None:
    """Make sure that hooks will run, and that every block runs in every step on all tokens of a picture.

    Args:
        transformer: As it stands in the pipeline.
        modules: All of its own, and itself.

    Raises:
        GuidanceError: If it, or a part of it, was compiled otherwise than by :func:`pagopt.compiled.compile_blocks`; if
            diffusers keeps outputs of an earlier step (``enable_cache``, ``apply_first_block_cache`` and others),
            splits a picture over processes (``enable_parallelism``), or runs blocks again for gradients.
    """
    if getattr(transformer, "is_cache_enabled", False):
        raise GuidanceError(
            "diffusers' cache is on, which takes blocks from an earlier step instead of running them, and they know "
            "nothing of perturbed rows: call pipe.transformer.disable_cache() first"
        )
    if getattr(transformer, "_parallel_config", None) is not None:
        raise GuidanceError(
            "diffusers splits each picture over several GPUs (enable_parallelism), and a part of it knows neither the "
            "whole attention nor its means: load the pipeline without; searches spread pictures (--trainer.devices)"
        )
    if getattr(transformer, "gradient_checkpointing", False) and torch.is_grad_enabled():
        raise GuidanceError(
            "gradient checkpointing runs blocks a second time for their gradients, and the rows that guidance adds are "
            "gone by then: call pipe.transformer.disable_gradient_checkpointing(), or predict under torch.no_grad()"
        )
    for module in modules:
        if "_orig_mod" in module._modules or module._compiled_call_impl is not None:
            raise GuidanceError(
                "the transformer was compiled by torch.compile, and compiled code runs no hooks that come later: load "
                "the pipeline again and use pagopt.compile_blocks(pipe)"
            )
        registry = module.__dict__.get("_diffusers_hook")
        for name, hook in registry.hooks.items() if registry is not None else ():
            if type(hook).__module__.startswith("diffusers.") and name not in _HARMLESS:
                raise GuidanceError(
                    f"diffusers' hook {name!r} changes what runs in a {type(module).__name__}, and it knows nothing of "
                    "perturbed rows: load the pipeline again without it, or take it away "
                    f"(diffusers.hooks.HookRegistry.check_if_exists_or_initialize(pipe.transformer).remove_hook({name!r}))"
                )


def check_hooked(attention: Attention, current: Attention | None, before: str) -> None:
    """Make sure that the modules which are hooked are those that run.

    Args:
        attention: As it was when it was hooked.
        current: As it is now; ``None`` if it is no longer there.
        before: What the change should have come before.

    Raises:
        GuidanceError: If a module was replaced since, as by a LoRA, which wraps them.
    """
    same = current is not None and len(attention.hooked) == len(current.hooked)
    if current is None or not same or any(a is not b for a, b in zip(attention.hooked, current.hooked, strict=True)):
        raise GuidanceError(
            f"layers of {attention.site} in block L{attention.block} were replaced since (a LoRA loaded or removed, "
            f"projections fused?), and guidance would pass by the new ones: do that before {before}"
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
        GuidanceError: If one is the same, or not finite where the plain one is.
    """
    units = 0 if plain.dtype in HALF else ROUNDING * torch.finfo(plain.dtype).eps
    away, largest = (each.abs().flatten(1).amax(dim=1) for each in (plain - perturbed, plain))
    same = (away <= units * largest).tolist()
    broken = (largest.isfinite() & ~away.isfinite()).tolist()
    if any(broken):
        first = broken.index(True)
        target, options = fork.recipes[first].target, dict(fork.recipes[first].target_options)
        raise GuidanceError(
            f"the perturbed prediction for image {images[first]} is not finite, with target {target} {options}: "
            "take milder options, or float32"
        )
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
