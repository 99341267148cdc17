"""What the tests of isolated rewards share."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pagopt.isolated.client import Worker


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder for environments."""
    monkeypatch.setenv("PAGOPT_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def workers(tmp_path: Path) -> Iterator[Callable[..., Worker]]:
    """Make a worker of this Python from the source of a scorer file; all are ended afterwards."""
    made: list[Worker] = []

    def worker(source: str, name: str = "f", **options: object) -> Worker:
        (tmp_path / "scorer.py").write_text(source)
        args, before = options.pop("args", {}), options.pop("before", [])
        start = {"scorer": f"{tmp_path / 'scorer.py'}:{name}", "args": args, "device": "cpu", "before": before}
        made.append(Worker("tiny", Path(sys.executable), start, **options))  # type: ignore[arg-type]
        return made[-1]

    yield worker
    for each in made:
        each.close()


@pytest.fixture(scope="session")
def pictures() -> list[Image.Image]:
    """32 different RGB pictures of several sizes and shapes."""
    noise = np.random.default_rng(0)
    sizes = [(int(w), int(h)) for w, h in noise.integers(1, 90, (32, 2))]
    return [Image.fromarray(noise.integers(0, 256, (h, w, 3), dtype=np.uint8)) for w, h in sizes]
