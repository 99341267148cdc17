"""Fewer pictures to draw than processes."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from pagopt.evaluate.generation import Batch, Generation
from pagopt.experiment import run_study
from pagopt.models import load_pipeline
from pagopt.recipe import Recipe
from pagopt.render import Job, Renderer, Task
from pagopt.results import load_results
from pagopt.reward import Objective, RewardSpec
from pagopt.store import Store
from pagopt.study import Study


def test_a_process_without_a_job_does_nothing(tiny_model: Path, tmp_path: Path) -> None:
    """What it gets is padding, alone or beside jobs."""
    renderer = Renderer(load_pipeline(str(tiny_model)), steps=2)
    rewards = Objective([RewardSpec("colorfulness")]).rewards
    with Store(tmp_path / "store") as store:
        module = Generation(renderer, rewards, store)
        jobs = [Job(Recipe(heads="L1.H1"), Task("house", seed)) for seed in range(2)]
        assert module.predict_step(Batch([None])) == 0
        assert store.counts() == {"images": 0, "scores": 0}
        assert module.predict_step(Batch([None, *jobs, None])) == 2
        assert store.counts() == {"images": 2, "scores": 2}


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("ranks", [2, 4])
def test_three_jobs_on_four_processes(ranks: int, study: Study, tiny_model: Path, tmp_path: Path) -> None:
    """At no time there is more to draw than three pictures; then two, and for each process one at most."""
    few = replace(
        study, prompts=["house", "cat", "tree"], held_out_prompts=["sun"], heads="L1.H0", rounds=1, cfg_scales=[],
        compare_layers=False,
    )  # fmt: skip
    alone = run_study(few, "few", tmp_path / "alone", trainer={"accelerator": "cpu"})
    file = tmp_path / "few.yaml"
    file.write_text(yaml.safe_dump(few.to_dict()), encoding="utf-8")
    words = [sys.executable, "-m", "pagopt", "search", str(file), "--out", str(tmp_path / "four")]
    words += ["--trainer.accelerator", "cpu", "--trainer.devices", str(ranks)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr
    four = load_results(tmp_path / "four" / "results.json")
    assert four.recipe == alone.recipe
    assert four.images_generated == alone.images_generated == 8
    for one, other in zip(four.methods, alone.methods, strict=True):
        np.testing.assert_allclose(one.objective, other.objective, atol=0.05)
    found = [sorted(row[0] for row in Store(tmp_path / name / "store").rows()) for name in ("four", "alone")]
    assert found[0] == found[1]
