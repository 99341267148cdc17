"""A finished run is known as such at once, unless a reward of the user's, or the model, has changed since."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

from pagopt.errors import RewardError, StudyError
from pagopt.experiment import Run, run_study
from pagopt.folder import Folder, configuration
from pagopt.reward import RewardSpec, own_keys
from pagopt.study import Study

CPU = {"accelerator": "cpu"}
WARMTH = """def warmth(images, prompts):
    return [{} + float(image.resize((1, 1)).getpixel((0, 0))[0]) for image in images]
"""


def test_a_changed_file_is_scored_anew(study: Study, tmp_path: Path) -> None:
    file = tmp_path / "warmth.py"
    file.write_text(WARMTH.format(0), encoding="utf-8")
    own = replace(study, reward=f"{file}:warmth", watch=["brightness"])
    first = run_study(own, "own", tmp_path / "run", trainer=CPU)
    assert run_study(own, "own", tmp_path / "run", trainer=CPU) == first
    file.write_text(WARMTH.format(100), encoding="utf-8")
    again = run_study(own, "own", tmp_path / "run", trainer=CPU)
    assert again.images_generated == 0
    assert again.baseline.mean == pytest.approx(first.baseline.mean + 100)
    assert run_study(own, "own", tmp_path / "run", trainer=CPU) == again


def test_a_file_that_changes_during_the_run_does_too(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What counts is the code that scored, not what lies there when the results are written."""
    file, search = tmp_path / "warmth.py", Run._search
    file.write_text(WARMTH.format(0), encoding="utf-8")
    own = replace(study, reward=f"{file}:warmth")

    def edited(self: Run, start: float) -> Any:
        file.write_text(WARMTH.format(100), encoding="utf-8")
        return search(self, start)

    monkeypatch.setattr(Run, "_search", edited)
    first = run_study(own, "own", tmp_path / "run", trainer=CPU)
    monkeypatch.undo()
    again = run_study(own, "own", tmp_path / "run", trainer=CPU)
    assert again.baseline.mean == pytest.approx(first.baseline.mean + 100)


def test_only_ones_own_rewards_are_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert own_keys([RewardSpec("no_such_reward"), RewardSpec("clip", args={"model": "no/such/model"})]) == []
    Path("empty").mkdir()
    Path("mine.py").write_text(WARMTH.format(1), encoding="utf-8")
    (key,) = own_keys([RewardSpec("mine.py:warmth"), RewardSpec("brightness")])
    Path("mine.py").write_text(WARMTH.format(2), encoding="utf-8")
    assert own_keys([RewardSpec("mine.py:warmth")]) != [key]
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(RewardError, match="takes 3 to 20 pictures, and the folder ~/empty holds 0"):
        own_keys([RewardSpec("reference", args={"examples": "~/empty"})])


def test_other_weights_in_the_models_folder_are_drawn_anew(study: Study, tiny_model: Path, tmp_path: Path) -> None:
    """Files that were only touched cost a look: nothing is drawn. Nor do results that know nothing of files."""
    folder, out = tmp_path / "model", tmp_path / "run"
    shutil.copytree(tiny_model, folder)
    (weights,) = (folder / "transformer").glob("*.safetensors")
    own = replace(study, model=str(folder))
    first = run_study(own, "own", out, trainer=CPU)
    assert run_study(own, "own", out, trainer=CPU) == first
    (folder / ".cache").mkdir()
    (folder / ".cache" / "note").touch()
    assert run_study(own, "own", out, trainer=CPU) == first
    os.utime(weights, (1, 1))
    touched = run_study(own, "own", out, trainer=CPU)
    assert touched.images_generated == 0
    assert (touched.methods, touched.fingerprint) == (first.methods, first.fingerprint)
    save_file({name: 1.5 * value for name, value in load_file(weights).items()}, weights)
    scaled = run_study(own, "own", out, trainer=CPU)
    assert scaled.images_generated == first.images_generated
    assert scaled.fingerprint != first.fingerprint
    os.utime(weights, (1, 1))
    file = out / "results.json"
    older = {key: value for key, value in json.loads(file.read_text()).items() if key != "model_files"}
    file.write_text(json.dumps(older))
    assert run_study(own, "own", out, trainer=CPU) == replace(scaled, model_files="")


def test_another_commit_of_a_model_on_the_hub_is_drawn_anew(
    study: Study, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cache of the hub holds two commits of a model, and its main branch goes from one to the other."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    place, one, other = tmp_path / "hub" / "models--some--tiny", "1" * 40, "2" * 40
    for commit in (one, other):
        shutil.copytree(tiny_model, place / "snapshots" / commit)
    (weights,) = (place / "snapshots" / other / "transformer").glob("*.safetensors")
    save_file({name: 1.5 * value for name, value in load_file(weights).items()}, weights)
    main = place / "refs" / "main"
    main.parent.mkdir()
    main.write_text(one, encoding="utf-8")
    own, out = replace(study, model="some/tiny"), tmp_path / "run"
    first = run_study(own, "own", out, trainer=CPU)
    assert first.model_files == "1" * 16
    assert run_study(own, "own", out, trainer=CPU) == first
    main.write_text(other, encoding="utf-8")
    again = run_study(own, "own", out, trainer=CPU)
    assert again.fingerprint != first.fingerprint
    assert again.images_generated == first.images_generated


def test_a_folder_without_a_finished_run_is_free(study: Study, tmp_path: Path) -> None:
    """An option that was refused, or interrupted, may be put right in place."""
    out = tmp_path / "run"
    (out / "store").mkdir(parents=True)
    (out / "config.yaml").write_text("study: tiny\nrounds: 9\n", encoding="utf-8")
    results = run_study(study, "tiny", out, trainer=CPU)
    with pytest.raises(StudyError, match="holds the run of another study"):
        run_study(replace(study, scale=1.5), "tiny", out, trainer=CPU)
    assert run_study(study, "tiny", out, trainer=CPU) == results


def test_two_studies_in_one_folder_at_once(study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first one that was started does not write over the other's results."""
    out, search = tmp_path / "run", Run._search

    def slow(self: Run, start: float) -> Any:
        Folder(out, configuration(replace(study, scale=1.5), "other", CPU)).claim()
        return search(self, start)

    monkeypatch.setattr(Run, "_search", slow)
    with pytest.raises(StudyError, match="another run with other options has taken"):
        run_study(study, "tiny", out, trainer=CPU)
    assert not (out / "results.json").exists()
    monkeypatch.undo()
    again = run_study(study, "tiny", tmp_path / "again", trainer=CPU, store=out / "store")
    assert again.images_generated == 0


def test_prompts_that_name_no_style_are_refused_before_anything_is_drawn(study: Study, tmp_path: Path) -> None:
    with pytest.raises(RewardError, match="'watercolor, red apple' names no style"):
        run_study(replace(study, reward="style", style="watercolor"), "tiny", tmp_path / "run", trainer=CPU)
    assert not (tmp_path / "run").exists()
