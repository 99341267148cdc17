"""The command line: what a user types, reads, and gets back."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from pagopt.cli import COMMANDS, main
from pagopt.errors import StudyError
from pagopt.experiment import run_study
from pagopt.recipe import Provenance, Recipe
from pagopt.study import Study

CPU = ["--trainer.accelerator", "cpu"]


def picture(path: Path) -> Image.Image:
    """Read an image, and close its file."""
    with Image.open(path) as image:
        return image.copy()


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    """Exit status, standard output and standard error of a command."""
    capsys.readouterr()
    try:
        status = main([str(word) for word in words])
    except SystemExit as stop:
        status = int(stop.code or 0)
    output = capsys.readouterr()
    return status, output.out, output.err


def recipe_file(folder: Path, recipe: Recipe, model: Path, fingerprint: str = "") -> Path:
    recipe.save(folder / "recipe.json", Provenance(str(model), fingerprint, evidence={"steps": 2}))
    return folder / "recipe.json"


def test_overview_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys)
    assert status == 0
    assert all(f"\n  {command}" in out for command in COMMANDS)
    assert run(capsys, "--help") == (0, out, "")
    assert re.fullmatch(r"\d+\.\d+\.\d+\n", run(capsys, "--version")[1])


@pytest.mark.parametrize("command", COMMANDS)
def test_help_teaches(capsys: pytest.CaptureFixture[str], command: str) -> None:
    status, out, _ = run(capsys, command, "--help")
    assert status == 0
    assert f"usage: pagopt {command}" in out
    assert f"\n  pagopt {command}" in out or command == "studies", "an example in a line of its own, to be copied"
    assert all(len(line) <= 130 for line in out.splitlines())
    assert "of training via flags" not in out
    if command == "search":
        assert out.startswith("usage: pagopt search STUDY [options]\n\nFind the attention heads")
        for word in ("sd3_quality", "--heads_per_round", "--trainer.devices", "--reward", "goes on where"):
            assert word in out


def test_an_unknown_command_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    status, _, err = run(capsys, "serach")
    assert status == 2
    assert "unknown command 'serach'. Did you mean 'search'?" in err


def test_search_prints_what_it_found(capsys: pytest.CaptureFixture[str], study_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    words = ["search", study_file, "--out", out, "--rounds", "1", "--compare_layers", "false", *CPU]
    status, text, _ = run(capsys, *words)
    assert status == 0
    assert "on 3 prompts and seeds that the search never saw" in text
    for row in ("no guidance", "CFG 2", "HeadHunter", str(out / "report.html"), "new images in"):
        assert row in text
    status, text, _ = run(capsys, *words)
    assert status == 0
    assert "nothing: this run was finished before" in text


def test_another_process_does_not_wait_for_the_results(
    capsys: pytest.CaptureFixture[str], study_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first one may still be writing them."""
    found = SimpleNamespace(images_generated=0, seconds=0.0)
    monkeypatch.setattr("pagopt.experiment.run_study", lambda *asked: found)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert run(capsys, "search", study_file, "--out", tmp_path / "run", *CPU)[:2] == (0, "")


def test_search_refuses_in_one_line(capsys: pytest.CaptureFixture[str], study_file: Path, tmp_path: Path) -> None:
    for words, message in (
        (["flatt"], "unknown study 'flatt'. Did you mean 'flat'?"),
        ([study_file, "--strength", "2"], "strength must be a number between 0 and 1"),
        ([study_file, "--prompts", "[]"], "prompts is empty"),
        ([study_file, "--heads", "L3.H0"], "unknown head 'L3.H0'"),
        ([study_file, "--reward", "sharpnes"], "Did you mean 'sharpness'?"),
        ([study_file, "--reward", f"{tmp_path}/none.py:f"], "cannot read"),
    ):
        status, _, err = run(capsys, "search", *words, "--out", tmp_path / "run", *CPU)
        assert status == 2, words
        assert message in err
        assert "Traceback" not in err
        assert not (tmp_path / "run").exists()


def test_a_mistyped_option_is_refused(capsys: pytest.CaptureFixture[str], study_file: Path) -> None:
    status, _, err = run(capsys, "search", study_file, "--round", "two")
    assert status == 2
    assert "--round" in err


def test_a_users_reward_in_a_file(capsys: pytest.CaptureFixture[str], study_file: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "import numpy as np\ndef redness(images, prompts):\n"
        "    return [float(np.asarray(i)[..., 0].mean()) for i in images]\n"
    )
    words = ["--reward", f"{tmp_path / 'mine.py'}:redness", "--rounds", "1", "--out", tmp_path / "run"]
    status, text, _ = run(capsys, "search", study_file, *words, "--compare_layers", "false", *CPU)
    assert status == 0
    assert "redness" in text


def test_generate_draws_and_compares(capsys: pytest.CaptureFixture[str], tiny_model: Path, tmp_path: Path) -> None:
    recipe = recipe_file(tmp_path, Recipe("L1.H0 L2.H1", scale=2.0, cfg=1.0), tiny_model)
    words = ["generate", "--recipe", recipe, "--prompt", "flat, red apple", "--seed", "3", "--device", "cpu"]
    status, out, err = run(capsys, *words, "--out", tmp_path / "a" / "one.png")
    assert (status, out.strip()) == (0, str(tmp_path / "a" / "one.png"))
    assert "the recipe was found on other weights" in " ".join(err.split())
    image = picture(tmp_path / "a" / "one.png")
    assert image.size == (16, 16)
    status, _, _ = run(capsys, *words, "--scale", "0", "--out", tmp_path / "plain.png")
    assert status == 0
    assert not np.array_equal(np.asarray(image), np.asarray(picture(tmp_path / "plain.png")))
    status, _, _ = run(capsys, *words, "--compare", "--out", tmp_path / "two.png")
    assert status == 0
    sheet = picture(tmp_path / "two.png")
    assert sheet.width > 2 * 256


def test_generate_refuses_in_one_line(capsys: pytest.CaptureFixture[str], tiny_model: Path, tmp_path: Path) -> None:
    recipe = recipe_file(tmp_path, Recipe("L9.H0"), tiny_model)
    (tmp_path / "damaged.json").write_text('{"schema": 1, "rec')
    base = ["generate", "--prompt", "cat", "--device", "cpu", "--out", tmp_path / "x.png"]
    for words, message in (
        ([*base, "--recipe", tmp_path / "none.json"], "there is no recipe file"),
        ([*base, "--recipe", tmp_path / "damaged.json"], "is damaged"),
        ([*base, "--recipe", recipe], "unknown head 'L9.H0'"),
        ([*base, "--model", "sd4"], "unknown model 'sd4'"),
        ([*base, "--model", tmp_path], "holds no diffusers pipeline"),
        ([*base, "--model", tiny_model, "--steps", "0"], "steps must be at least 1"),
        ([*base[:1], "--prompt", " ", *base[3:]], "the prompt is empty"),
        ([*base[:-1], tmp_path / "x.jpg"], "must be a PNG file"),
    ):
        status, _, err = run(capsys, *words)
        assert status == 2, words
        assert message in err
    assert not list(tmp_path.glob("x.*"))


def test_a_prompt_that_is_no_text_is_refused(capsys: pytest.CaptureFixture[str], study: Study, tmp_path: Path) -> None:
    """Such as a shell passes on bytes that are not UTF-8."""
    prompt = os.fsdecode(b"caf\xe9")
    words = ["generate", "--model", study.model, "--prompt", prompt, "--out", str(tmp_path / "a.png"), "--steps", "1"]
    assert main(words) == 2
    assert r"error: the prompt 'caf\udce9' is no text in UTF-8: '\udce9' is no character" in capsys.readouterr().err
    Image.new("RGB", (8, 8)).save(tmp_path / "b.png")
    assert main(["score", "--reward", "brightness", "--prompt", prompt, str(tmp_path / "b.png")]) == 2
    assert "is no character" in capsys.readouterr().err
    with pytest.raises(StudyError, match="is no character"):
        run_study(replace(study, held_out_prompts=["cat", prompt, "sun"]), "tiny", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_heads_reads_the_map(capsys: pytest.CaptureFixture[str], tiny_model: Path) -> None:
    status, out, _ = run(capsys, "heads", tiny_model)
    assert status == 0
    assert "L0-2.H0-1" in out
    assert "6 heads in 3 blocks" in out
    assert "48 heads in 8 blocks" in run(capsys, "heads")[1]


def test_libraries_are_imported_when_main_has_said_how_loud_they_are() -> None:
    """Otherwise every command begins with five bars of loaded weights."""
    loud = "{'tqdm', 'torch', 'transformers', 'diffusers'}"
    words = [sys.executable, "-c", f"import sys, pagopt.cli; print({loud} & set(sys.modules))"]
    assert subprocess.run(words, capture_output=True, text=True, check=True).stdout == "set()\n"
