"""Study files with mistakes in them: what is wrong is said in a sentence, and by the file's name."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from pagopt.cli import main
from pagopt.cli.search import parse, parser, requested
from pagopt.experiment import run_study
from pagopt.study import Study, find_study
from pagopt.tuning import available_tunings


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("prompts: [a\n", "mine.yaml is no valid YAML: "),
        ("", "mine.yaml is empty; `pagopt init"),
        ("- a\n", "mine.yaml holds list and no options by name"),
        ("promts: [a]\n", "unknown option in mine.yaml: 'promts'. Did you mean 'prompts'?"),
        ("prompts: [a]\nspace: {}\n", "mine.yaml is a tuning (it has space): `pagopt tune mine.yaml` runs it"),
        (
            "prompts: [a]\nreward: [{name: clip, wieght: 2}]\n",
            "reward in mine.yaml: unknown key of a reward: 'wieght'. Did you mean",
        ),
        ("prompts: [a]\nreward: clip\nwatch: {nam: clip}\n", "watch in mine.yaml: unknown key of a reward: 'nam'"),
        ("prompts: [a]\nreward: {name: clip, weight: two}\n", "weight of reward 'clip' is 'two': it must be a finite"),
        ("prompts: [a]\nreward: [{name: clip, weight: 0}]\n", "weight of reward 'clip' is 0: it must be a finite"),
        ("prompts: [a]\nreward: [{name: ''}]\n", "reward in mine.yaml: a reward needs a name"),
        ("prompts: [a]\nreward: [style, {name: clip, at_least: baselin}]\n", "at_least of reward 'clip' is 'baselin'"),
        ("prompts: [a]\nreward: [{name: clip, tolerance: -1}]\n", "the tolerance of reward 'clip' is -1"),
        ("prompts: red apple\nreward: clip\n", "one text; a list is written as prompts: [red apple]"),
        ("prompts: [yes, no]\nreward: clip\n", "True is no text for YAML; put the prompt into quotes"),
    ],
)
def test_a_file_with_a_mistake(
    text: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text(text, encoding="utf-8")
    assert main(["search", "mine.yaml"]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert len(error.splitlines()) < 12
    assert not Path("runs").exists()


def test_numbers_with_an_exponent_are_numbers(tmp_path: Path) -> None:
    """Not to every reader of YAML."""
    file = tmp_path / "mine.yaml"
    file.write_text(
        "prompts: [a, 2024-01-01]\nreward: [{name: clip, weight: 1e-1}]\nscale: 2e0\n"
        "search: racing\nsearch_options: {share: 5e-1}\n",
        encoding="utf-8",
    )
    study = requested(*parse([str(file), "--watch", "{name: style, weight: 1e-1}"], parser(), find_study)).study
    assert (study.scale, study.search_options, study.prompts[1]) == (2.0, {"share": 0.5}, "2024-01-01")
    assert [spec.weight for spec in (*study.specs, *study.watched)] == [0.1, 0.1]


def test_names_of_something_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text("prompts: [a]\n", encoding="utf-8")
    assert "strength" in available_tunings()
    for name, words in {
        "mine": "a file: pagopt search mine.yaml",
        "strength": "strength is a tuning: `pagopt tune strength` runs it",
        "vivd": "Did you mean 'vivid'",
    }.items():
        assert main(["search", name]) == 2
        assert words in capsys.readouterr().err


def test_what_a_run_keeps_of_itself_runs(study: Study, tmp_path: Path) -> None:
    run_study(study, "tiny", tmp_path / "run", trainer={"accelerator": "cpu"})
    config = tmp_path / "run" / "config.yaml"
    assert requested(*parse([str(config)], parser(), find_study)).study == study
    data = yaml.safe_load(config.read_text(encoding="utf-8"))
    config.write_text(yaml.safe_dump({**data, "precision": "bf16-mixed"}), encoding="utf-8")
    assert requested(*parse([str(config)], parser(), find_study)).trainer["precision"] == "bf16-mixed"
