"""The reward ``isolated``: a scorer in an environment of its own."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from pagopt.errors import RewardError
from pagopt.isolated import client, environment, process, record, worker
from pagopt.isolated.client import Worker
from pagopt.isolated.environment import find_environment, find_record, not_installed
from pagopt.reward import Reward
from pagopt.reward.hardware import gpu_hint
from pagopt.reward.identity import add_file, named_path, plain, words_in

__all__ = ["Isolated"]

LIMITS = ("device", "start_seconds", "batch_seconds", "restarts")  # they change no score


class Isolated(Reward):
    """Scores by a package that has an environment of its own, in a process beside this one.

    Unit and range are the package's. The process is started with the first batch and ends with this one; see
    docs/isolated-rewards.md. A subclass with a name, arguments and an entry point of its own calls ``__init__``.

    Args:
        record: Name or YAML file of a :class:`~pagopt.isolated.record.Record`.
        args: Arguments of its scorer, plain JSON.
        device: Where the package computes, "cpu" or "cuda:1"; ``None`` goes where pagopt goes.
        start_seconds: How long it may take to load.
        batch_seconds: How long it may take for a batch.
        restarts: How often a process that died is started again for one batch.

    Raises:
        RewardError: If there is no such record, or its environment is not installed.
    """

    def __init__(
        self,
        record: str,
        args: Mapping[str, Any] | None = None,
        device: str | None = None,
        start_seconds: float = 1800.0,
        batch_seconds: float = 600.0,
        restarts: int = 2,
    ) -> None:
        self.record = find_record(record)
        todo = not_installed(self.record)
        if todo:
            raise RewardError(f"{self.record.name} has no environment yet. Build it: {todo}", reward=self.name)
        self.environment = find_environment(self.record)
        if not isinstance(args, Mapping | None):
            raise RewardError(f"{self.record.name}: args are {args!r}, not names with values", reward=self.name)
        self.args = plain(args or {}, f"{self.record.name}: args")
        self.device = device
        self._fixed = device is not None
        self.worker = Worker(
            self.record.name,
            self.environment.python,
            self.record.start(self.args, device or "cpu"),
            self.record.variables,
            start_seconds=start_seconds,
            batch_seconds=batch_seconds,
            restarts=restarts,
        )

    def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> list[float]:
        """What the package says of the batch."""
        try:
            return self.worker.score(images, prompts)
        except RewardError as error:
            if gpu_hint(error):  # by its words; what this process's torch can use says nothing of that one's
                raise RewardError(
                    f"{error}\n{self.record.name} was to compute on {self.worker.start['device']!r}, and asks for a "
                    "device that this machine, or the torch in its environment, lacks. Give it `device: cpu`; or build "
                    f"the environment with another torch: pagopt rewards install {self.record.name} --force --pin "
                    "torch==VERSION.",
                    reward=self.name,
                ) from error
            raise

    def move(self, device: torch.device) -> None:
        """Have the package compute there from the next batch on, unless ``device`` was given."""
        if not self._fixed and self.worker.start["device"] != str(device):
            self.worker.close()
            self.worker.start["device"] = str(device)

    def describe(self) -> dict[str, Any]:
        """As for every reward, without what changes no score: device and limits."""
        described = super().describe()
        kept = {key: value for key, value in described["arguments"].items() if key not in LIMITS}
        return {**described, "arguments": kept}

    def identity(self) -> dict[str, Any]:
        """The record with its Python files, the versions installed now, and the files that arguments name."""
        code = hashlib.sha256()
        for file in (__file__, *(module.__file__ for module in (client, environment, process, record, worker))):
            code.update(Path(str(file)).read_bytes())
        named = {word: named_path(word) for word in words_in(self.args)}
        files = {word: _fingerprint(path) for word, path in named.items() if path is not None}
        return {
            "record": self.record.identity(),
            "packages": self.environment.packages,
            "files": files,
            "code": code.hexdigest(),
        }


def _fingerprint(path: Path) -> str:
    """sha256 over a file or the files of a folder; of large ones size, beginning, end and samples."""
    digest = hashlib.sha256()
    for file in [path] if path.is_file() else sorted(item for item in path.rglob("*") if item.is_file()):
        digest.update(f"{file.relative_to(path.parent) if file != path else ''} ".encode())
        add_file(digest, file)
    return digest.hexdigest()
