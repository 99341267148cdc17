"""Storages that cannot be opened: a clear error, without a password."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest

from pagopt.cli import main
from pagopt.errors import StudyError
from pagopt.recipe import Recipe
from pagopt.tuning import Tuning, tune
from pagopt.tuning.plan import finished_trials
from pagopt.tuning.storage import address_of, file_of, guarded, open_storage, shown
from tests.tune.conftest import TRAINER


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("postgresql://me:geheim@127.0.0.1:1/base", "cannot be reached: .*refused"),
        ("postgresql://me:geheim@127.0.0.1:port/base", "cannot be used: .*'port'"),
        ("postgresql://me@127.0.0.1:1/base?password=geheim", r"password=\*\*\* cannot be reached"),
        ("postgresql://me:geheim@127.0.0.1/base?nosuch=1", "cannot be reached: .*invalid.*option .nosuch"),
        ("grpc://127.0.0.1", "cannot be used: a proxy's address is grpc://HOST:PORT"),
        ("grpc://127.0.0.1:1", "cannot be reached: GRPC connection timeout"),
    ],
)
def test_what_cannot_be_opened_says_so_without_a_password(
    address: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("grpc" if address.startswith("grpc") else "psycopg")
    monkeypatch.setattr("pagopt.tuning.storage.PAUSE", 0.0)
    monkeypatch.setattr("pagopt.tuning.storage.ANSWER", 0.1)
    with pytest.raises(StudyError, match=message) as no:
        open_storage(address)
    assert "geheim" not in str(no.value)
    assert "geheim" not in shown(address)


@pytest.mark.parametrize(
    ("address", "seen"),
    [
        ("postgresql://me:ge@heim@host/db", "postgresql://me:***@host/db"),
        ("postgresql://me:ge/heim?x@host:port/db", "postgresql://me:***@host:port/db"),
        ("redis://:geheim@host:1/0", "redis://:***@host:1/0"),
        ("grpc://me:geheim@host:1", "grpc://me:***@host:1"),
        ("mysql://host/db?user=me&pwd=ge@heim", "mysql://host/db?user=***&pwd=***"),
        ("sqlite+libsql://host/?authToken=geheim&secure=true", "sqlite+libsql://host/?authToken=***&secure=***"),
        ("mssql+pyodbc:///?odbc_connect=PWD%3Dgeheim", "mssql+pyodbc:///?odbc_connect=***"),
        ("sqlite:////home/a:b@c/x.db", "sqlite:////home/a:b@c/x.db"),
        ("folder/a:geheim@b.journal", "folder/a:geheim@b.journal"),
    ],
)
def test_an_address_is_shown_without_its_secrets(address: str, seen: str) -> None:
    assert shown(address) == seen


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("postgresql://me:ge@heim@host/db", "no host ***@host, tried ***"),
        ("mysql://host/db?pwd=ge@heim", "no host heim@host, tried ***"),
        ("sqlite+libsql://host/?authToken=ge%40heim&timeout=1", "no host heim@host, tried ***"),
    ],
)
def test_what_a_driver_says_is_told_without_secrets(address: str, told: str) -> None:
    with pytest.raises(StudyError) as no, guarded(address):
        raise ConnectionError("no host heim@host, tried ge@heim")
    assert f"cannot be reached: {told}. Finished" in str(no.value)


def test_a_driver_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(StudyError, match=r"needs the Python package psycopg.*pip install 'pagopt\[postgresql\]'"):
        open_storage("postgresql://me@127.0.0.1:1/base")


def test_the_command_says_at_once_that_a_database_cannot_be_reached(
    tuning_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("psycopg")
    monkeypatch.setattr("pagopt.tuning.storage.PAUSE", 0.0)
    words = ["tune", str(tuning_file), "--out", str(tmp_path / "run"), "--trainer.accelerator", "cpu"]
    assert main([*words, "--storage", "postgresql://me:geheim@127.0.0.1:1/base"]) == 2
    said = capsys.readouterr().err
    assert "error: the storage postgresql://me:***@127.0.0.1:1/base cannot be reached" in said
    assert "geheim" not in said
    assert not list((tmp_path / "run" / "store" / "images").rglob("*.webp")), "before anything is drawn"


@pytest.mark.parametrize("name", ["what?", "50%20off", "a#b", "{brace}", "x y"])
def test_a_folder_may_be_called_anything(name: str, tmp_path: Path) -> None:
    out = tmp_path / name / "run"
    address = address_of(out / "tuning.db")
    assert file_of(address) == out / "tuning.db"
    assert finished_trials(None, out, "tiny") == 0
    out.mkdir(parents=True)
    study = optuna.create_study(storage=open_storage(address), study_name="tiny")
    study.tell(study.ask(), 1.0)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (out / "tuning.db").is_file()
    assert finished_trials(None, out, "tiny") == 1
    assert shown(address) == address


def test_files_are_what_they_hold_or_what_their_name_says(tmp_path: Path) -> None:
    assert (
        address_of(tmp_path / "my.journal") == address_of(str(tmp_path / "my.journal")) == str(tmp_path / "my.journal")
    )
    assert address_of(str(tmp_path / "my.sqlite3")) == f"sqlite:///{tmp_path / 'my.sqlite3'}"
    optuna.create_study(storage=open_storage(str(tmp_path / "old.db")), study_name="kept in a journal")
    optuna.create_study(storage=open_storage(f"sqlite:///{tmp_path / 'data'}"), study_name="kept in a database")
    assert address_of(tmp_path / "old.db") == str(tmp_path / "old.db")
    assert address_of(tmp_path / "data") == f"sqlite:///{tmp_path / 'data'}"
    assert address_of("postgresql://me@host/base") == "postgresql://me@host/base"
    assert file_of("sqlite:///:memory:") is file_of("postgresql://me@host/base") is None


def test_a_storage_that_is_no_address_is_refused_before_a_model_is_loaded(
    make: Callable[..., Tuning], tmp_path: Path
) -> None:
    storage: Any = optuna.storages.InMemoryStorage()
    tuning = make(study={"model": str(tmp_path / "no such model")})
    with pytest.raises(StudyError, match="storage is a InMemoryStorage, and has to be an address"):
        tune(tuning, "tiny", tmp_path / "run", trainer=TRAINER, storage=storage)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (
            {"sampler": optuna.samplers.TPESampler()},
            "sampler is TPESampler, and has to be a name, .* tpe, random, .*sampler_options",
        ),
        ({"sampler": optuna.samplers.TPESampler}, "sampler is TPESampler, and has to be a name"),
        (
            {"pruner": optuna.pruners.MedianPruner()},
            "pruner is MedianPruner, and has to be a name, .* median, .*pruner_options",
        ),
        ({"recipe": Recipe("L1.H1")}, r"recipe is a Recipe, and has to be text, .* Save a Recipe, as recipe.save"),
        ({"recipe": Path("start.json")}, "and has to be text"),
    ],
)
def test_objects_in_place_of_names_are_refused(given: dict[str, Any], says: str, make: Callable[..., Tuning]) -> None:
    with pytest.raises(StudyError, match=says):
        make(**given)


def test_a_path_is_a_storage(make: Callable[..., Tuning], tmp_path: Path) -> None:
    base = tmp_path / "50%?" / "base.db"
    base.parent.mkdir()
    found = tune(make(trials=2), "tiny", tmp_path / "run", trainer=TRAINER, storage=base)
    assert len(found.trials) == 2
    assert base.is_file()
    assert finished_trials(base, tmp_path / "run", "tiny") == 2
    assert not (tmp_path / "run" / "tuning.db").exists()
