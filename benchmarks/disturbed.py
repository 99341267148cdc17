"""A small search in processes of its own that can be killed, and a disk that can be full; see ``kills.py``."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

__all__ = ["BATCH", "Disturbed", "child", "disk", "ended", "is_left", "may_mount", "size_of"]

STUDY: dict[str, Any] = {
    "prompts": ["red apple", "house", "cat face"],
    "held_out_prompts": ["sun"],
    "reward": "colorfulness",
    "style": "flat",
    "heads": "L4-5.H*",
    "rounds": 2,
    "heads_per_round": 2,
    "steps": 4,
    "scale": 2.0,
    "cfg_scales": [2.0],
}
BATCH = 8
PATIENCE = 600.0  # seconds for a run to end
LEFT_BEHIND = 60.0  # seconds for the other processes of a run to end after the first


class Disturbed:
    """A search in processes of its own, whose images can be counted while it runs.

    Args:
        folder: For the study, the run, the log of images and the numbers of the processes.
        search: Which search.
        processes: How many.
    """

    def __init__(self, folder: Path, search: str, processes: int) -> None:
        self.folder, self.out, self.search = folder, folder / "run", search
        study = folder / "study.yaml"
        words = ["search", str(study), "--out", str(self.out), "--batch_size", str(BATCH)]
        self.words = [*words, "--trainer.accelerator", "cpu", "--trainer.devices", str(processes)]

    def make(self) -> None:
        """Make the folder and the study."""
        self.folder.mkdir(parents=True, exist_ok=True)
        text = yaml.safe_dump({**STUDY, "search": self.search})
        (self.folder / "study.yaml").write_text(text, encoding="utf-8")

    def start(self, limit: int | None = None) -> subprocess.Popen[str]:
        """Start it, in a process group of its own; ``limit`` is the largest size of a file, in bytes."""
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "KILLS_FOLDER": str(self.folder), "COLUMNS": "200"}
        for path in self.folder.glob("process.*"):
            path.unlink()

        def prepare() -> None:
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell lets its background processes ignore it
            if limit is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

        words = [sys.executable, "-m", "benchmarks.kills", "--child", *self.words]
        how: dict[str, Any] = {"start_new_session": True, "preexec_fn": prepare, "text": True, "env": environment}
        with (self.folder / "errors.txt").open("w", encoding="utf-8") as errors:
            return subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=errors, **how)

    def begun(self) -> list[str]:
        """A line for every image that was begun."""
        lines: list[str] = []
        for path in sorted(self.folder.glob("images.*")):
            lines += path.read_text(encoding="utf-8").split()
        return lines

    def said(self) -> str:
        """The last line of the errors."""
        lines = (
            (self.folder / "errors.txt").read_text(encoding="utf-8", errors="replace").replace("\r", "\n").split("\n")
        )
        return next((line.strip() for line in reversed(lines) if line.strip()), "")

    def verify(self) -> int:
        """The status of ``pagopt store verify``; 0 where nothing is kept yet."""
        from pagopt.cli import main as command

        store = self.out / "store"
        if not (store / "index.sqlite").exists():
            return 0
        with contextlib.redirect_stdout(io.StringIO()):
            return command(["store", "verify", str(store)])


def child(words: list[str]) -> int:
    """The command line as it is, which also writes down which images it begins."""
    from pagopt.cli import main as command
    from pagopt.render import Renderer

    folder, rank = Path(os.environ["KILLS_FOLDER"]), os.environ.get("LOCAL_RANK", "0")
    (folder / f"process.{rank}").write_text(str(os.getpid()), encoding="utf-8")
    render = Renderer.render

    def told(renderer: Renderer, jobs: Sequence[Any]) -> Any:
        with (folder / f"images.{rank}").open("a", encoding="utf-8") as file:
            for job in jobs:
                what = json.dumps([job.recipe.to_dict(), job.task.prompt, job.task.seed, renderer.steps])
                file.write(hashlib.sha256(what.encode()).hexdigest()[:16] + "\n")
        return render(renderer, jobs)

    Renderer.render = told  # type: ignore[method-assign, assignment]
    return command(words)


@contextlib.contextmanager
def disk(folder: Path, size: int) -> Iterator[int | None]:
    """A folder on a disk of so many bytes; or the largest size of a file, where none can be mounted."""
    folder.mkdir(parents=True)
    if not may_mount():
        yield size
        return
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], check=True)
    try:
        yield None
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def may_mount() -> bool:
    """Whether a tmpfs can be mounted."""
    return os.geteuid() == 0 and shutil.which("mount") is not None


def size_of(folder: Path) -> int:
    """Bytes of a folder on a disk with pages of 4 KB."""
    return sum(-(-path.stat().st_size // 4096) * 4096 for path in folder.rglob("*") if path.is_file())


def ended(process: subprocess.Popen[str]) -> int:
    """The status of a run; one that does not end is killed and gives 99."""
    try:
        return process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return 99


def is_left(group: int) -> bool:
    """Whether a process of an ended run does not end in time; it is killed then."""
    deadline = time.monotonic() + LEFT_BEHIND
    while time.monotonic() < deadline:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return False
        time.sleep(0.1)
    os.killpg(group, signal.SIGKILL)
    return True
