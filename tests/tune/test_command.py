"""The command line of a tuning, also on two ranks."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from pagopt.cli import main
from pagopt.cli.tune import parser, read
from pagopt.errors import StudyError, UnknownName
from pagopt.recipe import Recipe
from pagopt.reward import RewardSpec
from pagopt.tuning import Space, Tuned, available_tunings, find_tuning, load_tuned

CPU = ["--trainer.accelerator", "cpu"]


def test_the_command_prints_what_it_found(
    tuning_file: Path, whole: tuple[Tuned, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tuned, done = whole
    words = ["tune", str(tuning_file), "--out", str(tmp_path / "run"), "--store", str(done / "store"), *CPU]
    assert main(words) == 0
    said = capsys.readouterr().out
    for word in (
        "tiny: 7 trials",
        "no guidance",
        "u = 0.5",
        "as it was",
        "tuned - this",
        "recipe.json",
        "0 new images",
    ):
        assert word in said
    assert load_tuned(tmp_path / "run" / "results.json").recipe == tuned.recipe
    assert main(words) == 0
    assert "this run was finished before" in capsys.readouterr().out
    assert main([*words, "--space.scale", "[1, 2]"]) == 2
    assert "holds the run of another study" in capsys.readouterr().err


def test_two_ranks_try_the_same_trials(tuning_file: Path, whole: tuple[Tuned, Path], tmp_path: Path) -> None:
    """Also where the store has everything, so that nothing is drawn before the first decision."""
    tuned, done = whole
    words = [sys.executable, "-m", "pagopt", "tune", str(tuning_file), "--out", str(tmp_path / "pair"), *CPU]
    words += ["--trainer.devices", "2", "--store", str(done / "store")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=280, check=False)
    assert ended.returncode == 0, ended.stderr
    pair = load_tuned(tmp_path / "pair" / "results.json")
    assert [row.parameters for row in pair.trials] == [row.parameters for row in tuned.trials]
    assert pair.recipe == tuned.recipe
    assert ended.stdout.count("tiny: 7 trials") == 1, "one process speaks"


def test_options_win_over_the_file(tuning_file: Path) -> None:
    words = [str(tuning_file), "--trials", "9", "--sampler", "gp", "--objectives", "[cost, {name: clip, weight: 2.0}]"]
    asked = read([*words, "--space.scale", "[1, 2]", "--scale", "1.5"], parser())
    assert (asked.tuning.trials, asked.tuning.sampler, asked.tuning.study.scale) == (9, "gp", 1.5)
    assert asked.tuning.objectives == ["cost", RewardSpec("clip", 2.0)]
    assert asked.tuning.space["scale"] == [1, 2]
    assert asked.out == Path("runs/tune-tiny")


def test_a_study_of_a_search_needs_a_recipe() -> None:
    with pytest.raises(StudyError, match="there is nothing to tune: give a recipe"):
        read(["vivid"], parser())
    assert read(["vivid", "--recipe", "L7.H2"], parser()).tuning.space.keys() == {"strength", "scale"}


@pytest.mark.parametrize("name", sorted(available_tunings()))
def test_the_shipped_tunings_are_valid(name: str) -> None:
    text = find_tuning(name).read_text(encoding="utf-8")
    assert f"pagopt tune {name}" in text
    tuning = read([name], parser()).tuning
    assert len(tuning.study.held_out_tasks()) >= 12
    assert not {task.prompt for task in tuning.study.tasks()} & {task.prompt for task in tuning.study.held_out_tasks()}
    assert set(yaml.safe_load(text)) <= {*tuning.__dataclass_fields__, *tuning.study.__dataclass_fields__}


def test_what_the_page_shows_is_valid(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "tune.md").read_text(encoding="utf-8")
    first, every, soft, more, diverse = re.findall(r"^```yaml\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    recipe = Recipe(heads="L7.H2 L4.H3", scale=2.0)
    diversities = []
    for extra in (soft, diverse, every, more):
        data = {**yaml.safe_load(first), **yaml.safe_load(extra), "recipe": "L7.H2 L4.H3"}
        file = tmp_path / "my_tuning.yaml"
        file.write_text(yaml.safe_dump(data), encoding="utf-8")
        tuning = read([str(file)], parser()).tuning
        assert Space(tuning.space, recipe, recipe.heads, tuning.study.steps).varied()
        diversities.append(tuning.diversity)
    assert tuning.constraints == [RewardSpec("sharpness", at_least="baseline - 0.5 sd")]
    assert tuning.costs
    assert diversities == [None, RewardSpec("diversity", args={"reward": "clip"}), None, None]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--objectives", "[cst]"], "error: unknown objective 'cst'. Did you mean 'cost'? Known: cost, diversity, aes"),
        (["--objectives", "[{name: diversty}]"], "error: unknown objective 'diversty'. Did you mean 'diversity'?"),
        (
            ["--constraints", "[{name: sharpnes, at_least: baseline}]"],
            "error: unknown constraint 'sharpnes'. Did you mean 'sharpness'? Known: diversity, aesthetic",
        ),
    ],
)
def test_an_unknown_objective_is_refused_before_the_model_is_loaded(
    words: list[str], message: str, tuning_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["tune", str(tuning_file), "--out", str(tmp_path / "run"), *words, *CPU]) == 2
    assert capsys.readouterr().err.startswith(message), "and there is no bar before it"


def test_an_error_stands_on_a_line_of_its_own(
    tuning_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--objectives", "[diversity]", "--prompts", "[a, a]", "--held_out_prompts", "[b, b]", "--rungs", "null"]
    assert main(["tune", str(tuning_file), "--out", str(tmp_path / "run"), *words, *CPU]) == 2
    before, error = capsys.readouterr().err.split("\nerror: ")
    assert error.startswith("diversity compares features of pictures, and none of the rewards colorfulness has any")
    assert error.count("\n") == 1, "the bar is closed"
    assert "image/s" in before


def test_an_unknown_tuning_names_the_nearest() -> None:
    assert "strength" in available_tunings()
    with pytest.raises(UnknownName, match="Did you mean 'strength'"):
        find_tuning("strenght")
    with pytest.raises(StudyError, match=r"no tuning file mine\.yaml"):
        find_tuning("mine.yaml")
