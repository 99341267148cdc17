"""A worker that scores batches: started when it is needed, again when it died, ended with this process."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from pagopt.errors import RewardError
from pagopt.isolated.process import Died, Life, say

__all__ = ["Worker"]


class Worker:
    """Scores batches in a process of another Python, which stays up between them.

    Args:
        name: How messages call it.
        python: That Python.
        start: What :mod:`pagopt.isolated.worker` needs to load the scorer: "scorer", "before", "args", "device".
        variables: Environment variables on top of this process's own.
        start_seconds: How long loading may take.
        batch_seconds: How long a batch may take.
        restarts: How often a process that died is started again for one batch.

    Attributes:
        load_seconds: What the last start cost, all together; nan before the first one.
        score_seconds: What the scorer itself took for the last batch, without the way there and back.
        starts: How many processes were started so far.
    """

    def __init__(
        self,
        name: str,
        python: Path,
        start: Mapping[str, Any],
        variables: Mapping[str, str] | None = None,
        *,
        start_seconds: float = 1800.0,
        batch_seconds: float = 600.0,
        restarts: int = 2,
    ) -> None:
        for what, value in (("start_seconds", start_seconds), ("batch_seconds", batch_seconds)):
            if not isinstance(value, int | float) or not 0 < value <= threading.TIMEOUT_MAX:
                most = f"at most {threading.TIMEOUT_MAX:.0e}"
                raise RewardError(f"{name}: {what} is {value!r}; it must be a number above 0, and {most}")
        if not isinstance(restarts, int) or restarts < 0:
            raise RewardError(f"{name}: restarts is {restarts!r}; it must be a whole number, 0 or more")
        self.name, self.python, self.start = name, python, dict(start)
        self.variables = dict(variables or {})
        self.start_seconds, self.batch_seconds, self.restarts = start_seconds, batch_seconds, restarts
        self.load_seconds = self.score_seconds = float("nan")
        self.starts = 0
        self._life: Life | None = None
        self._lock = threading.Lock()

    def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> list[float]:
        """Score a batch, after a crash again in a new process.

        Args:
            images: RGB.
            prompts: As many.

        Returns:
            What the scorer returned, as numbers; how many is not checked.

        Raises:
            RewardError: If the scorer raises, the worker does not start, dies too often, or takes too long.
        """
        header = {"kind": "score", "sizes": [image.size for image in images], "prompts": list(prompts)}
        pixels = [image.tobytes() for image in images]
        with self._lock:
            for left in range(self.restarts, -1, -1):
                life = self._running()
                try:
                    reply = self._ask(life, header, pixels, self.batch_seconds, "batch_seconds")
                    self.score_seconds = float(reply["seconds"])
                    return [float(score) for score in reply["scores"]]
                except Died as death:
                    self._forget()
                    if not left:
                        raise RewardError(
                            f"{self.name}: the worker died {self.restarts + 1} times on this batch of {len(images)} "
                            f"images: it {death}"
                        ) from None
                    say(self.name, f"the worker {death.args[0].splitlines()[0]} Starting it again for this batch.")
        raise AssertionError("unreachable")

    def check(self) -> None:
        """Import the scorer without making it, in a process that ends afterwards.

        Raises:
            RewardError: If that fails, with the package's own traceback.
        """
        with self._lock:
            self._forget()
            try:
                self._begin("check")
            finally:
                self._forget()

    def close(self) -> None:
        """End the process; the next batch starts another."""
        self._forget()

    def __getstate__(self) -> dict[str, Any]:
        """A copy in another process has a worker of its own."""
        return {**self.__dict__, "_life": None, "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.Lock())

    def _running(self) -> Life:
        if self._life is None or self._life.owner != os.getpid():  # after a fork the pipes are the parent's
            self._begin("start")
        assert self._life is not None
        return self._life

    def _begin(self, kind: str) -> None:
        began = time.monotonic()
        self._life = Life(self.name, self.python, self.variables)
        self.starts += 1
        try:
            self._ask(self._life, {**self.start, "kind": kind}, [], self.start_seconds, "start_seconds")
        except Died as death:
            self._forget()
            raise RewardError(f"{self.name}: the worker {death}\nIt died while the scorer was loaded.") from None
        except RewardError:
            self._forget()
            raise
        self.load_seconds = time.monotonic() - began

    def _ask(
        self, life: Life, header: dict[str, Any], parts: list[bytes], limit: float, setting: str
    ) -> dict[str, Any]:
        try:
            reply = life.ask({**header, "limit": limit}, parts, limit)
        except TimeoutError:
            doing = "loading the scorer" if header["kind"] != "score" else f"scoring {len(parts)} images"
            self._forget()
            raise RewardError(
                f"{self.name}: {doing} took longer than {limit:g} seconds, so the worker was ended. If that is no "
                f"hang, raise the reward's argument `{setting}`.{life.last_words()}"
            ) from None
        except Died:
            raise
        except BaseException:  # Ctrl-C: nobody will read the answer
            self._forget()
            raise
        if reply["kind"] == "error":
            raise RewardError(f"{self.name}: {reply['error']}\n\n{reply['traceback'].rstrip()}")
        return reply

    def _forget(self) -> None:
        if self._life is not None and self._life.owner == os.getpid():
            self._life.end()
        self._life = None
