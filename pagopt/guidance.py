"""What happens inside a transformer's forward while it is under guidance: hooks that fork, move, combine and check.

Everything happens in forward hooks on modules: no attention processor is swapped, no weight is changed.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from pagopt import checks
from pagopt.compiled import compiled_block
from pagopt.duplicates import Distinct, distinct
from pagopt.errors import GuidanceError
from pagopt.fork import Fork, SiteKey
from pagopt.models import Family
from pagopt.models.sampling import Sampling
from pagopt.perturb import guide
from pagopt.recipe import Recipe
from pagopt.sites import site_hooks

__all__ = ["Guidance"]


class Guidance:
    """The state of one ``with guided(...)`` block. Made by :mod:`pagopt.guide` and :mod:`pagopt.guider`.

    Attributes:
        calls: Calls of the transformer.
        steps: Those among them in which at least one row was guided.
        block_evaluations: Blocks evaluated, counted once for every row of the batch that went through.
        idle: Called with the number of an image whose recipe changes nothing in the first prediction it guides; by
            default that is an error.
    """

    def __init__(self, transformer: Any, family: Family, sampling: Sampling, recipe: Recipe | Sequence[Recipe]) -> None:
        self.calls = self.steps = self.block_evaluations = 0
        self.idle: Callable[[int], object] | None = None
        self._family, self._sampling = family, sampling
        self.transformer: nn.Module = getattr(transformer, "_orig_mod", transformer)
        self._shared = isinstance(recipe, Recipe)
        self._recipes = list(recipe) if isinstance(recipe, Iterable) else [recipe]
        self._heads = self._family.head_map(self.transformer)
        for item in self._recipes:
            if not isinstance(item, Recipe):
                raise GuidanceError(f"guided() takes a Recipe or several, not {item!r}; Recipe.load reads a file")
            self._heads.check(item.heads)
        if not self._recipes:
            raise GuidanceError("guided() got an empty list of recipes: give one for each image")
        self._modules = list(transformer.modules())
        self._plain = all(item.is_plain for item in self._recipes)
        if not self._plain:
            checks.check_transformer(transformer, self._modules)
        self._blocks = self._family.blocks(self.transformer)
        self._sites = site_hooks(self._family, self.transformer, self._recipes)
        self._needs_grid = any(site.with_queries for site in self._sites.values())
        self._signature = inspect.signature(self.transformer.forward)
        self._forks: dict[Any, Fork] = {}
        self._effective: set[int] = set()  # images whose perturbation was seen to change something
        self._warned = False
        self._passing = ExitStack()  # hooks for one step alone
        self._reset()

    def __deepcopy__(self, memo: Any) -> Any:
        raise GuidanceError("a pipeline under guidance cannot be copied: copy it before the `with` block, or after it")

    def _reset(self) -> None:
        self._passing.close()
        self._fork: Fork | None = None
        self._distinct: Distinct | None = None
        self._held: Tensor | None = None  # what the tail made of the copies
        self._cfg = 1.0
        for site in self._sites.values():
            site.reset()
        for block in self._blocks:
            if (compiled := compiled_block(block)) is not None:
                compiled.end()

    def _forget(self) -> None:
        """Let go of everything that belongs to a call of the pipeline."""
        self._reset()
        self._sampling.reset()
        self._correction: tuple[Tensor, Tensor] | None = None
        self._apart = False

    def install(self, hooks: ExitStack) -> None:
        """Register all hooks; closing ``hooks`` removes them."""

        def add(handle: Any) -> None:
            hooks.callback(handle.remove)

        self._forget()
        hooks.callback(self._forget)
        add(self.transformer.register_forward_pre_hook(self._begin, with_kwargs=True))
        add(self.transformer.register_forward_hook(self._finish))
        for number, block in enumerate(self._blocks):
            enter = partial(self._enter_block, number, _names(block))
            add(block.register_forward_pre_hook(enter, with_kwargs=True))
        for module in self._family.tail(self.transformer):
            enter = partial(self._enter_tail, len(self._blocks), _names(module))
            add(module.register_forward_pre_hook(enter, with_kwargs=True))
            if self._family.leaves_at_tail:
                add(module.register_forward_hook(self._leave_tail))
        for (number, _), site in self._sites.items():
            if compiled_block(self._blocks[number]) is None:  # a graph would be made anew for its hooks
                site.install(add)

    def check_used(self, pipe: Any) -> None:
        """Complain if there was something to do and the transformer never ran, or is no longer the pipeline's."""
        if self._plain:
            return
        if not self.calls:
            raise GuidanceError(
                "nothing was guided: the transformer of this pipeline was never called inside the `with` block "
                "(was another pipeline called?)"
            )
        if getattr(pipe.transformer, "_orig_mod", pipe.transformer) is not self.transformer:
            raise GuidanceError(
                "the pipeline's transformer was exchanged inside the `with` block, and what the other one drew is not "
                "guided: exchange it before"
            )

    # What follows runs inside the transformer's forward, in this order.

    def _begin(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Before the transformer: decide which rows are guided in this step."""
        self._reset()
        self.calls += 1
        given = self._family.batched(self._signature.bind_partial(*args, **kwargs).arguments)
        if given.get("skip_layers") is not None:  # the pipeline's own skip-layer guidance
            return None
        self._sampling.check_caller()
        unconditional = self._sampling.is_unconditional(given["hidden_states"], given["timestep"])
        if self._sampling.doubled is not None and not self._warned:
            self._warned = checks.warn_of_branches(self._recipes, self._sampling.doubled)
        if unconditional:
            return None
        self._correction = None
        rows = int(given["hidden_states"].shape[0])
        self._offset, count, self._cfg = self._sampling.conditional(rows, given["timestep"])
        recipes = self._recipes * count if self._shared else self._recipes
        if len(recipes) != count:
            raise GuidanceError(
                f"{len(recipes)} recipes for {count} images: give one recipe for all, or one for each image "
                "(prompts x num_images_per_prompt)"
            )
        if self._family.branches == "batch" and not self._warned:
            self._warned = checks.warn_of_scale(recipes, self._sampling.scale(), self._family.scale_offset)
        if self._plain:
            return None
        step, steps = self._sampling.step(given["timestep"])
        if step == 0:
            self._apart = False  # another call of the pipeline began
        images = [i for i, item in enumerate(recipes) if not item.is_plain and step in item.active_steps(steps)]
        at_input = any(given.get(name) is not None for name in self._family.residuals)
        changed = self._share_rows(given, rows) if not at_input else None
        if images:
            self._plan(given, images, recipes, rows, at_input)
            changed = self._fork.enter_input(given) if at_input and self._fork is not None else changed
        return None if changed is None else ((), self._family.unbatched(changed))

    def _share_rows(self, given: Mapping[str, Any], rows: int) -> dict[str, Any] | None:
        """Leave equal rows out, as long as there are any; the arguments that remain."""
        if self._apart:
            return None
        self._distinct = distinct(given, rows, self._family.shared)
        if self._distinct is None:
            self._apart = True
            return None
        return self._distinct.reduce(given, self._family.shared)

    def _plan(
        self, given: Mapping[str, Any], images: list[int], recipes: Sequence[Recipe], rows: int, at_input: bool
    ) -> None:
        """Say what has to happen at every site in this step."""
        if problem := self._family.unsupported(given):
            raise GuidanceError(f"guidance does not work with {problem}")
        self._check_intact()
        self.steps += 1
        self._images = images
        place = list(range(rows)) if self._distinct is None else self._distinct.place
        sources = [place[self._offset + image] for image in images]
        kept = rows if self._distinct is None else len(self._distinct.kept)
        key = (kept, tuple(sources), tuple(images), at_input)
        if key not in self._forks:
            plans = [(source, recipes[image]) for source, image in zip(sources, images, strict=True)]
            self._forks[key] = Fork(kept, plans, self._heads, self._family.shared, at_input)
        self._fork = fork = self._forks[key]
        grid = self._family.grid(given, self.transformer) if self._needs_grid else None
        image = self._family.image_tokens(given)
        moves = {site: fork.moves(site, like=given["hidden_states"]) for site in fork.sites}
        for number in {block for block, _ in moves}:
            here = {name: items for (block, name), items in moves.items() if block == number}
            compiled = compiled_block(self._blocks[number])
            if compiled is None or not compiled.begin(here, kept, image):
                for name, items in here.items():
                    site = self._sites[number, name]
                    site.begin(items, kept, image, grid)
                    if compiled is not None:
                        site.install(lambda handle: self._passing.callback(handle.remove))

    def _check_intact(self) -> None:
        """Complain if somebody changed the transformer since, so that what is hooked is not what runs."""
        checks.check_transformer(self.transformer, self._modules)
        current = {site.key: site for site in self._family.attentions(self.transformer)}
        for key, site in self._sites.items():
            checks.check_processor(self._family, site.attention)
            checks.check_hooked(site.attention, current.get(key), "the `with` block")
            compiled = compiled_block(self._blocks[key[0]])
            if compiled is not None:
                checks.check_hooked(compiled.attentions[key[1]], current.get(key), "compile_blocks")

    def _enter_block(
        self, number: int, names: list[str], module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Before a block: append the copies that begin here."""
        given = dict(zip(names, args, strict=False)) | kwargs
        if self._fork is not None:
            given = self._fork.enter(given, number)
        states: Tensor = given[names[0]]
        self.block_evaluations += states.shape[0]
        return None if self._fork is None else ((), given)

    def _enter_tail(
        self, blocks: int, names: list[str], module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Before a module behind the blocks: give it what it takes from before them for all copies."""
        if self._fork is None:
            return None
        return (), self._fork.enter(dict(zip(names, args, strict=False)) | kwargs, blocks)

    def _leave_tail(self, module: nn.Module, args: Any, output: Tensor) -> Tensor | None:
        """After such a module, where nothing behind it knows of copies: take them out."""
        if self._fork is None or self._fork.at_input:
            return None
        self._held = output[self._fork.rows :]
        return output[: self._fork.rows]

    def _finish(self, module: nn.Module, args: Any, output: Any) -> Any:
        """After the transformer: combine, and return a batch of the size that the pipeline knows."""
        fork = self._fork
        if fork is None and self._distinct is None and self._correction is None:
            return None
        sample = self._family.predictions(output[0], self._held, self.transformer)
        if self._correction is not None:  # of the conditional call before this one
            # The pipeline goes on with g (cond - uncond), or s (cond - skipped). With cond guided, the same shift in
            # the other prediction keeps the difference pure.
            result = sample.index_add(0, *self._correction)
        elif fork is not None:
            checks.check_reached(fork, sample, self._reached)
            index = fork.index(sample.device)
            plain, perturbed = sample.index_select(0, index), sample[fork.rows :]
            images = [self._images[i] for i in fork.order]
            if not self._effective.issuperset(images):  # the first guided step of these images
                checks.check_effect(fork, images, plain, perturbed, self.idle)
                self._effective.update(images)
            combined = guide(plain, perturbed, fork.scales(self._cfg, like=sample))
            result = sample[: fork.rows] if self._distinct is None else self._distinct.expand(sample[: fork.rows])
            place = torch.tensor(images, device=sample.device)
            result = result.index_copy(0, place + self._offset, combined)
            self._correction = (place, combined - plain)
        else:
            assert self._distinct is not None
            result = self._distinct.expand(sample)
        self._reset()
        given = self._family.returned(result)
        return (given, *output[1:]) if isinstance(output, tuple) else type(output)(sample=given)

    def _reached(self, key: SiteKey) -> bool:
        """Whether the outputs of a site were moved in this forward."""
        compiled = compiled_block(self._blocks[key[0]])
        return bool(self._sites[key].reached) or (compiled is not None and compiled.sites[key[1]].reached)


def _names(module: nn.Module) -> list[str]:
    """Names of a module's positional arguments."""
    parameters = inspect.signature(module.forward).parameters.values()
    return [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
