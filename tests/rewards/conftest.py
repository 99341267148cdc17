"""What the tests of the shipped rewards share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter
from tiny_clip import save_tiny_clip


@pytest.fixture(scope="session")
def tiny_clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_tiny_clip(tmp_path_factory.mktemp("clip")))


@pytest.fixture(scope="session")
def pictures() -> list[Image.Image]:
    """Seven different RGB pictures of several sizes and shapes."""
    noise = np.random.default_rng(0)
    sizes = [(64, 64), (64, 48), (40, 96), (32, 32), (33, 35), (128, 128), (64, 64)]
    images = [Image.fromarray(noise.integers(0, 256, (h, w, 3), dtype=np.uint8)) for w, h in sizes]
    return [image.filter(ImageFilter.GaussianBlur(i)) for i, image in enumerate(images)]


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., str]:
    """Write a reward file, return its path."""

    def file(source: str, name: str = "mine.py") -> str:
        (tmp_path / name).write_text(source)
        return str(tmp_path / name)

    return file


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Install a distribution with entry points, as pip would."""

    def install(name: str, source: str, **points: str) -> None:
        site = tmp_path / f"site-{name}"
        info = site / f"{name}-1.2.dist-info"
        info.mkdir(parents=True)
        (site / f"{name}.py").write_text(source)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
        lines = [f"{key} = {value}" for key, value in points.items()]
        (info / "entry_points.txt").write_text("\n".join(["[pagopt.rewards]", *lines, ""]))
        monkeypatch.syspath_prepend(str(site))

    return install
