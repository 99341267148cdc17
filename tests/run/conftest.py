"""A study on the tiny model that takes a second or two."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

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
