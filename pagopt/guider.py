"""A recipe as a guider of diffusers' modular pipelines.

    pipe.update_components(guider=HeadPerturbationGuidance(recipe, guidance_scale=7.0))

The result is that of :func:`pagopt.guide.guided` around the stock pipeline:
``uncond + g (cond - uncond) + w (cond - pert)`` (paper, arXiv 2506.10978, Eq. 5).

The denoising loop of a modular pipeline calls the transformer once for every batch of its guider, here as for
classifier-free guidance: the conditional one, then the unconditional one. Inside the transformer the same hooks as
under ``guided`` make ``cond + w (cond - pert)`` of the first, and add the same ``w (cond - pert)`` to the second.
Everything else is diffusers' own classifier-free guidance, whose difference ``cond - uncond`` that does not touch.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

from diffusers.configuration_utils import register_to_config
from diffusers.guiders import ClassifierFreeGuidance
from torch import Tensor, nn

from pagopt.errors import GuidanceError, ModelError, RecipeError, UnknownName
from pagopt.guidance import Guidance
from pagopt.models import family_of
from pagopt.models.sampling import Sampling
from pagopt.recipe import Recipe
from pagopt.sites import under_guidance

__all__ = ["HeadPerturbationGuidance"]


class HeadPerturbationGuidance(ClassifierFreeGuidance):  # type: ignore[misc]
    """Guidance by the perturbed heads of a recipe, with or without classifier-free guidance.

    A guided step costs what it costs under ``guided``: the perturbed copies join the conditional batch at their first
    perturbed block ``l`` of ``L``, so that this batch takes ``L + (L - l)`` block evaluations an image, and the
    unconditional one ``L`` as ever. A step outside the recipe's interval costs nothing extra.

    The model is hooked only while a batch runs through it. A call that fails takes the hooks away. A call that is
    interrupted from the keyboard cannot; its hooks do nothing any more, and go at the next call of the transformer,
    whoever makes it.

    Args:
        recipe: A :class:`~pagopt.recipe.Recipe`, or what its ``to_dict`` gives. It holds for all images. Its
            interval is the perturbation's own, independent of ``start`` and ``stop``.
        guidance_scale: ``g`` of classifier-free guidance; 1 (0 in the original formulation) means none.
        guidance_rescale: As in ``ClassifierFreeGuidance``; what it rescales to is ``cond + w (cond - pert)``.
        use_original_formulation: Whether classifier-free guidance is ``cond + g (cond - uncond)``.
        start: Fraction of the steps at which classifier-free guidance starts.
        stop: Fraction of the steps at which it stops.
        enabled: Without it all guidance is off, that of the recipe too.

    Raises:
        RecipeError: If the recipe means nothing.
        GuidanceError: While the pipeline runs, and for the reasons for which ``guided`` raises it: the transformer is
            of no supported family, has no such head, computes a perturbed attention in a way that is not known, or is
            under ``guided`` already; the interval holds no step; the perturbation changes nothing.
    """

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        recipe: Recipe | Mapping[str, Any],
        guidance_scale: float = 7.5,
        guidance_rescale: float = 0.0,
        use_original_formulation: bool = False,
        start: float = 0.0,
        stop: float = 1.0,
        enabled: bool = True,
    ) -> None:
        self.recipe = recipe if isinstance(recipe, Recipe) else Recipe.from_dict(recipe)
        super().__init__(guidance_scale, guidance_rescale, use_original_formulation, start, stop, enabled)
        self.register_to_config(recipe=self.recipe.to_dict())
        self.guidance: _BatchGuidance | None = None
        """Counters of the last run, as ``with guided(...) as guidance`` gives them; ``None`` before the first."""
        self._repeats = 0
        scale = guidance_scale + 1 if use_original_formulation else guidance_scale
        if self.recipe.cfg is not None and self.recipe.cfg != scale:
            fitting = self.recipe.cfg - 1 if use_original_formulation else self.recipe.cfg
            warnings.warn(
                f"the recipe was made for classifier-free guidance of scale {self.recipe.cfg:g}, and this guider has "
                f"{scale:g}: pass guidance_scale={fitting:g} to get what was searched",
                stacklevel=3,
            )

    def __getstate__(self) -> dict[str, Any]:
        """What copies and pickles hold: not the counters, which know the whole transformer."""
        return self.__dict__ | {"guidance": None}

    def set_state(self, step: int, num_inference_steps: int, timestep: Tensor) -> None:
        """Take note of where the denoising loop is.

        A step is a distinct noise level: Heun's method visits most of them twice, one after the other.

        Args:
            step: Number of the loop's round, from 0.
            num_inference_steps: Noise levels that the loop goes through.
            timestep: The current one, a scalar.
        """
        if step == 0:
            self._repeats = 0
        elif bool(timestep == self._timestep):
            self._repeats += 1
        super().set_state(step - self._repeats, num_inference_steps, timestep)

    def prepare_models(self, denoiser: nn.Module) -> None:
        """Hook the transformer for the batch that comes next."""
        super().prepare_models(denoiser)
        self.cleanup_models(denoiser)
        if not self._enabled:
            return
        first = self._step == 0 and self.is_conditional
        if self.guidance is None or first or not self.guidance.is_of(denoiser):
            self.guidance = _BatchGuidance(self, denoiser)
        self.guidance.arm()

    def cleanup_models(self, denoiser: nn.Module) -> None:
        """Take away the hooks, if the transformer was not called or was interrupted."""
        if self.guidance is not None:
            self.guidance.disarm()


class _GuiderSampling(Sampling):
    """Reads a guider where :class:`Sampling` reads a stock pipeline. Branches are calls of their own, in any family."""

    def is_unconditional(self, latents: Tensor, timestep: Tensor) -> bool:
        return bool(self._pipe.is_unconditional)

    def scale(self) -> float:
        return 1.0

    def step(self, timestep: Tensor) -> tuple[int, int]:
        step, steps = self._pipe._step, self._pipe._num_inference_steps
        if step is None:
            raise GuidanceError("the guider does not know which step this is: the denoising loop has to call set_state")
        return step, steps


class _BatchGuidance(Guidance):
    """Guidance of one call of the transformer at a time, after which it takes its hooks away by itself."""

    def __init__(self, guider: HeadPerturbationGuidance, denoiser: nn.Module) -> None:
        self._guider = guider
        self._hooks, self._awaits_call = ExitStack(), False
        self._last: tuple[Tensor, Tensor] | None = None  # the correction that outlives the conditional batch
        recipe = guider.recipe.replace(cfg=None)  # whether the scales fit has been looked at
        try:
            family = family_of(denoiser)
            super().__init__(denoiser, family, _GuiderSampling(guider, family), recipe)
        except (ModelError, RecipeError, UnknownName) as error:
            raise GuidanceError(str(error)) from error

    def is_of(self, denoiser: nn.Module) -> bool:
        """Whether this guides that transformer."""
        return self.transformer is getattr(denoiser, "_orig_mod", denoiser)

    def arm(self) -> None:
        """Guide the next call of the transformer."""
        if self.transformer in under_guidance:
            raise GuidanceError("this transformer is under guided() already: leave that `with` block first")
        self._awaits_call = True
        self.install(self._hooks)
        self._correction = None if self._guider.is_conditional else self._last
        # Called last, and also if the call fails.
        end = self.transformer.register_forward_hook(lambda *_: self.disarm(), always_call=True)
        self._hooks.callback(end.remove)

    def disarm(self) -> None:
        """Remove all hooks."""
        self._hooks.close()

    def _begin(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if not self._awaits_call:  # left behind by a call that was interrupted
            self.disarm()
            return None
        self._awaits_call = False
        return super()._begin(module, args, kwargs)

    def _finish(self, module: nn.Module, args: Any, output: Any) -> Any:
        result = super()._finish(module, args, output)
        self._last = self._correction
        return result
