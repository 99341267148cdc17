"""Storages that cannot be opened: a clear error, without a password."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from pagopt.cli import main
from pagopt.errors import StudyError
from pagopt.tuning.storage import open_storage, shown


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
