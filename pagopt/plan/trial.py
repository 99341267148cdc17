"""Trial batches: what an image takes on this machine."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from pagopt.evaluate import Evaluator
from pagopt.evaluate.generation import Batch, Generation
from pagopt.recipe import PLAIN, Recipe
from pagopt.render import Renderer
from pagopt.reward import Reward
from pagopt.store import Store
from pagopt.task import Job, Task

__all__ = ["Trial", "operations"]

LEAST = 2.0
"""Seconds that each kind of picture is drawn for, at least."""

BEYOND = 10**9
"""Added to seeds when the tasks are used up, so that no picture is the same twice."""


class Trial:
    """Draws, scores and stores batches as a run will, in a folder that goes with it.

    Args:
        evaluator: The run's.
        tasks: Its prompts and seeds.
        rewards: Rewards by label, instead of the evaluator's.
        later: Further rewards that :meth:`seconds` is asked for.
        clock: Seconds from any moment on; :func:`time.process_time` leaves out what other programs take.
    """

    def __init__(
        self,
        evaluator: Evaluator,
        tasks: Sequence[Task],
        rewards: Mapping[str, Reward] | None = None,
        later: Mapping[str, Reward] | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.renderer, self.trainer, self.clock = evaluator.renderer, evaluator.trainer, clock
        self.rewards = evaluator.rewards if rewards is None else rewards
        self.device = self.trainer.strategy.root_device
        self.size = evaluator.batch_size
        self._folder = tempfile.TemporaryDirectory(prefix="pagopt-plan-")
        self._store = Store(Path(self._folder.name))
        self._seeds = 0
        self.renderer.place(self.device)
        every = {**self.rewards, **(later or {})}
        for reward in {id(reward): reward for reward in (*self.rewards.values(), *every.values())}.values():
            reward.move(self.device)
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        # The first batch of a process is slow, and a prompt is encoded once.
        self._draw(next(self._batches([PLAIN], tasks)), self.renderer, every)

    def close(self) -> None:
        """Remove the folder."""
        self._store.close()
        self._folder.cleanup()

    def seconds(
        self,
        recipes: Sequence[Recipe],
        tasks: Sequence[Task],
        rewards: Mapping[str, Reward] | None = None,
        renderer: Renderer | None = None,
        least: float | None = None,
    ) -> float:
        """Time of one image of these recipes on these tasks.

        Args:
            recipes: They share batches, as in the run: candidates of one task have much in common.
            tasks: Prompts and seeds.
            rewards: Instead of the trial's.
            renderer: Instead of the run's, for another number of steps.
            least: Seconds of batches, instead of ``LEAST``.
        """
        draw, used = renderer or self.renderer, self.rewards if rewards is None else rewards
        batches = self._batches(recipes, tasks)
        if draw.compile:
            self._draw(next(batches), draw, used)
        images, spent, enough = 0, 0.0, LEAST if least is None else least
        for jobs in batches:
            begin = self.clock()
            self._draw(jobs, draw, used)
            spent += self.clock() - begin
            images += len(jobs)
            if spent >= enough:
                break
        return spent / images

    def peak(self) -> int | None:
        """Bytes of GPU memory in use at most."""
        return torch.cuda.max_memory_allocated(self.device) if self.device.type == "cuda" else None

    def _batches(self, recipes: Sequence[Recipe], tasks: Sequence[Task]) -> Iterator[list[Job]]:
        """Batches without an end, in the order of :class:`pagopt.evaluate.Evaluator`: task by task.

        Of more recipes than fit into a batch each gets as many as fit, spread over all of them.
        """
        if len(recipes) > self.size:
            recipes = [recipes[i * len(recipes) // self.size] for i in range(self.size)]
        size = min(self.size, len(recipes) * len(tasks))
        jobs: list[Job] = []
        while True:
            self._seeds += BEYOND  # no two calls draw the same picture
            for prompt, seed in tasks:
                jobs += [Job(recipe, Task(prompt, (seed + self._seeds) % 2**63)) for recipe in recipes]
                while len(jobs) >= size:
                    yield jobs[:size]
                    jobs = jobs[size:]

    def _draw(self, jobs: list[Job], renderer: Renderer, rewards: Mapping[str, Reward]) -> None:
        step = Generation(renderer, rewards, self._store, str(self.trainer.precision))
        step.strict = False  # what does nothing takes as long
        with self.trainer.precision_plugin.predict_step_context(), torch.inference_mode():
            step.predict_step(Batch(jobs))


def operations(renderer: Renderer, task: Task) -> int:
    """Floating-point operations of an unguided image, a multiplication and an addition being two."""
    # The counter knows no fused attention on a CPU; written out, it counts every product.
    with FlopCounterMode(display=False) as counter, torch.inference_mode(), sdpa_kernel(SDPBackend.MATH):
        renderer.render([Job(PLAIN, task)])
    return int(counter.get_total_flops())
