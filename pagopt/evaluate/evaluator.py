"""Recipes x tasks to a table of scores."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from lightning.pytorch import Trainer
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from pagopt.errors import StoreError, StudyError, Terminated
from pagopt.evaluate.generation import Batch, Generation
from pagopt.evaluate.progress import Progress
from pagopt.evaluate.ranks import announced, together
from pagopt.evaluate.trainer import check_whole
from pagopt.looks import KIND, Looks, measure
from pagopt.recipe import Recipe
from pagopt.render import Job, Renderer, Task, check_offload
from pagopt.reward import Reward
from pagopt.store import Store

__all__ = ["Evaluator"]


class Evaluator:
    """Scores recipes on tasks.

    Args:
        renderer: Draws the images.
        rewards: Rewards by label.
        store: Keeps images and scores.
        trainer: Any Lightning ``Trainer``; see :func:`make_trainer`.
        batch_size: Jobs in one batch, on each process.
        progress: Shows how far it is.

    Raises:
        StudyError: If ``batch_size`` is below 1, networks are to be offloaded on the CPU, or the ``Trainer`` leaves out
            part of what it is given.
    """

    def __init__(
        self,
        renderer: Renderer,
        rewards: Mapping[str, Reward],
        store: Store,
        trainer: Trainer,
        batch_size: int = 16,
        progress: Progress | None = None,
    ) -> None:
        if batch_size < 1:
            raise StudyError(f"batch_size must be at least 1, not {batch_size}")
        check_offload(renderer.offload, trainer.strategy.root_device)
        check_whole(trainer)
        self.renderer = renderer
        self.rewards = rewards
        self.store = store
        self.trainer = trainer
        self.batch_size = batch_size
        self.progress = progress
        # Keys must not depend on when Lightning converts the networks, so that happens here, once.
        self.module = Generation(renderer, rewards, store, str(trainer.precision))
        self.fingerprint = renderer.fingerprint
        trainer.precision_plugin.convert_module(torch.nn.ModuleDict(renderer.modules()))
        if trainer.world_size > 1:
            announced()
        self.images_generated = 0
        """Images that had to be drawn so far, by all processes; the rest came from the store."""

    def keys(self, recipes: Sequence[Recipe], tasks: Sequence[Task]) -> list[list[str]]:
        """The store keys of the images, recipe by recipe."""
        return [[self.module.key(Job(recipe, task)) for task in tasks] for recipe in recipes]

    def __call__(self, recipes: Sequence[Recipe], tasks: Sequence[Task]) -> dict[str, NDArray[np.float64]]:
        """Score every recipe on every task.

        Args:
            recipes: At least one.
            tasks: The same prompts and seeds for every recipe, so that differences are paired.

        Returns:
            For every reward a table ``(n_recipes, n_tasks)``, higher is better; the same on every process.

        Raises:
            StudyError: Without recipes or tasks.
            RewardError: If a reward fails; it names reward, prompt and image file.
            GuidanceError: If a recipe cannot be applied.
            StoreError: If the store cannot be read or written.
        """
        if not recipes or not tasks:
            raise StudyError("nothing to evaluate: give at least one recipe and one prompt")
        keys = self.keys(recipes, tasks)
        # Task by task, so that a batch holds many candidates of one task: what they share is computed once.
        jobs = {
            row[number]: Job(recipe, task)
            for number, task in enumerate(tasks)
            for recipe, row in zip(recipes, keys, strict=True)
        }
        incomplete = self._incomplete(list(jobs))
        todo = [job for key, job in jobs.items() if key in incomplete]
        if self.progress is not None:
            self.progress.add(len(recipes) * len(tasks) - len(todo))
        if todo:
            missing = len(self.store.missing_images(jobs))
            self._predict(todo)
            self.images_generated += missing
        return self._table(keys)

    def launch(self) -> None:
        """Start the other processes, if there are any and they do not run yet.

        Lightning starts them in the first predict loop, and there is none where the store has everything. Whoever lets
        one process decide for all calls this before the first decision, on every process.
        """
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
        """How many of these images, or of their scores, would have to be made."""
        keys = [key for row in self.keys(recipes, tasks) for key in row]
        incomplete = self._incomplete(keys)
        return sum(key in incomplete for key in keys)

    def _incomplete(self, keys: Sequence[str]) -> set[str]:
        """Keys whose image or any of whose scores is missing."""
        missing = set(self.store.missing_images(keys))
        for reward in self.rewards.values():
            missing |= set(keys) - self.store.get_scores(reward.key(), keys).keys()
        return missing

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
        """Read the scores back; rank 0 reads for all, so that all decide on the same numbers."""
        table: dict[str, NDArray[np.float64]] = {}
        # Before the first predict loop there is no process group, and every process reads the same store.
        shared = torch.distributed.is_available() and torch.distributed.is_initialized()
        if self.trainer.is_global_zero or not shared:
            for label, reward in self.rewards.items():
                scores = self.store.get_scores(reward.key(), [key for row in keys for key in row])
                lost = [key for row in keys for key in row if key not in scores]
                if lost:
                    raise StoreError(f"{len(lost)} scores of {label} did not reach the store; run again to go on")
                table[label] = np.array([[scores[key] for key in row] for row in keys], dtype=np.float64)
        if shared:
            with together():
                table = self.trainer.strategy.broadcast(table)
        return table
