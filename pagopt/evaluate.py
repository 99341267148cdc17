"""Recipes x tasks to scores, on any Lightning ``Trainer``: the loop that spends the GPU time.

Every image and every score goes to the store as soon as its batch is finished, and what the store has is not
made again. So a killed run loses at most the batch in flight, and a second reward over the same images costs the
scoring only.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from numpy.typing import NDArray
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from pagopt.errors import RewardError, StoreError, StudyError, Terminated
from pagopt.looks import KIND, Looks, measure
from pagopt.recipe import Recipe
from pagopt.render import Job, Renderer, Task
from pagopt.reward import Reward
from pagopt.reward.hardware import move_reward
from pagopt.reward.identity import source_of
from pagopt.store import Store
from pagopt.targets import known_targets

__all__ = ["Evaluator", "Progress", "make_trainer"]


class Generation(LightningModule):  # type: ignore[misc]
    """Draws and scores the jobs of a batch, and puts both into the store.

    A batch is a list of jobs; ``None`` stands for padding, where there are fewer jobs than processes.
    """

    def __init__(
        self, renderer: Renderer, rewards: Mapping[str, Reward], store: Store, precision: str = "32-true"
    ) -> None:
        super().__init__()
        self.renderer = renderer
        self.rewards = rewards
        self.store = store
        self.precision = precision
        # Registered, so that the Trainer places and converts the networks as its options say.
        self.networks = torch.nn.ModuleDict(renderer.modules())

    def describe(self, job: Job) -> dict[str, Any]:
        """Everything that changes this image (JSON); recipes that do nothing describe the same image."""
        recipe = Recipe(scale=0.0, cfg=job.recipe.cfg) if job.recipe.is_plain else job.recipe
        kind = known_targets().get(recipe.target)
        own = kind is not None and not kind.__module__.startswith("pagopt.")
        return {
            **({"target_source": source_of(kind)[:16]} if own else {}),
            **self.renderer.describe(),
            "precision": self.precision,
            "recipe": recipe.replace(cfg=recipe.cfg or 1.0).to_dict(),
            "prompt": job.task.prompt,
            "seed": job.task.seed,
        }

    def key(self, job: Job) -> str:
        """The store key of a job's image."""
        return Store.key(self.describe(job))

    def on_predict_start(self) -> None:
        """Rewards follow the model to its device."""
        for label, reward in self.rewards.items():
            move_reward(label, reward, self.device)

    def transfer_batch_to_device(self, batch: list[Job | None], device: torch.device, index: int) -> list[Job | None]:
        """Jobs are descriptions; there is nothing to move."""
        return batch

    def predict_step(self, batch: list[Job | None], batch_index: int = 0) -> int:
        """Return the number of jobs done; everything else is in the store."""
        jobs = [job for job in batch if job is not None]
        keys = {job: self.key(job) for job in jobs}
        missing = self.store.missing_images(keys.values())
        while missing:  # another process may be drawing some of them; those are waited for
            with self.store.claim(missing) as mine:
                self._draw(keys, self.store.missing_images(mine))
            missing = self.store.missing_images(missing - mine)
        for reward in self.rewards.values():
            known = self.store.get_scores(reward.key(), list(keys.values()))
            self._score(reward, {job: key for job, key in keys.items() if key not in known})
        return len(jobs)

    def _draw(self, keys: Mapping[Job, str], wanted: Collection[str]) -> None:
        """Those images of the jobs that are wanted, each once."""
        new = list({key: job for job, key in keys.items() if key in wanted}.values())
        if new:
            images = self.renderer.render(new)
            for job, image in zip(new, images, strict=True):
                self.store.put_image(keys[job], image, self.describe(job))
            self.store.put_notes(KIND, {keys[job]: measure(i).to_dict() for job, i in zip(new, images, strict=True)})

    def _score(self, reward: Reward, keys: Mapping[Job, str]) -> None:
        if not keys:
            return
        pictures = [self.store.get_image(key) for key in keys.values()]
        try:
            scores = reward(pictures, [job.task.prompt for job in keys])
        except RewardError as error:
            at = error.index if error.index is not None else 0
            job, key = list(keys.items())[at]
            files = f"{self.store.image_path(key)} (prompt {job.task.prompt!r}, seed {job.task.seed})"
            among = "" if error.index is not None or len(keys) == 1 else f", first of a batch of {len(keys)}"
            raise RewardError(
                f"{error}\n  image: {files}{among}\n  What is already drawn and scored is kept; run again to go on.",
                reward=error.reward,
                index=error.index,
                prompt=job.task.prompt,
            ) from error
        self.store.put_scores(reward.key(), dict(zip(keys.values(), scores.tolist(), strict=True)))


class Progress(Callback):  # type: ignore[misc]
    """One bar with the time left over a whole search, instead of one for each of its many predict loops.

    Args:
        total: Jobs in all; those that the store has count as done.
    """

    def __init__(self, total: int = 0, **options: Any) -> None:
        self.bar: tqdm[Any] = tqdm(total=total, unit="image", dynamic_ncols=True, smoothing=0.1, delay=0, **options)

    def on_predict_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: int, batch: list[Job | None], *_: Any
    ) -> None:
        """Count the batch; the other processes are about as far."""
        done = min(len(batch) * trainer.world_size, self._left)
        self.add(done)
        self._left -= done

    def start(self, jobs: int) -> None:
        """Announce a predict loop over this number of jobs."""
        self._left = jobs

    def finish(self) -> None:
        """Count what the loop did beyond its full batches."""
        self.add(self._left)
        self._left = 0

    def add(self, jobs: int) -> None:
        """Count jobs as done."""
        self.bar.update(jobs)

    @property
    def done(self) -> int:
        """Jobs so far."""
        return int(self.bar.n)

    def expect(self, total: int) -> None:
        """Correct the number of jobs in all."""
        self.bar.total = total
        self.bar.refresh()

    def label(self, text: str) -> None:
        """Say what is going on."""
        self.bar.set_description(text)

    def close(self) -> None:
        """Leave the bar as it is."""
        self.bar.close()


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
        StudyError: If ``batch_size`` is below 1.
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
        self.renderer = renderer
        self.rewards = rewards
        self.store = store
        self.trainer = trainer
        self.batch_size = batch_size
        self.progress = progress
        # Keys must not depend on when Lightning converts the networks, so that happens here, once.
        self.module = Generation(renderer, rewards, store, str(trainer.precision))
        self.fingerprint = renderer.fingerprint
        trainer.precision_plugin.convert_module(self.module)
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
        loader: DataLoader[Job | None] = DataLoader(rows, batch_size=size, collate_fn=list)  # type: ignore[arg-type]
        if self.progress is not None:
            self.progress.start(len(jobs))
        with warnings.catch_warnings():
            # Workers would only pass job descriptions around.
            warnings.filterwarnings("ignore", message=".*does not have many workers.*")
            try:
                self.trainer.predict(self.module, loader, return_predictions=False)
            except SystemExit as stop:
                if self.trainer.interrupted:  # Lightning's answer to Ctrl-C, and to SIGTERM by way of the command line
                    raise Terminated if isinstance(stop.__context__, Terminated) else KeyboardInterrupt from stop
                raise
        self.trainer.strategy.barrier()
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
            table = self.trainer.strategy.broadcast(table)
        return table


def make_trainer(**options: Any) -> Trainer:
    """A ``Trainer`` that only predicts: no logger, no checkpoints, no bar of its own.

    Args:
        **options: Any option of Lightning's ``Trainer``, which win over these defaults.
    """
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_model_summary": False,
        "enable_progress_bar": False,
    }
    return Trainer(**{**quiet, **options})
