"""Two searches on one store at the same time: nothing corrupt, nothing twice."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import yaml

from pagopt.results import load_results
from pagopt.store import Store, verify

# The command line as it is, which also says what it draws.
SEARCH = """
import sys
from pagopt.cli import main
from pagopt.store import Store

put = Store.put_images
def told(store, entries):
    entries = list(entries)
    put(store, entries)
    with open(sys.argv[1], "a") as file:
        file.writelines(key + "\\n" for key, *_ in entries)
Store.put_images = told
raise SystemExit(main(sys.argv[2:]))
"""
STUDY = {
    "prompts": ["red apple", "house", "cat", "tree"],
    "rounds": 1,
    "heads_per_round": 1,
    "steps": 2,
    "cfg_scales": [2.0],
    "held_out_prompts": ["sun"],
}


def test_two_searches_at_once(tiny_model: Path, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    rewards = {"a": "colorfulness", "b": "brightness"}
    running = []
    for name, reward in rewards.items():
        study = tmp_path / f"{name}.yaml"
        study.write_text(yaml.safe_dump({**STUDY, "reward": reward, "model": str(tiny_model)}))
        words = ["search", str(study), "--out", str(tmp_path / name), "--store", str(shared), "--batch_size", "3"]
        words = [sys.executable, "-c", SEARCH, str(tmp_path / f"{name}.drawn"), *words, "--trainer.accelerator", "cpu"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        running.append(subprocess.Popen(words, env=environment, stderr=subprocess.PIPE, text=True))
    said = [process.communicate(timeout=240)[1] for process in running]
    assert [process.returncode for process in running] == [0, 0], said

    drawn = [
        (tmp_path / f"{name}.drawn").read_text().split() if (tmp_path / f"{name}.drawn").exists() else []
        for name in rewards
    ]
    both = drawn[0] + drawn[1]
    assert len(both) == len(set(both))  # no image was drawn twice
    with Store(shared, read_only=True) as store:
        rows = [row[0] for row in store.rows()]
        assert sorted(rows) == sorted(both)
        found = verify(store)
        assert found.clean
        assert found.unlisted == found.strange == found.unfinished == []
        # Plain, CFG, 3 layers, 6 heads on four tasks are the same for both; so each has all of their scores.
        assert len(store.rewards()) == 2
        assert min(store.rewards().values()) >= 11 * 4
        for name in rewards:
            results = load_results(tmp_path / name / "results.json")
            for method in results.methods:
                assert not store.missing_images(method.images)
    for name in rewards:
        assert not (tmp_path / name / "store").exists()
