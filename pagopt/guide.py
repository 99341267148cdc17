"""Guidance by perturbed heads inside any stock pipeline: ``with guided(pipe, recipe): pipe(prompt)``.

Inside the ``with`` block one call of the transformer returns the guided prediction; the pipeline around it (its CFG,
scheduler, callbacks, img2img, ControlNet) is not touched. The conditional rows become ``cond + (w / g) (cond - pert)``,
so that the pipeline's own classifier-free guidance with scale ``g`` gives
``uncond + g (cond - uncond) + w (cond - pert)`` (paper, arXiv 2506.10978, Eq. 5).

Everything happens in forward hooks on modules: no attention processor is swapped, no weight is changed, and leaving
the block removes the hooks, also after an exception.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ContextDecorator, ExitStack, contextmanager
from typing import Any

from pagopt.errors import GuidanceError, ModelError, RecipeError, UnknownName
from pagopt.guidance import Guidance
from pagopt.models import family_of
from pagopt.models.sampling import Sampling
from pagopt.recipe import Recipe
from pagopt.sites import under_guidance

__all__ = ["guided"]


class guided(ContextDecorator):
    """Guide every call of a pipeline inside the ``with`` block; may be entered again.

    Args:
        pipe: A stock diffusers pipeline of a supported family (:data:`pagopt.models.FAMILIES`). Call this very
            pipeline inside the block, not another one that shares its transformer.
        recipe: One for all images of a call, or a sequence with one for each image (prompts x
            ``num_images_per_prompt``, in the pipeline's order). A plain recipe leaves its images as they are: bit
            for bit, and up to rounding in a batch with others.

    ``with guided(...) as guidance`` gives counters of what was done.

    Raises:
        GuidanceError: On entering, inside or on leaving: if the pipeline is not supported or already guided; if a
            recipe names a head or a target that does not exist, has an interval without a step, or would do nothing;
            if the number of recipes does not fit the call; and, on leaving, if the transformer was never called
            or exchanged for another one, although there was something to do.
    """

    def __init__(self, pipe: Any, recipe: Recipe | Sequence[Recipe]) -> None:
        self._asked = pipe, recipe
        self._open: list[AbstractContextManager[Guidance]] = []

    def __enter__(self) -> Guidance:
        block = _block(*self._asked)
        guidance = block.__enter__()
        self._open.append(block)
        return guidance

    def __exit__(self, *exception: Any) -> bool | None:
        return self._open.pop().__exit__(*exception)


@contextmanager
def _block(pipe: Any, recipe: Recipe | Sequence[Recipe]) -> Iterator[Guidance]:
    try:
        family = family_of(pipe)
        if not hasattr(pipe, "transformer"):
            raise GuidanceError(f"guided() takes a whole pipeline, not a {type(pipe).__name__}")
        guidance = Guidance(pipe.transformer, family, Sampling(pipe, family), recipe)
    except (ModelError, RecipeError, UnknownName) as error:
        raise GuidanceError(str(error)) from error
    transformer = guidance.transformer
    if transformer in under_guidance:
        raise GuidanceError("this pipeline's transformer is under guidance already: leave the other `with` block first")
    under_guidance.add(transformer)
    try:
        with ExitStack() as hooks:
            guidance.install(hooks)
            yield guidance
        guidance.check_used(pipe)
    finally:
        under_guidance.discard(transformer)
