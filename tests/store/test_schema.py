"""Stores of schema 1 are read, and brought up to date in place; nothing else is touched."""

from __future__ import annotations

import hashlib
import io
import json
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from entries import KEY, entry
from PIL import PngImagePlugin

import pagopt.store.store
from pagopt.errors import StoreError
from pagopt.store import Store, contents, verify

ROOT = Path(__file__).parent.parent.parent
# As pagopt 0.1 made them.
FIRST = (
    "CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
    "CREATE TABLE images (key TEXT PRIMARY KEY, description TEXT NOT NULL) WITHOUT ROWID",
    "CREATE TABLE scores (image_key TEXT NOT NULL, reward_key TEXT NOT NULL, score REAL NOT NULL, "
    "PRIMARY KEY (image_key, reward_key)) WITHOUT ROWID",
    "INSERT INTO meta VALUES ('schema', '1')",
)


@pytest.fixture
def first(tmp_path: Path) -> Path:
    """A store of schema 1 with five images and scores."""
    folder = tmp_path / "first"
    folder.mkdir()
    with sqlite3.connect(folder / "index.sqlite") as database:
        for statement in FIRST:
            database.execute(statement)
        for number in range(5):
            key, image, description = entry(number)
            text = json.dumps(description, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
            assert hashlib.sha256(text.encode()).hexdigest() == key
            notes, data = PngImagePlugin.PngInfo(), io.BytesIO()
            notes.add_itxt("description", text)
            image.save(data, "PNG", pnginfo=notes)
            path = folder / "images" / key[:2] / f"{key}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data.getvalue())
            database.execute("INSERT INTO images VALUES (?, ?)", (key, text))
            database.execute("INSERT INTO scores VALUES (?, 'clip', ?)", (key, float(number)))
    database.close()
    return folder


def check(store: Store, images: int = 5) -> None:
    keys = [entry(number)[0] for number in range(5)]
    assert not store.missing_images(keys)
    assert store.get_scores("clip", keys) == {key: float(number) for number, key in enumerate(keys)}
    assert store.get_notes("looks@1", keys) == {}
    assert store.get_image(KEY).tobytes() == entry(0)[1].tobytes()
    found = contents(store)
    assert found.images == images
    assert found.image_bytes == sum(path.stat().st_size for path in store.files())
    assert verify(store).clean


def test_it_is_read_upgraded_and_grows(first: Path) -> None:
    before = (first / "index.sqlite").read_bytes()
    with Store(first, read_only=True) as store:
        check(store)
    assert (first / "index.sqlite").read_bytes() == before  # looking changes nothing
    for _ in range(2):
        with Store(first) as store:
            check(store)
    with Store(first) as store:
        key, image, description = entry(9)
        store.put_images([(key, image, description)])
        check(store, images=6)
        assert [path.suffix for path in store.files()].count(".webp") == 1
        assert store._database().execute("SELECT value FROM meta").fetchall() == [("2",)]


def test_two_processes_upgrade_at_once(first: Path) -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); from pagopt.store import Store; Store({str(first)!r}).close()"
    )
    both = [subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE) for _ in range(3)]
    assert [(process.communicate()[1], process.returncode) for process in both] == [(b"", 0)] * 3
    with Store(first) as store:
        check(store)


def test_an_upgrade_that_fails_changes_nothing(first: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = (first / "index.sqlite").read_bytes()
    monkeypatch.setattr(pagopt.store.schema, "TABLES", ("CREATE nonsense",))
    with pytest.raises(StoreError, match="cannot open the store"):
        Store(first)
    assert (first / "index.sqlite").read_bytes() == before


def test_on_a_read_only_disk_it_is_read_as_it_is(first: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    connect = sqlite3.connect

    def read_only(path: Path, **options: Any) -> sqlite3.Connection:
        return connect(f"file:{path}?mode=ro", uri=True, **options)

    monkeypatch.setattr(pagopt.store.store.sqlite3, "connect", read_only)
    with Store(first) as store:
        check(store)
        with pytest.raises(StoreError, match="may not be written to"):
            store.put_scores("clip", {KEY: 1.0})


def test_looking_needs_a_store_and_writes_nothing(first: Path, tmp_path: Path) -> None:
    for folder in (tmp_path / "none", tmp_path):
        with pytest.raises(StoreError, match=r"is no store: it has no index\.sqlite"):
            Store(folder, read_only=True)
    assert not (tmp_path / "none").exists()
    with Store(first, read_only=True) as store:
        for write in (
            lambda: store.put_images([entry(7)]),
            lambda: store.put_scores("clip", {KEY: 1.0}),
            lambda: store.forget([KEY]),
        ):
            with pytest.raises(StoreError, match="was opened to look at it only"):
                write()
        check(store)
    (first / "index.sqlite").unlink()
    with pytest.raises(StoreError, match=r"has lost its index: `pagopt store verify .* --repair`"):
        Store(first, read_only=True)
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "index.sqlite").touch()
    with pytest.raises(StoreError, match="is no store"):
        Store(tmp_path / "empty", read_only=True)
