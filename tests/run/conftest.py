"""A study on the tiny model that takes a second or two."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import yaml
from numpy.typing import NDArray

from pagopt.evaluate import Evaluator
from pagopt.recipe import Recipe
from pagopt.render import Task
from pagopt.study import Study

STUDY = {
    "reward": "colorfulness",
    "prompts": ["red apple", "house"],
    "held_out_prompts": ["cat", "tree", "sun"],
    "rounds": 2,
    "heads_per_round": 1,
    "steps": 2,
    "cfg_scales": [2.0],
}


@pytest.fixture
def study(tiny_model: Path) -> Study:
    return Study(**STUDY, model=str(tiny_model))


@pytest.fixture
def study_file(tiny_model: Path, tmp_path: Path) -> Path:
    """The same as a YAML file."""
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump({**STUDY, "model": str(tiny_model)}), encoding="utf-8")
    return path


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """How many images evaluators were asked for since the test began."""
    images = 0
    call = Evaluator.__call__

    def counted(self: Evaluator, recipes: Sequence[Recipe], tasks: Sequence[Task]) -> dict[str, NDArray[np.float64]]:
        nonlocal images
        images += len(recipes) * len(tasks)
        return call(self, recipes, tasks)

    monkeypatch.setattr(Evaluator, "__call__", counted)
    return lambda: images
