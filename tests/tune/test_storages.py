"""Tunings on PostgreSQL, on journal files and through Optuna's proxy; servers that go away and come back."""

from __future__ import annotations

import os
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from socket import gethostname

import optuna
import pytest
from optuna.storages import RDBStorage
from optuna.trial import TrialState

from pagopt.errors import StudyError
from pagopt.tuning import Tuned, Tuning, patience, tune
from pagopt.tuning import storage as storages
from pagopt.tuning.ledger import BATCH, WORKER, Ledger, Seen
from pagopt.tuning.methods import make_pruner, make_sampler
from pagopt.tuning.storage import is_alive, open_storage, open_study
from tests.tune import postgresql
from tests.tune.conftest import TRAINER
from tests.tune.test_ledger import finish, ledger, value

Make = Callable[..., Tuning]
ROOT = str(Path(__file__).parents[2])
SCRIPT = """
import sys, time
sys.path.insert(0, {root!r})
from tests.tune.test_ledger import finish, ledger
book = ledger({address!r}, total=24, at_once=3)
{then}
"""
WORK = """
finish(book)
while not book.is_over():
    time.sleep(0.05)
print(len(book.rows()))
"""
DIE = """
import os, signal
finish(book, limit=2)
book.ask()
os.kill(os.getpid(), signal.SIGKILL)
"""
PROXY = """
import sys
from optuna.storages import get_storage, run_grpc_proxy_server
run_grpc_proxy_server(get_storage(sys.argv[1]), host="127.0.0.1", port=int(sys.argv[2]))
"""


@pytest.fixture(scope="module")
def server() -> Iterator[postgresql.Server]:
    with postgresql.running() as server:
        yield server


@pytest.fixture
def base(server: postgresql.Server, request: pytest.FixtureRequest) -> str:
    """The address of an empty database."""
    return server.new_base(request.node.name[:60])


def worker(address: str, then: str) -> subprocess.Popen[str]:
    words = [sys.executable, "-c", SCRIPT.format(root=ROOT, address=address, then=then)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def drawn(book: Ledger) -> list[object]:
    return [(row.number, row.state, row.label, row.parameters, row.values) for row in book.rows()]


def test_a_tuning_on_postgresql_equals_the_one_on_sqlite(
    make: Make, whole: tuple[Tuned, Path], base: str, tmp_path: Path
) -> None:
    tuned, done = whole
    again = tune(make(), "tiny", tmp_path / "run", trainer=TRAINER, store=done / "store", storage=base)
    assert again.trials == tuned.trials
    assert again.recipe == tuned.recipe
    assert again.images_generated == 0
    assert not (tmp_path / "run" / "tuning.db").exists()
    study = optuna.load_study(study_name="tiny", storage=open_storage(base))
    assert [trial.state.name for trial in study.trials] == [row.state.upper() for row in tuned.trials]


@pytest.mark.parametrize("kind", ["postgresql", "journal"])
def test_several_at_once(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """Three workers, each with connections of its own, and what a dead one had asked for."""
    address = request.getfixturevalue("base") if kind == "postgresql" else str(tmp_path / "study.journal")
    dead = ledger(address, total=24, at_once=3)
    held = dead.ask()
    for one in held:
        # With numbers beyond the batch's bounds, as where others ask at the same time.
        for name, content in ((WORKER, f"{gethostname()} 1 -1"), (BATCH, [0, 1])):
            dead.study._storage.set_trial_user_attr(dead._find(one.number)._trial_id, name, content)
    failed = []

    def work() -> None:
        try:
            book = ledger(address, total=24, at_once=3)
            finish(book)
            while not book.is_over():
                time.sleep(0.02)
                finish(book)
        except BaseException as error:
            failed.append(error)

    workers = [threading.Thread(target=work, daemon=True) for _ in range(3)]
    for thread in workers:
        thread.start()
    for thread in workers:
        thread.join(120)
        assert not thread.is_alive()
    assert failed == []
    rows = dead.rows()
    assert len(rows) == 24
    assert {row.state for row in rows} == {"complete"}
    assert len({tuple(sorted(row.parameters.items())) for row in rows}) == 24, "nothing twice"
    assert [row.parameters["scale"] for row in rows[:3]] == [one.recipe.scale for one in held]
    states = [trial.state for trial in dead.study.get_trials()]
    assert states.count(TrialState.COMPLETE) == 24
    assert set(states) <= {TrialState.COMPLETE, TrialState.FAIL}, "and what was asked for beyond the total"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["postgresql", "journal"])
def test_a_worker_is_killed_and_two_go_on(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """What it had asked for is taken up again; nothing is lost, and nothing done twice."""
    address = request.getfixturevalue("base") if kind == "postgresql" else str(tmp_path / "study.journal")
    dead = worker(address, DIE)
    said = dead.communicate(timeout=240)
    assert dead.returncode == -9, said
    before = ledger(address, total=24, at_once=3)
    held = [trial for trial in before.study.get_trials() if trial.state == TrialState.RUNNING]
    assert [trial.number for trial in held] == [6, 7, 8]
    assert len(before.rows()) == 6
    other = worker(address, WORK)
    finish(before)
    said = other.communicate(timeout=240)
    assert other.returncode == 0, said
    assert said[0].strip() == "24"
    rows = ledger(address, total=24).rows()
    assert [row.number for row in rows] == list(range(24))
    assert {row.state for row in rows} == {"complete"}
    points = [tuple(sorted(row.parameters.items())) for row in rows]
    assert len(set(points)) == 24
    assert [row.parameters for row in rows[6:9]] == [trial.params for trial in held]
    states = [trial.state for trial in before.study.get_trials()]
    assert states.count(TrialState.COMPLETE) == 24
    assert set(states) <= {TrialState.COMPLETE, TrialState.FAIL}, "and what two workers asked for beyond the total"


def test_a_server_that_comes_back_is_waited_for(
    server: postgresql.Server, base: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Stopped amid a batch, and at every call after that; the trials are those without it."""
    whole = ledger(str(tmp_path / "whole.journal"))
    finish(whole)
    book = ledger(base)
    finish(book, limit=1)
    batch = book.ask()
    server.stop()
    starts = threading.Timer(0.7, server.start)
    starts.start()
    for one in batch:
        seen = Seen()
        seen.objective[0] = value(one.recipe)
        book.tell(one.number, seen, [value(one.recipe)], {}, pruned=False)
    starts.join()
    said = capsys.readouterr().err
    assert f"127.0.0.1:{server.port}/" in said
    assert "does not answer: trying again in 1 s" in said
    assert postgresql.PASSWORD not in said
    assert postgresql.WRITTEN not in said
    finish(book)
    assert drawn(book) == drawn(whole)


def test_a_server_that_stays_away_ends_the_run_and_the_same_command_goes_on(
    server: postgresql.Server, base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "WAITS", (0.05, 0.05))
    monkeypatch.setattr("pagopt.tuning.storage.PAUSE", 0.0)
    whole = ledger(str(tmp_path / "whole.journal"))
    finish(whole)
    book = ledger(base)
    finish(book, limit=1)
    batch = book.ask()
    server.stop()
    try:
        for act in (lambda: finish(book), book.give_back, lambda: ledger(base)):
            with pytest.raises(StudyError, match=r"tuner:\*\*\*@.*cannot be reached: .*refused.* are kept") as no:
                act()
            assert postgresql.PASSWORD not in str(no.value)
            assert postgresql.WRITTEN not in str(no.value)
    finally:
        server.start()
    monkeypatch.setattr("pagopt.tuning.ledger.is_alive", lambda name: False)  # that process has ended
    rest = ledger(base)
    assert [(one.number, one.recipe) for one in rest.ask()] == [(one.number, one.recipe) for one in batch]
    rest.give_back()
    finish(rest)
    assert drawn(rest) == drawn(whole)


def test_through_a_proxy(tmp_path: Path, make: Make, whole: tuple[Tuned, Path]) -> None:
    pytest.importorskip("grpc", reason="needs pip install 'pagopt[grpc]'")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"grpc://127.0.0.1:{port}"
    words = [sys.executable, "-c", PROXY, f"sqlite:///{tmp_path / 'study.db'}", str(port)]
    tuned, done = whole
    proxy = subprocess.Popen(words, stderr=subprocess.DEVNULL)
    try:
        again = tune(make(), "tiny", tmp_path / "run", trainer=TRAINER, store=done / "store", storage=address)
    finally:
        proxy.kill()
        proxy.wait()
    assert again.trials == tuned.trials
    kept = optuna.load_study(study_name="tiny", storage=f"sqlite:///{tmp_path / 'study.db'}").trials
    assert [trial.params for trial in kept] == [row.parameters for row in tuned.trials]


def test_a_study_that_was_left_at_its_very_start_is_taken_over(tmp_path: Path) -> None:
    """By a process that was killed between making it and signing it; another direction is another's."""
    address = f"sqlite:///{tmp_path / 'study.db'}"
    methods = make_sampler("tpe", {}, 0), make_pruner("none", {})
    optuna.create_study(storage=address, study_name="tiny", direction="maximize")
    optuna.create_study(storage=address, study_name="other", direction="minimize")
    storage = open_storage(address)
    assert open_study(storage, "tiny", address, ["maximize"], {"a": 1}, *methods)[1]
    assert not open_study(storage, "tiny", address, ["maximize"], {"a": 1}, *methods)[1]
    with pytest.raises(StudyError, match="'other' that pagopt did not make"):
        open_study(storage, "other", address, ["maximize"], {}, *methods)


def test_a_locked_file_is_waited_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """SQLite gives up after some seconds where several workers write."""
    file = tmp_path / "study.db"
    storage = patience.patient(RDBStorage(f"sqlite:///{file}", {"connect_args": {"timeout": 0.05}}), "it", [0.1] * 50)
    study = optuna.create_study(storage=storage, study_name="tiny")
    holder = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
    holder.execute("BEGIN EXCLUSIVE")
    release = threading.Timer(0.4, holder.rollback)
    release.start()
    begun = time.monotonic()
    study.set_user_attr("name", 1)
    assert time.monotonic() - begun > 0.3
    release.join()
    holder.close()
    assert study.user_attrs == {"name": 1}
    assert "it does not answer: trying again in 0.1 s" in capsys.readouterr().err


def test_a_process_that_has_ended_and_was_not_asked_after_is_gone() -> None:
    """As one that is killed under a program which started several."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        name = f"{gethostname()} {process.pid} {storages._started(process.pid)}"
        assert is_alive(name)
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert not is_alive(name)
