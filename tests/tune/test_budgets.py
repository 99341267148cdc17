"""How the benchmarks of tuning keep to a budget of images, and compare on held-out tasks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks import tuning, tuning_heads
from benchmarks.tuning_common import STUDIES, differences, judged, study_of, tune_within
from pagopt.tuning import Space, Tuning
from pagopt.tuning.start import find_start


def test_a_tuning_keeps_to_its_images(make: Callable[..., Tuning], tmp_path: Path) -> None:
    asked = make(study={"cfg_scales": []}, trials=40)
    tuned = tune_within(asked, "tuned", tmp_path, images=33, most=40, batch=8)
    assert 33 - 2 * 6 < judged(tuned) <= 33, "a batch of two more trials could be too many"
    assert len(tuned.trials) >= 33 // 6
    few = tune_within(asked, "few", tmp_path, images=1000, most=4, batch=8)
    assert len(few.trials) == 4
    with pytest.raises(SystemExit, match="11 images are not enough for 2 trials"):
        tune_within(asked, "none", tmp_path, images=11, most=40, batch=8)


def test_the_studies_differ_in_everything() -> None:
    options = SimpleNamespace(tasks=16, held_out=48, steps=6, cfg=1.0)
    studies = [study_of(number, options) for number in range(len(STUDIES))]
    assert len({tuple(study.prompts) for study in studies}) == len(studies)
    seeds = [seed for study in studies for seed in study.seeds or []]
    assert len(set(seeds)) == len(seeds)
    assert len({(study.style, study.specs[0].name) for study in studies[:5]}) == 5
    for space, heads in [(tuning.SPACE, tuning.HEADS), *((way[1], tuning.HEADS) for way in tuning_heads.WAYS.values())]:
        start = find_start(Tuning(studies[0], recipe=heads, space=space))
        assert Space(space, start.recipe, start.order, options.steps).varied()
    assert len(tuning.GRID) == len(set(tuning.GRID)) == 40


def test_differences_and_their_intervals(capsys: pytest.CaptureFixture[str]) -> None:
    noise = np.random.default_rng(0)
    done = []
    for number in range(3):
        base = noise.normal(size=40)
        found = base + 0.5 + 0.1 * noise.normal(size=40)
        recipe = tuning.GRID[number].to_dict()
        done.append({
            "study": f"{number}: flat", "images": {"grid": 640, "tuned": 200}, "trials": 30, "pruned": 20,
            "search": {"grid": 1.0, "tuned": 1.5}, "recipes": {"grid": recipe, "tuned": recipe},
            "unseen": {**dict.fromkeys(("no guidance", "no heads", "grid"), base.tolist()), "tuned": found.tolist()},
        })  # fmt: skip
    gains = differences(done, "tuned", "grid")
    assert list(gains) == ["0: flat", "1: flat", "2: flat", "all pictures", "studies"]
    for mean, low, high in gains.values():
        assert low <= mean <= high
        assert mean == pytest.approx(0.5, abs=0.05)
        assert high - low < 0.1
    tuning.show(done)
    said = capsys.readouterr().out
    assert "31.2% of the images" in said
    assert "| 0: flat | 640 | 200 | 30 (20) |" in said
    tuning_heads.show(done)
    assert "tuned - grid over studies: +0.497" in capsys.readouterr().out
