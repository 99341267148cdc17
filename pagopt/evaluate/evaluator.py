"""Recipes x tasks to a table of scores."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from lightning.pytorch import Trainer
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from pagopt.errors import GuidanceError, StoreError, StudyError, Terminated
from pagopt.evaluate.generation import IDLE, Batch, Generation
from pagopt.evaluate.progress import Progress
from pagopt.evaluate.ranks import announced, together
from pagopt.evaluate.trainer import check_whole
from pagopt.looks import KIND, Looks, measure
from pagopt.recipe import Recipe
from pagopt.render import Renderer
from pagopt.reward import Objective, rewards_by_label
from pagopt.room import check_offload
from pagopt.store import Store
from pagopt.task import Job, Task

__all__ = ["Evaluator"]


T = TypeVar("T")
TURN = threading.RLock()
"""Held by the thread that evaluates: guidance in a pipeline and loops of a ``Trainer`` are not for several at once."""


class Evaluator:
    """Scores recipes on tasks. Threads take turns.

    Args:
        renderer: Draws the images.
        rewards: An objective, or rewards (or functions) by label.
        store: Keeps images and scores. Whoever opened it closes it.
        trainer: Any Lightning ``Trainer``; see :func:`make_trainer`.
        batch_size: Jobs in one batch, on each process.
        progress: Shows how far it is.
        strict: Whether a recipe that does nothing ends the evaluation. Otherwise that is a warning, unless all of
            several that are asked for at once do nothing, and none did anything before.

    Raises:
        StudyError: If ``batch_size`` is below 1, networks are to be offloaded on the CPU, or the ``Trainer`` leaves out
            part of what it is given.
        RewardError: If the rewards are none.
        StoreError: If the store is not opened.
    """

    def __init__(
        self,
        renderer: Renderer,
        rewards: Objective | Mapping[str, Any],
        store: Store,
        trainer: Trainer,
        batch_size: int = 16,
        progress: Progress | None = None,
        strict: bool = True,
    ) -> None:
        if batch_size < 1:
            raise StudyError(f"batch_size must be at least 1, not {batch_size}")
        if not isinstance(store, Store):
            name = repr(str(store)) if isinstance(store, (str, Path)) else "folder"
            raise StoreError(
                f"store is a {type(store).__name__}, and has to be an open Store: with Store({name}) as store: ..., "
                "which closes it when all is done"
            )
        check_offload(renderer.offload, trainer.strategy.root_device)
        check_whole(trainer)
        self.renderer = renderer
        self.rewards = rewards_by_label(rewards)
        self.store = store
        self.trainer = trainer
        self.batch_size = batch_size
        self.progress = progress
        # Keys must not depend on when Lightning converts the networks, so that happens here, once.
        if not str(trainer.precision).endswith("-true") or trainer.precision == "32-true":
            renderer.look()
        self.module = Generation(renderer, self.rewards, store, str(trainer.precision))
        self.module.strict = strict
        self.fingerprint = renderer.fingerprint
        trainer.precision_plugin.convert_module(torch.nn.ModuleDict(renderer.modules()))
        if trainer.world_size > 1:
            announced()
        self.images_generated = 0
        """Images that had to be drawn so far, by all processes; the rest came from the store."""
        self.acted = False
        """Whether a recipe has done anything so far."""
        self._idle: set[Recipe] = set()

    def keys(self, recipes: Sequence[Recipe], tasks: Sequence[Task]) -> list[list[str]]:
        """The store keys of the images, recipe by recipe."""
        recipes, tasks = _asked(recipes, tasks)
        return [[self.module.key(Job(recipe, task)) for task in tasks] for recipe in recipes]

    def __call__(self, recipes: Sequence[Recipe], tasks: Sequence[Task]) -> dict[str, NDArray[np.float64]]:
        """Score every recipe on every task.

        On several processes the first one decides for all what is missing: others may be filling the store meanwhile.

        Args:
            recipes: At least one.
            tasks: The same prompts and seeds for every recipe, so that differences are paired. Plain pairs will do.

        Returns:
            For every reward a table ``(n_recipes, n_tasks)``, higher is better; the same on every process.

        Raises:
            StudyError: Without recipes or tasks, or if they are something else.
            RewardError: If a reward cannot score a prompt, or fails; it names reward, prompt and image file.
            GuidanceError: If a recipe cannot be applied, or recipes do nothing; see ``strict``.
            StoreError: If the store cannot be read or written.
        """
        recipes, tasks = _asked(recipes, tasks)
        if not recipes or not tasks:
            raise StudyError("nothing to evaluate: give at least one recipe and one prompt")
        for reward in self.rewards.values():
            reward.check_prompts(list(dict.fromkeys(task.prompt for task in tasks)))
        with TURN:
            keys = self.keys(recipes, tasks)
            # Task by task, so that a batch holds many candidates of one task: what they share is computed once.
            jobs = {
                row[number]: Job(recipe, task)
                for number, task in enumerate(tasks)
                for recipe, row in zip(recipes, keys, strict=True)
            }
            if self.trainer.world_size > 1 and not _joined():
                self.launch()
            incomplete, missing = self._first(
                lambda: (self._incomplete(list(jobs)), len(self.store.missing_images(jobs)))
            )
            todo = [job for key, job in jobs.items() if key in incomplete]
            if self.progress is not None:
                self.progress.add(len(recipes) * len(tasks) - len(todo))
            if todo:
                self._predict(todo)
                self.images_generated += missing
            if not self.module.strict:
                self._tell_idle(recipes, keys)
            return self._first(lambda: self._table(keys))

    def launch(self) -> None:
        """Start the other processes, if there are any and they do not run yet.

        Lightning starts them in the first predict loop, by running the script again: they read the store later than
        the first process, and may find more in it. Whoever lets one process decide for all calls this before the first
        decision, on every process; the first evaluation does so itself.
        """
        with TURN:
            self._predict([])

    def looks(self, keys: Sequence[str]) -> list[Looks]:
        """How the images with these keys look. They were measured when they were drawn; older ones are now.

        Raises:
            StoreError: If an image is not there.
        """
        known = {key: Looks.from_dict(note) for key, note in self.store.get_notes(KIND, keys).items()}
        new = {key: measure(self.store.get_image(key)) for key in dict.fromkeys(keys) if key not in known}
        self.store.put_notes(KIND, {key: one.to_dict() for key, one in new.items()})
        return [{**known, **new}[key] for key in keys]

    def missing(self, recipes: Sequence[Recipe], tasks: Sequence[Task]) -> int:
        """How many of these images, or of their scores, would have to be made.

        Of several processes the first one counts. Before they are launched each counts by itself, so nothing that they
        do together may depend on it.
        """
        keys = [key for row in self.keys(recipes, tasks) for key in row]
        incomplete = self._first(lambda: self._incomplete(keys))
        return sum(key in incomplete for key in keys)

    def stored(self, recipes: Sequence[Recipe], tasks: Sequence[Task]) -> dict[str, NDArray[np.float64]] | None:
        """The table of scores, if the store has all of it: nothing is drawn, and no other process is asked."""
        keys = self.keys(recipes, tasks)
        return None if self._incomplete([key for row in keys for key in row]) else self._table(keys)

    def _first(self, find: Callable[[], T]) -> T:
        """What the first process finds, on all of them once they run together."""
        if not _joined():
            return find()
        found = find() if self.trainer.is_global_zero else None
        with together():
            agreed: T = self.trainer.strategy.broadcast(found)
        return agreed

    def _incomplete(self, keys: Sequence[str]) -> set[str]:
        """Keys whose image or any of whose scores is missing."""
        missing = set(self.store.missing_images(keys))
        for reward in self.rewards.values():
            missing |= set(keys) - self.store.get_scores(reward.key(), keys).keys()
        return missing

    def _tell_idle(self, recipes: Sequence[Recipe], keys: Sequence[Sequence[str]]) -> None:
        """Say which recipes do nothing, by the notes on their images: whenever and by whom those were drawn.

        Raises:
            GuidanceError: If it is all of several, and none did anything before.
        """
        guided = {recipe: set(row) for recipe, row in zip(recipes, keys, strict=True) if not recipe.is_plain}
        noted = self._first(lambda: set(self.store.get_notes(IDLE, set().union(*guided.values()))))
        idle = [recipe for recipe, row in guided.items() if row <= noted]
        self.acted = self.acted or len(idle) < len(guided)
        if len(idle) > 1 and not self.acted:
            raise GuidanceError(
                f"none of {len(idle)} recipes changes anything in the model's predictions, the first of them by "
                f"perturbing {' '.join(map(str, idle[0].heads))}: take a larger strength, or other heads"
            )
        for recipe in idle:
            if recipe not in self._idle and self.trainer.is_global_zero:
                warnings.warn(
                    f"perturbing {' '.join(map(str, recipe.heads))} with strength {recipe.strength} changes nothing in "
                    "the first prediction: its pictures may be those without guidance",
                    stacklevel=3,
                )
        self._idle.update(idle)

    def _predict(self, jobs: Sequence[Job]) -> None:
        rows: list[Job | None] = list(jobs)
        rows += [None] * (self.trainer.world_size - len(rows))
        # Full batches on every process as long as there is enough to do.
        size = max(1, min(self.batch_size, -(-len(rows) // self.trainer.world_size)))
        loader: DataLoader[Job | None] = DataLoader(rows, batch_size=size, collate_fn=Batch)  # type: ignore[arg-type]
        if self.progress is not None:
            self.progress.start(len(jobs))
        with warnings.catch_warnings():
            # Workers would only pass job descriptions around.
            warnings.filterwarnings("ignore", message=".*does not have many workers.*")
            try:
                with together():
                    self.trainer.predict(self.module, loader, return_predictions=False)
                    self.trainer.strategy.barrier()
            except SystemExit as stop:
                if self.trainer.interrupted:  # Lightning's answer to Ctrl-C, and to SIGTERM by way of the command line
                    raise Terminated if isinstance(stop.__context__, Terminated) else KeyboardInterrupt from stop
                raise
        if self.progress is not None:
            self.progress.finish()

    def _table(self, keys: Sequence[Sequence[str]]) -> dict[str, NDArray[np.float64]]:
        """Read the scores back."""
        table: dict[str, NDArray[np.float64]] = {}
        for label, reward in self.rewards.items():
            scores = self.store.get_scores(reward.key(), [key for row in keys for key in row])
            lost = [key for row in keys for key in row if key not in scores]
            if lost:
                raise StoreError(f"{len(lost)} scores of {label} did not reach the store; run again to go on")
            table[label] = np.array([[scores[key] for key in row] for row in keys], dtype=np.float64)
        return table


def _joined() -> bool:
    """Whether this process can talk to the others; Lightning sees to that in the first predict loop."""
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def _asked(recipes: Iterable[Recipe], tasks: Iterable[Any]) -> tuple[list[Recipe], list[Task]]:
    """Recipes and tasks as lists.

    Raises:
        StudyError: If one is no recipe or no task.
    """
    if isinstance(recipes, Recipe) or isinstance(tasks, Task):
        one = "recipe" if isinstance(recipes, Recipe) else "task"
        raise StudyError(f"recipes and tasks are lists: put the single {one} into one, [{one}]")
    rows = list(recipes)
    for recipe in rows:
        if not isinstance(recipe, Recipe):
            raise StudyError(f"{recipe!r:.80} is no Recipe: Recipe(...) makes one, Recipe.load(path) reads one")
    found = []
    for task in tasks:
        if not isinstance(task, (tuple, list)) or len(task) != 2:
            raise StudyError(f"{task!r:.80} is no task: a prompt and a seed, such as Task('red apple', 3)")
        found.append(task if isinstance(task, Task) else Task(*task))
    return rows, found
