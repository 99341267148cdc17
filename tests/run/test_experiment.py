"""A whole study: what it leaves behind, and that nothing stops it from ending with the same recipe."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pagopt.errors import StudyError, UnknownName
from pagopt.experiment import Run, run_study
from pagopt.folder import Folder, configuration
from pagopt.recipe import load_recipe
from pagopt.results import Method, load_results
from pagopt.study import Study
from pagopt.summary import paired_test

TRAINER = {"accelerator": "cpu"}


def command(study_file: Path, out: Path, *words: str) -> list[str]:
    options = ["--out", str(out), "--trainer.accelerator", "cpu", *words]
    return [sys.executable, "-m", "pagopt", "search", str(study_file), *options]


def environment() -> dict[str, str]:
    """One thread, so that two processes do not fight over the cores."""
    return {**os.environ, "OMP_NUM_THREADS": "1"}


@pytest.mark.parametrize("held_out", [True, False])
def test_its_bar_and_its_clock_end_with_the_comparison(study: Study, tmp_path: Path, held_out: bool) -> None:
    if not held_out:
        study = replace(study, held_out_prompts=[], watch="sharpness")
    run = Run(study, "tiny", Folder(tmp_path, configuration(study, "tiny", TRAINER)), 8, TRAINER)
    judge, slow = run.judge, 2.0

    class Slow:
        def __call__(self, *asked: Any) -> Any:
            time.sleep(slow)
            return judge(*asked)

        def __getattr__(self, name: str) -> Any:
            return getattr(judge, name)

    run.judge = Slow()  # type: ignore[assignment]
    before = time.monotonic()
    try:
        results = run()
    finally:
        run.close()
    assert slow < results.seconds <= time.monotonic() - before
    assert run.progress.bar.total == run.progress.done


def times(out: Path) -> dict[str, int]:
    """When every image of a run was written."""
    return {path.name: path.stat().st_mtime_ns for path in (out / "store").rglob("*.webp")}


def test_a_run_leaves_what_it_promises_and_returns_at_once_the_second_time(study: Study, tmp_path: Path) -> None:
    out = tmp_path / "run"
    results = run_study(study, "tiny", out, trainer=TRAINER)
    assert [method.name for method in results.methods][::3] == ["no guidance", "HeadHunter"]
    assert [method.name.split()[0] for method in results.methods] == ["no", "CFG", "best", "HeadHunter"]
    assert len(results.rounds) == 2
    assert len(results.rounds[0].scores) == 6

    recipe, provenance = load_recipe(out / "recipe.json")
    assert recipe == results.recipe
    assert len(recipe.heads) == 2
    assert provenance is not None
    assert provenance.fingerprint == results.fingerprint
    assert provenance.evidence["held_out"]["HeadHunter"]["objective"]["mean"] == pytest.approx(
        np.mean(results.methods[-1].objective), abs=1e-5
    )
    assert load_results(out / "results.json") == results
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "HeadHunter" in page
    assert (out / "sheet.png").stat().st_size > 1000
    rows = list(csv.DictReader((out / "scores.csv").read_text(encoding="utf-8").splitlines()))
    assert {row["phase"] for row in rows} == {"round 1", "round 2", "held-out"}

    before = times(out)
    # The model may even be gone: a finished run needs nothing.
    assert run_study(study, "tiny", out, trainer=TRAINER) == results
    assert times(out) == before
    # Without its results the run is done again from the store, and comes to the same.
    (out / "results.json").unlink()
    again = run_study(study, "tiny", out, trainer=TRAINER)
    assert again.images_generated == 0
    assert times(out) == before
    assert replace(again, images_generated=0, seconds=0.0) == replace(results, images_generated=0, seconds=0.0)


def test_a_folder_belongs_to_one_study(study: Study, tmp_path: Path) -> None:
    out = tmp_path / "run"
    small = replace(study, rounds=1, compare_layers=False, cfg_scales=[])
    run_study(small, "tiny", out, trainer=TRAINER)
    with pytest.raises(StudyError, match=r"holds the run of another study:\n  scale: there 3\.0, now 1\.0"):
        run_study(replace(small, scale=1.0), "tiny", out, trainer=TRAINER)
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "mother.txt").write_text("dear")
    with pytest.raises(StudyError, match="is not empty and holds no pagopt run"):
        run_study(small, "tiny", tmp_path / "letters", trainer=TRAINER)
    for damage in (b"- 1", b"a: [", b"\xff\xfe"):
        (out / "config.yaml").write_bytes(damage)
        with pytest.raises(StudyError, match="is damaged"):
            run_study(small, "tiny", out, trainer=TRAINER)
    (out / "config.yaml").unlink()
    (out / "config.yaml").mkdir()
    with pytest.raises(StudyError, match="is damaged"):
        run_study(small, "tiny", out, trainer=TRAINER)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"reward": "colourfulness"}, r"Did you mean 'colorfulness'\?"),
        ({"model": "emojy"}, r"Did you mean 'emoji'\?"),
        ({"heads": "L9.H0"}, r"L9\.H0"),
    ],
)
def test_unknown_names_are_refused_before_anything_is_written(
    study: Study, tmp_path: Path, changes: dict[str, str], message: str
) -> None:
    with pytest.raises(UnknownName, match=message):
        run_study(replace(study, **changes), "tiny", tmp_path / "run", trainer=TRAINER)
    assert not (tmp_path / "run").exists()


def test_a_pool_too_small_is_refused(study: Study, tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="4 heads to choose from, but there are 2"):
        run_study(replace(study, heads="L0.H*", heads_per_round=2), "tiny", tmp_path / "run", trainer=TRAINER)


def test_two_processes_find_the_same_recipe(study: Study, study_file: Path, tmp_path: Path) -> None:
    alone = run_study(study, "tiny", tmp_path / "alone", trainer=TRAINER)
    words = command(study_file, tmp_path / "pair", "--trainer.devices", "2", "--batch_size", "3")
    done = subprocess.run(words, env=environment(), capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    pair = load_results(tmp_path / "pair" / "results.json")
    assert pair.recipe == alone.recipe
    assert pair.images_generated == alone.images_generated
    np.testing.assert_allclose(pair.methods[-1].objective, alone.methods[-1].objective, atol=0.2)
    assert done.stdout.count("heads found") == 1, "one process speaks"


def test_a_killed_search_goes_on_where_it_was(study: Study, study_file: Path, tmp_path: Path) -> None:
    whole = run_study(study, "tiny", tmp_path / "whole", batch_size=4, trainer=TRAINER)
    out = tmp_path / "killed"
    words = command(study_file, out, "--batch_size", "4")
    process = subprocess.Popen(words, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while len(times(out)) < 9 and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = times(out)
    assert 9 <= len(before) < len(times(tmp_path / "whole")), "killed in the middle"

    rest = run_study(study, "tiny", out, batch_size=4, trainer=TRAINER)
    assert rest.recipe == whole.recipe
    after = times(out)
    assert after.keys() == times(tmp_path / "whole").keys()
    again = sum(after[name] != time for name, time in before.items())
    assert again <= 4, "at most the batch in flight"
    assert json.loads((out / "recipe.json").read_text())["recipe"] == whole.recipe.to_dict()


@pytest.mark.parametrize(("sent", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_search_says_that_nothing_is_lost(
    study_file: Path, tmp_path: Path, sent: signal.Signals, status: int
) -> None:
    """By Ctrl-C, and by a scheduler or `kill`."""
    out = tmp_path / "run"
    words = command(study_file, out, "--batch_size", "2")
    process = subprocess.Popen(words, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while len(times(out)) < 4 and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(sent)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == status
    assert "what is finished is kept" in errors
    assert "Traceback" not in errors
    assert len(times(out)) >= 4


def test_paired_test() -> None:
    def method(name: str, *scores: float) -> Method:
        return Method(name, {}, scores, {}, ())

    found, prompts = method("HeadHunter", 2.0, 3.0, 5.0, 4.0), list("abcd")
    better = paired_test(found, method("no guidance", 1.0, 1.0, 2.0, 3.5), prompts)
    assert better.difference == pytest.approx(1.625)
    assert better.wins == 1.0
    # t = 1.625 / (1.108678 / 2) = 2.9314 with 3 degrees of freedom
    assert better.p_value == pytest.approx(0.03045, abs=1e-4)
    equal = paired_test(found, found, prompts)
    assert (equal.difference, equal.p_value, equal.wins) == (0.0, 1.0, 0.0)
    always = paired_test(found, method("no guidance", 1.0, 2.0, 4.0, 3.0), prompts)
    assert (always.difference, always.se, always.p_value) == (1.0, 0.0, 2.0**-4)
    # Two prompts of two seeds are two observations: t = 1.625 / 0.375 with 1 degree of freedom.
    seeds = paired_test(found, method("no guidance", 1.0, 2.0, 3.5, 2.0), list("aabb"))
    assert (seeds.difference, seeds.se) == pytest.approx((1.375, 0.375))
    assert seeds.p_value == pytest.approx(0.0847, abs=1e-4)
    # Each prompt counts the same, however many seeds it has.
    assert paired_test(found, method("no guidance", 1.0, 2.0, 4.0, 0.0), list("aaab")).difference == 2.5
    alone = paired_test(method("one", 2.0), method("other", 1.0), ["a"])
    assert (alone.difference, alone.se, alone.p_value) == (1.0, 0.0, 1.0)
