"""Notes about images: kept by kind, in stores of the first versions too."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from entries import KEY, entry

from pagopt.errors import StoreError
from pagopt.store import Store

OTHER = entry(1)[0]


def test_notes_come_back_by_kind(store: Store) -> None:
    assert store.get_notes("looks@1", [KEY, OTHER]) == {}
    store.put_notes("looks@1", {KEY: {"a": 0.1, "b": "é"}, OTHER: {"a": 2}})
    store.put_notes("looks@2", {KEY: {"a": 3}})
    store.put_notes("looks@1", {OTHER: {"a": 4}})
    store.put_notes("looks@1", {})
    assert store.get_notes("looks@1", [KEY, OTHER]) == {KEY: {"a": 0.1, "b": "é"}, OTHER: {"a": 4}}
    assert store.get_notes("looks@2", [KEY, OTHER]) == {KEY: {"a": 3}}


def test_a_store_of_the_first_versions_takes_notes(store: Store) -> None:
    store.close()
    with sqlite3.connect(store.index) as database:
        database.execute("DROP TABLE notes")
        database.execute("ALTER TABLE images DROP COLUMN bytes")
        database.execute("ALTER TABLE images DROP COLUMN made")
        database.execute("UPDATE meta SET value = '1'")
    database.close()
    with Store(store.folder) as old:
        assert old.get_notes("looks@1", [KEY]) == {}
        old.put_notes("looks@1", {KEY: {"a": 1}})
        assert old.get_notes("looks@1", [KEY]) == {KEY: {"a": 1}}


def test_what_is_no_note_is_refused(store: Store, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="is no key of an image"):
        store.put_notes("looks@1", {"../x": {"a": 1}})
    with pytest.raises(ValueError, match="JSON compliant"):
        store.put_notes("looks@1", {KEY: {"a": float("nan")}})
    assert store.get_notes("looks@1", [KEY]) == {}
