"""A tuning on the tiny model that takes a second or two."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from pagopt.study import Study
from pagopt.tuning import Tuned, Tuning, tune

STUDY: dict[str, Any] = {
    "reward": "colorfulness",
    "prompts": ["red apple", "house", "cat", "tree", "sun", "boat"],
    "held_out_prompts": ["key", "moon"],
    "scale": 2.0,
    "steps": 2,
    "cfg_scales": [2.0],
}
TUNING: dict[str, Any] = {
    "recipe": "L1.H1 L0.H0",
    "space": {"strength": [0, 1], "scale": {"low": 0.5, "high": 4.0, "log": True}},
    "trials": 7,
    "at_once": 2,
    "rungs": [3],
    "sampler_options": {"n_startup_trials": 2},
}
TRAINER = {"accelerator": "cpu"}


@pytest.fixture(scope="session")
def make(tiny_model: Path) -> Callable[..., Tuning]:
    """A tuning, with changes; those of the study as `study={...}`."""

    def made(study: dict[str, Any] | None = None, **changes: Any) -> Tuning:
        return Tuning(Study(**{**STUDY, "model": str(tiny_model), **(study or {})}), **{**TUNING, **changes})

    return made


@pytest.fixture(scope="session")
def whole(make: Callable[..., Tuning], tmp_path_factory: pytest.TempPathFactory) -> tuple[Tuned, Path]:
    """The tuning, run to its end, and its folder; not to be changed."""
    out = tmp_path_factory.mktemp("tuned") / "run"
    return tune(make(), "tiny", out, trainer=TRAINER), out


@pytest.fixture
def tuning_file(tiny_model: Path, tmp_path: Path) -> Path:
    """The same as a YAML file."""
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump({**STUDY, **TUNING, "model": str(tiny_model)}), encoding="utf-8")
    return path
