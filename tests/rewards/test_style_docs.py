"""The examples of docs/style-objectives.md, run in the order of the page."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml
from jsonargparse import Namespace
from PIL import Image

from pagopt.cli import main
from pagopt.cli.search import parser
from pagopt.experiment import run_study
from pagopt.reward import RewardSpec
from pagopt.reward.identity import signature_of
from pagopt.reward.loading import available_rewards
from pagopt.study import Study
from pagopt_rewards.style import Style

PAGE = Path(__file__).parents[2] / "docs" / "style-objectives.md"
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
QUICK = "--steps 2 --rounds 1 --heads L3.H0-1 --heads_per_round 1 --cfg_scales [] --compare_layers false --watch []"
QUICK += " --trainer.accelerator cpu"


def test_parts_of_studies_have_arguments_that_exist() -> None:
    parts = [yaml.safe_load(block) for kind, block in BLOCKS if kind == "yaml" and block.startswith("# part")]
    assert [part["reward"][0]["name"] for part in parts] == ["style", "reference", "classifier"]
    for part in parts:
        spec = RewardSpec(**part["reward"][0])
        signature_of(available_rewards()[spec.name].load()).bind(**spec.args)


@pytest.mark.skipif(bool(Style.missing()), reason="the embedded scorer is not there")
def test_the_whole_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    assert [kind for kind, _ in BLOCKS[3:]] == ["python", "yaml", "sh"]
    (_, python), (_, study), (_, commands) = BLOCKS[3:]
    assert "num_inference_steps=12" in python
    exec(compile(python.replace("num_inference_steps=12", "num_inference_steps=3"), str(PAGE), "exec"), {})
    drawn = sorted(Path("ink_examples").glob("*.png"))
    assert len(drawn) == 5
    Path("like_these.yaml").write_text(study)
    score, search = (shlex.split(line) for line in commands.splitlines())
    assert main(score[1:]) == 0
    assert re.search(r"red\s+apple\.png\s+-?\d+\.\d+", capsys.readouterr().out)

    whole: Namespace = parser().parse_args(["--config", search[2]])
    assert whole.watch == "judge"
    few = ["--prompts", "[sunflower, bus]", "--held_out_prompts", "[camera, bell]"]
    assert main([*search[1:], *few, *shlex.split(QUICK)]) == 0
    for name in ("recipe.json", "report.html", "results.json"):
        assert (tmp_path / "runs" / "like_these" / name).is_file()
    with Image.open(drawn[0]) as picture:
        assert picture.size == (64, 64)


@pytest.mark.skipif(bool(Style.missing()), reason="the embedded scorer is not there")
def test_a_missing_folder_ends_a_study_before_it_draws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    study = Study(prompts=["red apple"], reward=[RewardSpec("reference", args={"examples": "nowhere"})])
    with pytest.raises(
        Exception, match=r"`examples` is a folder of pictures or a list of files, and nowhere is not there"
    ):
        run_study(study, "mine", Path("out"))
    assert not Path("out").exists()
