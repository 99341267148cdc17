"""What a user wrote, a path, a prompt or a name, is printed as it is by every command."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from PIL import Image

import pagopt.cli
from pagopt.cli import main
from pagopt.cli.search import show
from pagopt.recipe import Recipe
from tests.report.synthetic import make_results

AWKWARD = "[b]1 [/c] :cat:"
NAME = "[b]1 :cat:"
CPU = ["--trainer.accelerator", "cpu"]
Say = Callable[..., str]


@pytest.fixture
def say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Say:
    """Run a command in an empty folder; what it printed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "300")

    def command(*words: str, status: int = 0) -> str:
        capsys.readouterr()
        assert main(list(words)) == status
        return "".join(capsys.readouterr())

    return command


def test_runs_print_names_and_folders_as_they_are(say: Say, tiny_model: Path) -> None:
    study = {
        "reward": "colorfulness",
        "prompts": ["sun", "cat"],
        "model": str(tiny_model),
        "rounds": 1,
        "heads_per_round": 1,
        "steps": 1,
        "compare_layers": False,
        "cfg_scales": [],
    }
    tuning = {"recipe": "L0.H0", "space": {"strength": [0, 1]}, "trials": 3}
    file, tuned = f"study {NAME}.yaml", f"tuning {NAME}.yaml"
    Path(file).write_text(yaml.safe_dump(study), encoding="utf-8")
    Path(tuned).write_text(yaml.safe_dump({**study, **tuning}), encoding="utf-8")
    label = f"recipe {NAME}"
    Recipe("L0.H0").save(f"{label}.json")
    Path("new.txt").write_text("moon\nkey\n", encoding="utf-8")
    drawn = ["--model", str(tiny_model), "--steps", "1", "--dtype", "float32", "--quantize", "none"]
    compared = [*drawn, "--prompts", "new.txt", "--reward", "colorfulness"]
    for words, name in {
        ("search", file, *CPU): Path(file).stem,
        ("tune", tuned, *CPU): Path(tuned).stem,
        ("evaluate", f"{label}.json", *compared, *CPU): label,
        ("atlas", str(tiny_model), "--prompt", "moon", "--heads", "L0.H*", "--steps", "1", *CPU): str(tiny_model),
    }.items():
        out = f"{words[0]} {AWKWARD}"
        said = say(*words, "--out", out)
        assert f"{out}/" in said
        assert name in said
    assert f"search {AWKWARD} holds the finished run" in say("plan", file, "--out", f"search {AWKWARD}", *CPU)
    said = say("plan", file, "--store", AWKWARD, *CPU)
    assert f"{Path(file).stem}: what it will cost" in said
    assert f"of which the store {AWKWARD} has" in said
    store = f"search {AWKWARD}/store"
    assert store in say("store", "info", store)
    assert f"images to export {AWKWARD}" in say("store", "export", store, "--to", f"export {AWKWARD}")
    assert AWKWARD in say("generate", "--recipe", AWKWARD, "--prompt", "sun", "--out", "sun.png", status=2)


def test_tables_in_a_pipe_are_whole(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    results = make_results(tasks=9)
    methods = [
        replace(method, rewards={**method.rewards, "a_reward_with_a_long_name": method.rewards["clip"]})
        for method in results.methods
    ]
    show(replace(results, methods=methods), Path("run"), "1 new image")
    said = capsys.readouterr().out
    (head,) = (line for line in said.splitlines() if line.startswith("method"))
    assert [*methods[0].rewards, "found - this", "wins", "p"] == re.split(" {2,}", head)[1:]
    for method in methods:
        (line,) = (line for line in said.splitlines() if line.startswith(f"{method.name}  "))
        assert line.count("\N{PLUS-MINUS SIGN}") == 4 + (method is not methods[-1])


@pytest.mark.parametrize("columns", [50, 80])
def test_no_name_is_cut_off_on_a_small_screen(
    columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    show(make_results(tasks=9), Path("run"), "1 new image")
    assert "\N{HORIZONTAL ELLIPSIS}" not in capsys.readouterr().out


def test_a_single_task_has_no_p_value(capsys: pytest.CaptureFixture[str]) -> None:
    results = make_results(tasks=1)
    tests = [replace(test, se=0.0, p_value=1.0) for test in results.tests]  # as a search writes them
    show(replace(results, tests=tests), Path("run"), "1 new image")
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("no guidance"))
    assert line.split()[-1] == "100%"


def test_score_prints_files_and_prompts_as_they_are(say: Say) -> None:
    for number in (1, 2):
        Image.new("RGB", (8, 8)).save(f"{NAME} {number}.png")
    table = f'file_name,text\n{NAME} 1.png,"one {AWKWARD}"\n{NAME} 2.png,two\n'
    Path("prompts.csv").write_text(table, encoding="utf-8")
    said = say("score", "--reward", "brightness", "--prompts", "prompts.csv")
    assert f"{NAME} 1.png" in said
    assert f"one {AWKWARD}" in said


def test_init_prints_the_file_as_it_is(say: Say) -> None:
    Path(AWKWARD).parent.mkdir()
    assert f"wrote {AWKWARD}.yaml" in say("init", AWKWARD)
    assert f"{AWKWARD}.yaml is there already" in say("init", AWKWARD, status=2)


def test_no_command_makes_a_console_of_its_own() -> None:
    for file in Path(pagopt.cli.__file__).parent.glob("*.py"):
        assert file.name == "printing.py" or " Console(" not in file.read_text(encoding="utf-8"), file
