"""`pagopt tune` as processes that are killed, that share a study, and whose database goes away."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest

from pagopt.tuning import Tuned, load_tuned
from pagopt.tuning.storage import open_storage
from tests.tune import postgresql

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def server() -> Iterator[postgresql.Server]:
    with postgresql.running() as server:
        yield server


def start(tuning_file: Path, out: Path, *words: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "pagopt", "tune", str(tuning_file), "--out", str(out), "--batch_size", "4"]
    command += ["--trainer.accelerator", "cpu", *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def images(folder: Path) -> int:
    return sum(1 for _ in folder.rglob("*.webp"))


def wait_for(process: subprocess.Popen[str], folder: Path, count: int) -> None:
    """Until a run has drawn so many images."""
    deadline = time.monotonic() + 300
    while images(folder) < count:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)


def plain(tuned: Tuned) -> list[object]:
    return [(row.number, row.state, row.label, row.parameters, row.recipe, row.steps) for row in tuned.trials]


@pytest.mark.parametrize(("ranks", "moment"), [(1, 14), (1, 27), (1, 38), (2, 25)])
def test_a_killed_tuning_goes_on_to_the_same_trials(
    ranks: int, moment: int, tuning_file: Path, whole: tuple[Tuned, Path], tmp_path: Path
) -> None:
    """SIGKILL amid drawing; the same sampler, the same trials under the same numbers, the same total."""
    tuned, done = whole
    assert 12 < moment < images(done / "store") - 12
    out = tmp_path / "run"
    words = ("--trainer.devices", str(ranks))
    process = start(tuning_file, out, *words)
    wait_for(process, out, moment)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=120)  # the other rank holds the pipes until it has ended, too
    kept = optuna.load_study(study_name="tiny", storage=open_storage(f"sqlite:///{out / 'tuning.db'}"))
    states = Counter(trial.state.name for trial in kept.trials)
    assert states["COMPLETE"] + states["PRUNED"] < 7
    rest = start(tuning_file, out, *words)
    said = rest.communicate(timeout=300)
    assert rest.returncode == 0, said
    again = load_tuned(out / "results.json")
    assert plain(again) == plain(tuned)
    assert again.recipe == tuned.recipe
    assert [row.values for row in again.trials] == [pytest.approx(row.values, abs=1e-2) for row in tuned.trials]


@pytest.mark.parametrize("kind", ["postgresql", "journal"])
def test_two_workers_share_a_study(
    kind: str, tuning_file: Path, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """Started at once with a store in common; a third one is killed at its first trials."""
    if kind == "postgresql":
        address = request.getfixturevalue("server").new_base("shared")
    else:
        address = str(tmp_path / "shared.journal")
    store = tmp_path / "store"
    words = ("--storage", address, "--store", str(store), "--trials", "15")
    workers = [start(tuning_file, tmp_path / name, *words) for name in "abc"]
    wait_for(workers[2], store, 14)
    workers[2].send_signal(signal.SIGKILL)
    said = [worker.communicate(timeout=600) for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0, -9], said
    both = [load_tuned(tmp_path / name / "results.json") for name in "ab"]
    assert both[0].trials == both[1].trials
    assert both[0].recipe == both[1].recipe
    rows = both[0].trials
    assert len(rows) == 15
    assert {row.state for row in rows} <= {"complete", "pruned"}
    assert len({tuple(sorted(row.parameters.items())) for row in rows}) == 15
    assert Counter(row.label for row in rows if row.label) == {"no guidance": 1, "u = 0.5": 1, "as it was": 1}
    trials = optuna.load_study(study_name="tiny", storage=open_storage(address)).trials
    assert Counter(trial.state.name for trial in trials if "stopped" not in trial.user_attrs).keys() <= {
        "COMPLETE",
        "PRUNED",
    }


def test_a_database_that_stops_ends_the_run_and_the_same_command_goes_on(
    server: postgresql.Server, tuning_file: Path, whole: tuple[Tuned, Path], tmp_path: Path
) -> None:
    tuned, _ = whole
    out = tmp_path / "run"
    words = ("--storage", server.new_base("stopped"))
    process = start(tuning_file, out, *words)
    wait_for(process, out, 25)
    server.stop()
    try:
        output, errors = process.communicate(timeout=300)
    finally:
        server.start()
    assert process.returncode == 2, errors
    assert "does not answer: trying again in 1 s" in errors
    assert "error: the storage postgresql://tuner:***@127.0.0.1" in errors
    assert "Finished trials in it and all images and scores in the store are kept" in errors
    assert "Traceback" not in errors
    for text in (output, errors):
        assert postgresql.PASSWORD not in text
        assert postgresql.WRITTEN not in text
    kept = images(out)
    rest = start(tuning_file, out, *words)
    said = rest.communicate(timeout=300)
    assert rest.returncode == 0, said
    assert images(out) > kept
    again = load_tuned(out / "results.json")
    assert plain(again) == plain(tuned)
