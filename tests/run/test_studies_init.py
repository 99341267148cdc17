"""`pagopt studies` and `pagopt init`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from pagopt.cli import main
from pagopt.cli.init import template
from pagopt.cli.search import parse, requested
from pagopt.cli.search import parser as search_parser
from pagopt.cli.studies import _describe, describe_studies, read_header
from pagopt.cli.tune import parser as tune_parser
from pagopt.cli.tune import read
from pagopt.errors import UnknownName
from pagopt.models import ALIASES, head_map_of
from pagopt.reward import available_rewards
from pagopt.study import available_studies, find_study
from pagopt.tuning import Space, available_tunings
from pagopt.tuning.plan import Parts
from pagopt.tuning.start import find_start

CPU = ["--trainer.accelerator", "cpu"]
SMALL = ["--steps=2", "--prompts=[rocket,house]", "--held_out_prompts=[key]", "--cfg_scales=[2.0]", *CPU]
NAMES = [*available_studies(), *available_tunings()]


@pytest.mark.parametrize("info", describe_studies(), ids=lambda info: info.name)
def test_every_shipped_study_says_what_it_costs_and_found(info) -> None:  # type: ignore[no-untyped-def]
    for text in (info.finds, info.cost, info.result, info.objective):
        assert len(text) > 3, info.name
    assert info.command.startswith(f"pagopt {info.kind} {info.name}")
    assert info.package.startswith("pagopt ")
    if info.kind == "search":
        _, options, made = parse([info.file], search_parser(), find_study)
        study = requested(info.name, options, made).study
        head_map = head_map_of(study.model)
        images = sum(study.images(head_map.select(study.heads)).values())
    else:
        tuning = read([info.file], tune_parser()).tuning
        start = find_start(tuning)
        space = Space(tuning.space, start.recipe, start.order, tuning.study.steps)
        images = sum(Parts(tuning, space, head_map_of(tuning.study.model).blocks).images.values())
    assert f"{images:,} images" in info.cost


def test_the_list_names_all_and_what_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["studies"]) == 0
    said = capsys.readouterr().out
    assert all(name in said for name in NAMES)
    assert said.index("vivid") < said.index("Need something first") < said.index("sd3_quality")
    assert main(["studies", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert set(rows) == set(NAMES)
    assert rows["vivid"]["ready"]
    assert not rows["vivid"]["missing"]
    assert not rows["flux_golden_hour"]["ready"]
    assert "the weights of flux-dev" in rows["flux_golden_hour"]["missing"]
    assert "pickscore: " in rows["flux_golden_hour"]["missing"]
    assert rows["strength"]["kind"] == "tune"
    assert "with clip at least baseline - 0.5 sd" in rows["quality_per_cost"]["objective"]
    assert main(["studies", "flat"]) == 0
    assert capsys.readouterr().out == find_study("flat").read_text(encoding="utf-8")
    assert main(["studies", "flet"]) == 2
    assert "Did you mean 'flat'?" in capsys.readouterr().err


@pytest.mark.parametrize("model", ALIASES)
@pytest.mark.parametrize("kind", ["search", "tune"])
def test_a_new_study_of_every_model_is_one(model: str, kind: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(template(file, kind, model, "colorfulness"))
    _, options, made = parse([str(file)], search_parser() if kind == "search" else tune_parser(), find_study)
    study = requested("mine", options, made).study
    assert study.model == model
    distilled = model in {"flux-schnell", "flux2-klein", "z-image-turbo"}
    assert (study.steps < 10) == distilled
    assert bool(study.cfg_scales) == (not distilled and model != "flux2-dev")


def test_a_header_is_read_in_paragraphs() -> None:
    text = (
        "# What it is,\n# in two lines.\n#\n#   pagopt search x\n#\n# Cost: 12 images;\n# cheap.\n#\n# Result: good.\n"
    )
    assert read_header(text + "style: flat\n# Cost: no\n") == {
        "finds": "What it is, in two lines.",
        "command": "pagopt search x",
        "cost": "12 images; cheap.",
        "result": "good.",
    }
    assert set(read_header("style: flat").values()) == {""}


@pytest.mark.parametrize(
    ("text", "missing"),
    [
        ("a: [", "a file that can be read"),
        ("- 1\n- 2", "this one is no mapping"),
        ("model: nowhere\nreward: clip", "unknown model 'nowhere'"),
        ("reward: nothing", "the reward nothing, which is not installed"),
        ("reward: [{name: clip, args: {model: some/clip}}]", "clip: the weights of some/clip"),
        ("reward: path/to/mine.py:score", ""),
    ],
)
def test_a_study_that_cannot_run_says_why(text: str, missing: str, tmp_path: Path) -> None:
    class Point:
        dist = None

    file = tmp_path / "mine.yaml"
    file.write_text(text, encoding="utf-8")
    info = _describe(file, "search", Point, dict.fromkeys(available_rewards(), ""))  # type: ignore[arg-type]
    assert missing in info.missing
    assert bool(missing) == bool(info.missing)


def test_what_init_writes_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["init", "mine"]) == 0
    assert "pagopt plan mine.yaml" in capsys.readouterr().out
    brief = ["--compare_layers", "false", "--rounds", "1", "--heads_per_round", "1"]
    assert main(["search", "mine.yaml", *SMALL, *brief, "--heads", "L4.H0-2"]) == 0
    assert (tmp_path / "runs" / "mine" / "recipe.json").exists()
    written = (tmp_path / "mine.yaml").read_text(encoding="utf-8")
    assert main(["init", "mine.yaml"]) == 2
    assert "mine.yaml is there already" in capsys.readouterr().err
    assert (tmp_path / "mine.yaml").read_text(encoding="utf-8") == written


def test_a_tuning_that_init_writes_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["init", "deeper/how", "--kind", "tune", "--reward", "colorfulness"]) == 0
    assert main(["tune", "deeper/how.yaml", *SMALL, "--trials", "3"]) == 0
    assert (tmp_path / "runs" / "tune-how" / "recipe.json").exists()


@pytest.mark.parametrize("kind", ["search", "tune"])
@pytest.mark.parametrize("model", ["emoji", "sd3.5-medium", "flux-dev", "some/model"])
@pytest.mark.parametrize("reward", ["style", "clip", "colorfulness", "reference", "pickscore", "my file.py:score: x"])
def test_every_template_is_a_study(kind: str, model: str, reward: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(template(path, kind, model, reward), encoding="utf-8")
    data = yaml.safe_load(path.read_text(encoding="utf-8"))
    name = data["reward"] if isinstance(data["reward"], str) else data["reward"][0]["name"]
    assert (data["model"], name) == (model, reward)
    if kind == "search":
        study = requested(*parse([str(path)], search_parser(), find_study)).study
    else:
        study = read([str(path)], tune_parser()).tuning.study
    assert study.model == model
    assert study.specs[0].name == reward


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--kind", "dance"], "unknown kind of study 'dance'. Known: search, tune."),
        (["--model", "emojo"], "Did you mean 'emoji'?"),
        (["--reward", "colourfulness"], "Did you mean 'colorfulness'?"),
    ],
)
def test_what_init_does_not_know(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mine.yaml"
    assert main(["init", str(path), *words]) == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert not path.exists()


def test_a_place_that_cannot_be_written_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    assert main(["init", str(tmp_path / "file" / "mine")]) == 2
    assert "cannot write" in capsys.readouterr().err
    with pytest.raises(UnknownName):
        template(tmp_path / "x", kind="dance")
