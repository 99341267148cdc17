"""The store: exact, shared by processes, safe against kills, full disks and damage."""

from __future__ import annotations

import errno
import os
import pickle
import signal
import sqlite3
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

import pagopt.store
from pagopt.errors import StoreError
from pagopt.store import Store

Fail = Callable[[str, Exception, int], None]


def entry(number: int, size: int = 16) -> tuple[str, Image.Image, dict[str, Any]]:
    description = {"number": number, "prompt": "ein Käfer 🐞"}
    pixels = np.random.default_rng(number).integers(0, 256, (size, size, 3), dtype=np.uint8)
    return Store.key(description), Image.fromarray(pixels), description


KEY, IMAGE, DESCRIPTION = entry(0)


@pytest.fixture
def store(tmp_path: Path) -> Any:
    with Store(tmp_path / "store") as store:
        yield store


# --- what it keeps


def test_an_image_comes_back_exactly(store: Store) -> None:
    assert not store.has_image(KEY)
    store.put_image(KEY, IMAGE, DESCRIPTION)
    assert store.has_image(KEY)
    assert store.get_image(KEY).tobytes() == IMAGE.tobytes()
    assert store.get_image(KEY).mode == "RGB"
    assert store.image_path(KEY) == store.folder / "images" / KEY[:2] / f"{KEY}.png"
    assert store.counts() == {"images": 1, "scores": 0}


@settings(max_examples=15, deadline=None)
@given(pixels=hnp.arrays(np.uint8, st.tuples(st.integers(1, 20), st.integers(1, 20), st.just(3))))
def test_any_pixels_come_back(tmp_path_factory: pytest.TempPathFactory, pixels: np.ndarray) -> None:
    with Store(tmp_path_factory.mktemp("any")) as store:
        store.put_image(KEY, Image.fromarray(pixels), DESCRIPTION)
        assert np.array_equal(np.asarray(store.get_image(KEY)), pixels)


def test_the_same_description_has_the_same_key() -> None:
    assert Store.key({"a": 1, "b": [1.5, None]}) == Store.key({"b": [1.5, None], "a": 1})
    others = [{"a": 1}, {"a": 1.0}, {"a": "1"}, {"a": True}, {"b": 1}, {"a": [1]}, {"a": "é"}, {"a": "e\u0301"}]
    assert len({Store.key(other) for other in others}) == len(others)
    with pytest.raises(ValueError, match="JSON compliant"):
        Store.key({"a": float("nan")})
    with pytest.raises(TypeError, match="set"):
        Store.key({"a": {1}})


def test_scores_belong_to_an_image_and_a_reward(store: Store) -> None:
    keys = [entry(i)[0] for i in range(3)]
    store.put_scores("clip", {keys[0]: 1.25, keys[1]: -1e-30})
    store.put_scores("style", {keys[0]: 7})
    store.put_scores("style", {keys[0]: 8})
    store.put_scores("style", {})
    assert store.get_scores("clip", keys) == {keys[0]: 1.25, keys[1]: -1e-30}
    assert store.get_scores("style", keys[:1]) == {keys[0]: 8.0}
    assert store.get_scores("other", keys) == {}
    assert store.get_scores("clip", []) == {}
    assert store.counts() == {"images": 0, "scores": 3}
    with pytest.raises(StoreError, match=rf"the score nan of image {keys[0]} by clip is not finite"):
        store.put_scores("clip", {keys[0]: float("nan")})


def test_missing_images(store: Store) -> None:
    entries = [entry(i) for i in range(5)]
    store.put_images(entries[:3])
    assert store.missing_images(key for key, *_ in entries) == {entries[3][0], entries[4][0]}
    store.image_path(entries[0][0]).unlink()
    assert store.missing_images([entries[0][0], entries[1][0]]) == {entries[0][0]}
    store.put_images(entries[:1])
    assert store.has_image(entries[0][0])
    assert store.missing_images([]) == set()


def test_a_thousand_images_take_seconds(store: Store) -> None:
    entries = [entry(i, size=64) for i in range(1000)]
    keys = [key for key, *_ in entries]
    start = time.perf_counter()
    store.put_images(entries)
    store.put_scores("clip", dict.fromkeys(keys, 0.5))
    assert not store.missing_images(keys)
    assert len(store.get_scores("clip", keys)) == 1000
    for key in keys:
        store.get_image(key)
    assert time.perf_counter() - start < 10


def test_it_opens_again_and_travels(store: Store) -> None:
    store.put_image(KEY, IMAGE, DESCRIPTION)
    copy = pickle.loads(pickle.dumps(store))
    assert copy.has_image(KEY)
    copy.close()
    copy.close()
    assert copy.has_image(KEY)  # opens by itself
    copy.close()


@pytest.mark.parametrize("bad", ["", "abc", "../" * 21 + "a", "A" * 64, "g" * 64, KEY + "\n", KEY[:-1] + "/", None, 3])
def test_no_path_leads_out(store: Store, bad: Any) -> None:
    for use in (
        lambda: store.image_path(bad),
        lambda: store.get_image(bad),
        lambda: store.has_image(bad),
        lambda: store.put_image(bad, IMAGE, {}),
        lambda: store.put_scores("clip", {bad: 1.0}),
    ):
        with pytest.raises(StoreError, match="is no key of an image"):
            use()
    assert store.counts() == {"images": 0, "scores": 0}


def test_only_rgb_is_kept(store: Store) -> None:
    for mode in ("RGBA", "L", "P", "F"):
        with pytest.raises(ValueError, match=f"not mode '{mode}'"):
            store.put_image(KEY, Image.new(mode, (2, 2)), DESCRIPTION)
    assert not store.has_image(KEY)


# --- several processes


WRITER = """
import sys
sys.path[:0] = {path!r}
from test_store import entry
from pagopt.store import Store

store = Store(sys.argv[1])
for start in range(0, 60, 4):
    batch = [entry(i) for i in range(start, start + 4)]
    store.put_images(batch)
    store.put_scores("clip", {{key: float(start) for key, *_ in batch}})
    store.put_scores(sys.argv[2], {{key: 1.0 for key, *_ in batch}})
    print(start, flush=True)
"""


def writer(folder: Path, name: str) -> subprocess.Popen[str]:
    here = Path(__file__).parent
    code = WRITER.format(path=[str(here), str(here.parent)])
    return subprocess.Popen([sys.executable, "-c", code, str(folder), name], stdout=subprocess.PIPE, text=True)


def test_processes_write_at_once(tmp_path: Path) -> None:
    writers = [writer(tmp_path, name) for name in ("a", "b", "c")]
    for process in writers:
        process.communicate(timeout=120)
    assert [process.returncode for process in writers] == [0, 0, 0]
    with Store(tmp_path) as store:
        assert store.counts() == {"images": 60, "scores": 240}
        for number in range(60):
            key, image, _ = entry(number)
            assert store.get_image(key).tobytes() == image.tobytes()
    assert not [path for path in (tmp_path / "images").rglob("*") if path.is_file() and path.suffix != ".png"]


def test_a_killed_process_loses_its_batch_only(tmp_path: Path) -> None:
    process = writer(tmp_path, "a")
    assert process.stdout is not None
    done = [process.stdout.readline() for _ in range(3)]
    process.send_signal(signal.SIGKILL)
    process.communicate()
    with Store(tmp_path) as store:
        safe = [entry(i)[0] for i in range(int(done[-1]) + 4)]
        assert not store.missing_images(safe)
        assert len(store.get_scores("a", safe)) == len(safe) == 12
        store.put_images(entry(i) for i in range(60))
        for number in range(60):
            assert store.get_image(entry(number)[0]).tobytes() == entry(number)[1].tobytes()


def test_killed_between_file_and_row(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Store, "_insert", lambda *_: None)
        store.put_image(KEY, IMAGE, DESCRIPTION)
    assert store.image_path(KEY).exists()
    assert not store.has_image(KEY)
    store.put_image(KEY, IMAGE, DESCRIPTION)
    assert store.has_image(KEY)


def test_a_fork_gets_a_connection_of_its_own(store: Store) -> None:
    store.put_image(KEY, IMAGE, DESCRIPTION)
    before = store._database()
    store._process -= 1  # as if forked
    assert store._database() is not before
    assert store.has_image(KEY)
    before.close()


def test_patience_ends(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pagopt.store, "PATIENCE", 0.1)
    holder = sqlite3.connect(store.index, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    store.close()
    with pytest.raises(StoreError, match="Another process has held its index"):
        store.put_scores("clip", {KEY: 1.0})
    holder.close()
    store.put_scores("clip", {KEY: 1.0})


# --- full disks and closed doors


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
    whole, left = pagopt.store.write_bytes, [2]

    def full(path: Path, data: bytes) -> None:
        if not left[0]:
            raise OSError(number, os.strerror(number), str(path))
        left[0] -= 1
        whole(path, data)

    monkeypatch.setattr(pagopt.store, "write_bytes", full)
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
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(StoreError, match=r"Permission denied.*may not be written to"):
        Store(tmp_path / "closed")


# --- damage


@pytest.mark.parametrize("how", ["cut", "empty", "noise", "flip", "jpeg", "grey"])
def test_a_damaged_image_is_named(store: Store, how: str) -> None:
    store.put_image(KEY, IMAGE, DESCRIPTION)
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
    store.put_image(KEY, IMAGE, DESCRIPTION)
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
    foreign = store.folder / "images" / "ab" / f"{'ab' * 32}.png"  # an image with another description
    foreign.parent.mkdir(exist_ok=True)
    foreign.write_bytes(store.image_path(KEY).read_bytes())
    (store.folder / "images" / "ab" / "cat.png").write_bytes(b"")
    with Store(store.folder) as again:
        assert again.counts() == {"images": 300, "scores": 0}
        assert not again.missing_images(key for key, *_ in entries)


def test_an_index_of_another_version_or_program(store: Store, tmp_path: Path) -> None:
    store._database().execute("UPDATE meta SET value = '2'")
    store.close()
    with pytest.raises(StoreError, match="has schema 2, and this version of pagopt writes 1"):
        Store(store.folder)
    other = sqlite3.connect(tmp_path / "index.sqlite")
    other.execute("CREATE TABLE cats (name TEXT)")
    other.close()
    with pytest.raises(StoreError, match="is the database of something else"):
        Store(tmp_path)


def test_the_documented_schema(store: Store) -> None:
    store.put_image(KEY, IMAGE, DESCRIPTION)
    store.put_scores("clip", {KEY: 0.5})
    documented = textwrap.dedent(pagopt.store.__doc__ or "")
    database = sqlite3.connect(store.index)
    for (table,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
        columns = [row[1] for row in database.execute(f"PRAGMA table_info({table})")]
        (line,) = [line for line in documented.splitlines() if line.split()[:1] == [table]]
        assert all(column in line for column in columns)
    assert database.execute("SELECT * FROM scores").fetchall() == [(KEY, "clip", 0.5)]
    database.close()
