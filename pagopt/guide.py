"""Guidance by perturbed heads inside any stock pipeline: ``with guided(pipe, recipe): pipe(prompt)``.

Inside the ``with`` block one call of the transformer returns the guided prediction; the pipeline around it (its CFG,
scheduler, callbacks, img2img, ControlNet) is not touched. The conditional rows become ``cond + (w / g) (cond - pert)``,
so that the pipeline's own classifier-free guidance with scale ``g`` gives
``uncond + g (cond - uncond) + w (cond - pert)`` (paper, arXiv 2506.10978, Eq. 5).

Everything happens in forward hooks on modules: no attention processor is swapped, no weight is changed, and leaving
the block removes the hooks, also after an exception.
"""

from __future__ import annotations

import inspect
import warnings
import weakref
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from pagopt.errors import GuidanceError, ModelError, UnknownName
from pagopt.fork import Fork, SiteKey
from pagopt.models import Attention, family_of
from pagopt.models.sampling import Sampling
from pagopt.perturb import guide, interpolate, target_named
from pagopt.recipe import Recipe

__all__ = ["Guidance", "guided"]

_under_guidance: weakref.WeakSet[nn.Module] = weakref.WeakSet()


@contextmanager
def guided(pipe: Any, recipe: Recipe | Sequence[Recipe]) -> Iterator[Guidance]:
    """Guide every call of a pipeline inside the ``with`` block.

    Args:
        pipe: A stock diffusers pipeline of a supported family (:data:`pagopt.models.FAMILIES`). Call this very
            pipeline inside the block, not another one that shares its transformer.
        recipe: One for all images of a call, or a sequence with one for each image (prompts x
            ``num_images_per_prompt``, in the pipeline's order). A plain recipe leaves its images as they are, bit
            for bit.

    Yields:
        Counters of what was done.

    Raises:
        GuidanceError: If the pipeline is not supported or already guided; if a recipe names a head or a target that
            does not exist, has an interval without a step, or would do nothing; if the number of recipes does not
            fit the call; and on leaving, if the transformer was never called although there was something to do.
    """
    try:
        guidance = Guidance(pipe, recipe)
    except (ModelError, UnknownName) as error:
        raise GuidanceError(str(error)) from error
    transformer = guidance.transformer
    if transformer in _under_guidance:
        raise GuidanceError("this pipeline's transformer is under guidance already: leave the other `with` block first")
    _under_guidance.add(transformer)
    try:
        with ExitStack() as hooks:
            guidance.install(hooks)
            yield guidance
        guidance.check_used()
    finally:
        _under_guidance.discard(transformer)


class Guidance:
    """The state of one ``with guided(...)`` block. Made by :func:`guided`.

    Attributes:
        calls: Calls of the transformer.
        steps: Those among them in which at least one row was guided.
        block_evaluations: Blocks evaluated, counted once for every row of the batch that went through.
    """

    def __init__(self, pipe: Any, recipe: Recipe | Sequence[Recipe]) -> None:
        self.calls = self.steps = self.block_evaluations = 0
        self._sampling = Sampling(pipe)
        self._family = family_of(pipe)
        if not hasattr(pipe, "transformer"):
            raise GuidanceError(f"guided() takes a whole pipeline, not a {type(pipe).__name__}")
        self.transformer: nn.Module = getattr(pipe.transformer, "_orig_mod", pipe.transformer)
        self._shared = isinstance(recipe, Recipe)
        self._recipes = list(recipe) if isinstance(recipe, Iterable) else [recipe]
        self._heads = self._family.head_map(self.transformer)
        for item in self._recipes:
            if not isinstance(item, Recipe):
                raise GuidanceError(f"guided() takes a Recipe or several, not {item!r}; Recipe.load reads a file")
            self._heads.check(item.heads)
            target_named(item.target)
        if not self._recipes:
            raise GuidanceError("guided() got an empty list of recipes: give one for each image")
        self._plain = all(item.is_plain for item in self._recipes)
        if not self._plain and any(_is_compiled(module) for module in (pipe.transformer, *self.transformer.modules())):
            raise GuidanceError(
                "the transformer is compiled, and compiled code does not run the hooks of this version of pagopt: "
                "load the pipeline again without torch.compile"
            )
        used = {(head.block, head.site) for item in self._recipes for head in item.heads}
        sites = () if self._plain else self._family.attentions(self.transformer)
        self._attentions = [site for site in sites if site.key in used]
        self._signature = inspect.signature(self.transformer.forward)
        self._forks: dict[Any, Fork] = {}
        self._effective: set[int] = set()  # conditional rows whose perturbation was seen to change something
        self._warned = False
        self._reset()

    def _reset(self) -> None:
        self._fork: Fork | None = None
        self._skips = False
        self._cfg = 1.0
        self._values: dict[SiteKey, dict[int, Tensor]] = {}  # V of the copies, by site and stream
        self._reached: dict[SiteKey, set[int]] = {}  # streams that were perturbed, by site

    def install(self, hooks: ExitStack) -> None:
        """Register all hooks; closing ``hooks`` removes them."""

        def add(handle: Any) -> None:
            hooks.callback(handle.remove)

        hooks.callback(self._reset)
        self._correction: tuple[Tensor, Tensor] | None = None
        hooks.callback(setattr, self, "_correction", None)
        add(self.transformer.register_forward_pre_hook(self._begin, with_kwargs=True))
        add(self.transformer.register_forward_hook(self._finish))
        blocks = self._family.blocks(self.transformer)
        for number, block in enumerate(blocks):
            add(block.register_forward_pre_hook(partial(self._enter_block, number), with_kwargs=True))
        for module in self._family.tail(self.transformer):
            add(module.register_forward_pre_hook(partial(self._enter_tail, len(blocks)), with_kwargs=True))
        for attention in self._attentions:
            for stream, part in enumerate(attention.streams):
                for tap in part.values:
                    capture = partial(self._capture, attention, stream, tap.parts)
                    add(tap.module.register_forward_hook(capture))
                if part.output is not None:
                    perturb = partial(self._perturb, attention, stream)
                    add(part.output.register_forward_pre_hook(perturb))

    def check_used(self) -> None:
        """Complain if there was something to do and the transformer never ran."""
        if not self._plain and not self.calls:
            raise GuidanceError(
                "nothing was guided: the transformer of this pipeline was never called inside the `with` block "
                "(was another pipeline called?)"
            )

    # What follows runs inside the transformer's forward, in this order.

    def _begin(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Before the transformer: decide which rows are guided in this step."""
        self._reset()
        self.calls += 1
        given = self._signature.bind_partial(*args, **kwargs).arguments
        if given.get("skip_layers") is not None:  # the pipeline's own skip-layer guidance
            self._skips = True
            return None
        self._correction = None
        rows = int(given["hidden_states"].shape[0])
        self._offset, self._cfg = offset, _ = self._sampling.conditional(rows)
        recipes = self._recipes * (rows - offset) if self._shared else self._recipes
        if len(recipes) != rows - offset:
            raise GuidanceError(
                f"{len(recipes)} recipes for {rows - offset} images: give one recipe for all, or one for each image "
                "(prompts x num_images_per_prompt)"
            )
        self._warn_of_cfg(recipes)
        if self._plain:
            return None
        step, steps = self._sampling.step(given["timestep"])
        active = {
            offset + row: recipe
            for row, recipe in enumerate(recipes)
            if not recipe.is_plain and step in recipe.active_steps(steps)
        }
        if not active:
            return None
        for attention in self._attentions:
            self._check_processor(attention)
        self.steps += 1
        at_input = given.get("block_controlnet_hidden_states") is not None
        key = (rows, offset, tuple(active), at_input)
        if key not in self._forks:
            self._forks[key] = Fork(rows, active, self._heads, at_input)
        self._fork = self._forks[key]
        return ((), self._fork.enter_input(dict(given))) if at_input else None

    def _enter_block(self, number: int, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Before a block: append the copies that begin here."""
        changed = None
        if self._fork is not None:
            args, kwargs = changed = self._fork.enter((args, kwargs), number)
        states: Tensor = args[0] if args else kwargs["hidden_states"]
        self.block_evaluations += states.shape[0]
        return changed

    def _enter_tail(self, blocks: int, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Before a module behind the blocks: give it what it takes from before them for all copies."""
        return None if self._fork is None else self._fork.enter((args, kwargs), blocks)

    def _capture(
        self, attention: Attention, stream: int, parts: int, module: nn.Module, args: Any, output: Tensor
    ) -> None:
        """After a value projection: keep V of the copies."""
        if self._fork is not None and attention.key in self._fork.sites:
            values = output[self._fork.rows :, :, -(output.shape[-1] // parts) :]
            self._values.setdefault(attention.key, {})[stream] = values

    def _perturb(self, attention: Attention, stream: int, module: nn.Module, args: tuple[Any, ...]) -> Any:
        """Before an output projection: move the attention output of the copies towards the target."""
        if self._fork is None or attention.key not in self._fork.sites:
            return None
        seen = self._values.get(attention.key, {})
        if len(seen) != len(attention.streams):
            raise GuidanceError(f"{attention.site} of block L{attention.block} computes no values that can be seen")
        values = [seen[number] for number in range(len(attention.streams))]
        output: Tensor = args[0]
        copies = output[self._fork.rows :]
        for target, strength in self._fork.strengths(attention.key, like=output):
            copies = interpolate(copies, target(values)[stream], strength)
        self._reached.setdefault(attention.key, set()).add(stream)
        if len(self._reached[attention.key]) == sum(part.output is not None for part in attention.streams):
            del self._values[attention.key]  # V of one site at a time is held
        return (torch.cat([output[: self._fork.rows], copies]), *args[1:])

    def _finish(self, module: nn.Module, args: Any, output: Any) -> Any:
        """After the transformer: combine, and return a batch of the size that the pipeline knows."""
        fork, sample = self._fork, output[0]
        if self._skips and self._correction is not None:
            # The pipeline adds s (cond - skipped): with cond guided, the same shift here keeps that difference pure.
            result = sample.index_add(0, *self._correction)
        elif fork is None:
            return None
        else:
            self._check_reached(fork, sample)
            index = fork.index(sample.device)
            plain, perturbed = sample.index_select(0, index), sample[fork.rows :]
            self._check_effect(fork, plain, perturbed)
            combined = guide(plain, perturbed, fork.scales(self._cfg, like=sample))
            result = sample[: fork.rows].index_copy(0, index, combined)
            self._correction = (index - self._offset, combined - plain)
        self._fork = None
        self._values = {}
        return (result, *output[1:]) if isinstance(output, tuple) else type(output)(sample=result)

    def _warn_of_cfg(self, recipes: Sequence[Recipe]) -> None:
        for recipe in recipes:
            if recipe.cfg is not None and recipe.cfg != self._cfg and not self._warned:
                self._warned = True
                warnings.warn(
                    f"the recipe was made for guidance_scale={recipe.cfg:g}, but the pipeline runs with "
                    f"{self._cfg:g}: pass guidance_scale={recipe.cfg:g} to get what was searched",
                    stacklevel=2,
                )

    # Doing nothing is an error.

    def _check_processor(self, attention: Attention) -> None:
        try:
            self._family.check_processor(attention)
        except ModelError as error:
            raise GuidanceError(str(error)) from error

    def _check_reached(self, fork: Fork, sample: Tensor) -> None:
        for block, site in sorted(fork.sites - self._reached.keys()):
            raise GuidanceError(f"the perturbed site {site} of block L{block} was never reached in the forward pass")
        if sample.shape[0] != fork.rows + len(fork):
            raise GuidanceError(
                f"the transformer returned {sample.shape[0]} rows where {fork.rows} and {len(fork)} perturbed ones "
                "were expected: its blocks do not run through their hooks"
            )

    def _check_effect(self, fork: Fork, plain: Tensor, perturbed: Tensor) -> None:
        """In the first guided step of every row."""
        if self._effective.issuperset(row - self._offset for row in fork.sources):
            return
        same = (plain == perturbed).flatten(1).all(dim=1).tolist()
        for row, recipe, unchanged in zip(fork.sources, fork.recipes, same, strict=True):
            if unchanged and row - self._offset not in self._effective:
                raise GuidanceError(
                    f"perturbing {' '.join(map(str, recipe.heads))} with strength {recipe.strength} changes nothing in "
                    f"the prediction for image {row - self._offset} (in {str(plain.dtype).removeprefix('torch.')}): "
                    "take a larger strength or other heads"
                )
            self._effective.add(row - self._offset)


def _is_compiled(module: nn.Module) -> bool:
    return hasattr(module, "_orig_mod") or getattr(module, "_compiled_call_impl", None) is not None
