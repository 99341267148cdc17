"""What happens to a batch of jobs: drawn, measured, scored, and put into the store."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import torch
from lightning.pytorch import LightningModule
from PIL import Image

from pagopt.device import HALF, half_has_noise_of_its_own
from pagopt.errors import RewardError
from pagopt.looks import KIND, measure
from pagopt.recipe import Recipe
from pagopt.render import Renderer
from pagopt.reward import Reward
from pagopt.reward.hardware import move_reward
from pagopt.reward.source import source_of
from pagopt.store import Store
from pagopt.targets import known_targets
from pagopt.task import Job

__all__ = ["IDLE", "Batch", "Generation"]

IDLE = "idle@1"
"""Name of the notes in the store on images whose recipe does nothing."""


class Batch:
    """Jobs that are drawn together.

    A class of its own, since Lightning looks into collections for tensors to convert, and stops at frozen recipes.

    Args:
        jobs: ``None`` stands for padding, where there are fewer jobs than processes.
    """

    def __init__(self, jobs: Iterable[Job | None]) -> None:
        self.jobs = [job for job in jobs if job is not None]


class _Pictures(dict[str, Image.Image]):
    """The images of a batch by key; one that was not drawn in it is read from the store, once."""

    def __init__(self, store: Store) -> None:
        super().__init__()
        self._store = store

    def __missing__(self, key: str) -> Image.Image:
        self[key] = image = self._store.get_image(key)
        return image


class Generation(LightningModule):  # type: ignore[misc]
    """Draws and scores the jobs of a batch, and puts both into the store.

    The networks are not registered: Lightning brings what is registered to the CPU after every loop, and a search runs
    many.
    """

    def __init__(
        self, renderer: Renderer, rewards: Mapping[str, Reward], store: Store, precision: str = "32-true"
    ) -> None:
        super().__init__()
        self.renderer = renderer
        self.rewards = rewards
        self.store = store
        self.precision = precision
        self.strict = True
        """Whether a recipe that does nothing is an error. Among many candidates it is a finding, which is noted."""

    def describe(self, job: Job) -> dict[str, Any]:
        """Everything that changes this image (JSON); recipes that do nothing describe the same image."""
        recipe = Recipe(scale=0.0, cfg=job.recipe.cfg) if job.recipe.is_plain else job.recipe
        kind = known_targets().get(recipe.target)
        own = kind is not None and not kind.__module__.startswith("pagopt.")
        pipeline = type(self.renderer.pipe)
        subclass = not pipeline.__module__.startswith("diffusers.")
        return {
            **({"target_source": source_of(kind)[:16]} if own else {}),
            **({"pipeline_source": source_of(pipeline)[:16]} if subclass else {}),
            **self.renderer.describe(),
            "precision": self.precision,
            **({"noise": "half precision"} if half_has_noise_of_its_own() and self._draws_noise_in_half() else {}),
            "recipe": recipe.replace(cfg=recipe.cfg or 1.0).to_dict(),
            "prompt": job.task.prompt,
            "seed": job.task.seed,
        }

    def _draws_noise_in_half(self) -> bool:
        """Whether pipelines may: they draw it in the dtype that the prompts are encoded in."""
        first = (next(module.parameters(), None) for module in self.renderer.modules().values())
        return self.precision != "32-true" or any(one is not None and one.dtype in HALF for one in first)

    def key(self, job: Job) -> str:
        """The store key of a job's image."""
        return Store.key(self.describe(job))

    def setup(self, stage: str) -> None:
        """Networks and rewards go to the device, and stay there.

        Before the loop, since in inference mode quantised weights cannot be moved.
        """
        device = self.trainer.strategy.root_device
        self.renderer.place(device)
        for label, reward in self.rewards.items():
            move_reward(label, reward, device)

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, index: int) -> Batch:
        """Jobs are descriptions; there is nothing to move."""
        return batch

    def predict_step(self, batch: Batch, batch_index: int = 0) -> int:
        """Return the number of jobs done; everything else is in the store."""
        jobs = batch.jobs
        keys = {job: self.key(job) for job in jobs}
        pictures = _Pictures(self.store)
        missing = self.store.missing_images(keys.values())
        while missing:  # another process may be drawing some of them; those are waited for
            with self.store.claim(missing) as mine:
                pictures |= self._draw(keys, self.store.missing_images(mine))
            missing = self.store.missing_images(missing - mine)
        for reward in self.rewards.values():
            known = self.store.get_scores(reward.key(), list(keys.values()))
            self._score(reward, {job: key for job, key in keys.items() if key not in known}, pictures)
        return len(jobs)

    def _draw(self, keys: Mapping[Job, str], wanted: Collection[str]) -> dict[str, Image.Image]:
        """Those images of the jobs that are wanted, each once, by key."""
        new = {key: job for job, key in keys.items() if key in wanted}
        if not new:
            return {}
        idle: list[Job] = []
        note = None if self.strict else idle.append
        images = dict(zip(new, self.renderer.render(list(new.values()), note), strict=True))
        # Before the images: of one that is in the store it is known.
        self.store.put_notes(IDLE, {key: {} for key, job in new.items() if job in idle})
        self.store.put_images((key, image, self.describe(new[key])) for key, image in images.items())
        self.store.put_notes(KIND, {key: measure(image).to_dict() for key, image in images.items()})
        return images

    def _score(self, reward: Reward, keys: Mapping[Job, str], pictures: _Pictures) -> None:
        if not keys:
            return
        try:
            scores = reward([pictures[key].copy() for key in keys.values()], [job.task.prompt for job in keys])
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
