"""Whose features distances are measured in, where nobody says so."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pagopt.comparison import Comparison, load_entrants, run_comparison
from pagopt.models import fingerprint, load_pipeline
from pagopt.recipe import Provenance, Recipe
from pagopt.reward import RewardSpec

REWARDS = """
import numpy as np

class Searched:
    def __call__(self, images, prompts):
        return [float(np.asarray(image).mean()) for image in images]

    def features(self, images):
        return np.stack([np.asarray(image.resize((2, 1))).ravel() for image in images])

class Other(Searched):
    pass
"""


@pytest.fixture
def comparison(tiny_model: Path, tmp_path: Path) -> Comparison:
    """One recipe, found by the reward ``Searched``, beside six reference pictures."""
    (tmp_path / "mine.py").write_text(REWARDS)
    known = Provenance(
        str(tiny_model),
        fingerprint(load_pipeline(str(tiny_model))),
        [{"label": "Searched", "name": f"{tmp_path / 'mine.py'}:Searched", "weight": 1.0, "args": {}}],
        {"steps": 1},
    )
    Recipe("L2.H1", scale=2.0, cfg=1.0).save(tmp_path / "late.json", known)
    (tmp_path / "real").mkdir()
    noise = np.random.default_rng(0)
    for number in range(6):
        Image.fromarray(noise.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(tmp_path / "real" / f"{number}.png")
    return Comparison(
        load_entrants([tmp_path / "late.json"]),
        ["flat, cat face", "flat, sun", "flat, key"],
        seeds=2,
        cfg_scales=[],
        compare_layers=False,
        best_of=False,
        reference=tmp_path / "real",
        rewards=[RewardSpec(f"{tmp_path / 'mine.py'}:Searched")],
    )


def test_what_a_search_maximised_only_for_want_of_others(comparison: Comparison, tmp_path: Path) -> None:
    (searched,) = comparison.rewards
    other = RewardSpec(searched.name.replace("Searched", "Other"))
    said = "a search maximised: they flatter it"
    for rewards, expected in (([searched], searched), ([searched, other], other)):
        found = run_comparison(
            replace(comparison, rewards=rewards), tmp_path / str(len(rewards)), trainer={"accelerator": "cpu"}
        )
        assert found.distances is not None
        assert found.distances.features == expected.name
        page = (tmp_path / str(len(rewards)) / "table.md").read_text(encoding="utf-8")
        assert (said in page) == (expected is searched)
