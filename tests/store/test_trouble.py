"""Full disks, closed doors and damage: a clear error, and what is finished is kept."""

from __future__ import annotations

import errno
import os
import sqlite3
import threading
from pathlib import Path

import pytest
from entries import DESCRIPTION, IMAGE, KEY, entry

import pagopt.store.store
from pagopt.errors import StoreError
from pagopt.store import Store


@pytest.mark.parametrize(
    ("number", "says"),
    [
        (errno.ENOSPC, "No space is left there.*What is finished is kept"),
        (errno.EDQUOT, "No space is left there"),
        (errno.EROFS, "may not be written to"),
        (errno.EACCES, "may not be written to"),
        (errno.EIO, "Input/output error.*What is finished is kept"),
    ],
)
def test_what_was_finished_before_a_failure_is_kept(
    store: Store, monkeypatch: pytest.MonkeyPatch, number: int, says: str
) -> None:
    whole, left = pagopt.store.store.write_bytes, [2]

    def full(path: Path, data: bytes) -> None:
        if not left[0]:
            raise OSError(number, os.strerror(number), str(path))
        left[0] -= 1
        whole(path, data)

    monkeypatch.setattr(pagopt.store.store, "write_bytes", full)
    entries = [entry(i) for i in range(4)]
    with pytest.raises(StoreError, match=says) as caught:
        store.put_images(entries)
    assert str(store.folder) in str(caught.value)
    assert store.missing_images(key for key, *_ in entries) == {entries[2][0], entries[3][0]}


@pytest.mark.parametrize(
    ("pragma", "says"), [("max_page_count = 1", "No space is left"), ("query_only = ON", "may not be written to")]
)
def test_an_index_that_cannot_grow_or_change(store: Store, pragma: str, says: str) -> None:
    store._database().execute(f"PRAGMA {pragma}")
    scores = {entry(i)[0]: 1.0 for i in range(300)}
    with pytest.raises(StoreError, match=says):
        store.put_scores("clip", scores)
    assert store.counts()["scores"] == 0
    store.close()
    store.put_scores("clip", scores)
    assert store.counts()["scores"] == 300


def test_folders_that_will_not_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "store"):
        with pytest.raises(StoreError, match="It is a file, or in one"):
            Store(folder)
    (tmp_path / "folder" / "index.sqlite").mkdir(parents=True)
    with pytest.raises(StoreError, match=r"cannot open the store .*unable to open"):
        Store(tmp_path / "folder")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", "a path that is full of locked doors")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(StoreError, match=r"Permission denied.*may not be written to"):
        Store(tmp_path / "closed")


@pytest.mark.parametrize("how", ["cut", "empty", "noise", "flip", "jpeg", "grey"])
def test_a_damaged_image_is_named(store: Store, how: str) -> None:
    store.put_images([(KEY, IMAGE, DESCRIPTION)])
    path = store.image_path(KEY)
    data = path.read_bytes()
    if how == "flip":
        path.write_bytes(data[:600] + bytes([data[600] ^ 1]) + data[601:])
    elif how == "jpeg":
        IMAGE.save(path, "JPEG")
    elif how == "grey":
        IMAGE.convert("L").save(path)
    else:
        path.write_bytes({"cut": data[:-100], "empty": b"", "noise": b"\0" * 500}[how])
    with pytest.raises(StoreError, match=r"is damaged .*Delete it and run again") as caught:
        store.get_image(KEY)
    assert str(path) in str(caught.value)
    path.unlink()
    with pytest.raises(StoreError, match=r"is gone. Run again"):
        store.get_image(KEY)
    assert not store.has_image(KEY)
    store.put_images([(KEY, IMAGE, DESCRIPTION)])
    assert store.get_image(KEY).tobytes() == IMAGE.tobytes()


@pytest.mark.parametrize("how", ["noise", "page"])
def test_a_damaged_index_is_built_again_from_the_images(store: Store, how: str) -> None:
    entries = [entry(i) for i in range(300)]
    store.put_images(entries)
    store.close()
    data = store.index.read_bytes()
    whole = b"\xff" * 5000 if how == "noise" else data[:4096] + b"\xff" * (len(data) - 4096)
    store.index.write_bytes(whole)
    with (
        pytest.raises(StoreError, match=r"Its index is damaged. Move .*index.sqlite away and run again"),
        Store(store.folder) as damaged,
    ):
        damaged.missing_images(key for key, *_ in entries)
    store.index.rename(store.folder / "damaged")
    foreign = store.folder / "images" / "ab" / f"{'ab' * 32}.webp"  # an image with another description
    foreign.parent.mkdir(exist_ok=True)
    foreign.write_bytes(store.image_path(KEY).read_bytes())
    (store.folder / "images" / "ab" / "cat.png").write_bytes(b"")
    with Store(store.folder) as again:
        assert again.counts() == {"images": 300, "scores": 0}
        assert not again.missing_images(key for key, *_ in entries)


def test_an_index_of_another_version_or_program(store: Store, tmp_path: Path) -> None:
    for version, said in (("3", "3"), ("two", "two"), ("", ""), ("0", "0")):
        store._database().execute("UPDATE meta SET value = ?", (version,))
        store.close()
        for read_only in (False, True):
            with pytest.raises(StoreError, match=f"has schema {said}, and this version of pagopt knows 1 to 2"):
                Store(store.folder, read_only)
        store._connections[threading.current_thread()] = sqlite3.connect(store.index, isolation_level=None)
    store.close()
    other = sqlite3.connect(tmp_path / "index.sqlite")
    other.execute("CREATE TABLE cats (name TEXT)")
    other.close()
    with pytest.raises(StoreError, match="is the database of something else"):
        Store(tmp_path)
