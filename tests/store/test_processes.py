"""Several processes on one store, and processes that are killed."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from entries import DESCRIPTION, IMAGE, KEY, entry

import pagopt.store.store
from pagopt.errors import StoreError
from pagopt.store import Store

WRITER = """
import sys
sys.path[:0] = {path!r}
from entries import entry
from pagopt.store import Store

store = Store(sys.argv[1])
for start in range(0, 40, 4):
    batch = [entry(i) for i in range(start, start + 4)]
    store.put_images(batch)
    store.put_scores("clip", {{key: float(start) for key, *_ in batch}})
    store.put_scores(sys.argv[2], {{key: 1.0 for key, *_ in batch}})
    print(start, flush=True)
"""


def writer(folder: Path, name: str) -> subprocess.Popen[str]:
    here = Path(__file__).parent
    code = WRITER.format(path=[str(here), str(here.parent.parent)])
    return subprocess.Popen([sys.executable, "-c", code, str(folder), name], stdout=subprocess.PIPE, text=True)


def test_processes_write_at_once(tmp_path: Path) -> None:
    writers = [writer(tmp_path, name) for name in ("a", "b", "c")]
    for process in writers:
        process.communicate(timeout=120)
    assert [process.returncode for process in writers] == [0, 0, 0]
    with Store(tmp_path) as store:
        assert store.counts() == {"images": 40, "scores": 160}
        for number in range(40):
            key, image, _ = entry(number)
            assert store.get_image(key).tobytes() == image.tobytes()
    assert not [path for path in (tmp_path / "images").rglob("*") if path.is_file() and path.suffix != ".webp"]


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
        store.put_images(entry(i) for i in range(40))
        for number in range(40):
            assert store.get_image(entry(number)[0]).tobytes() == entry(number)[1].tobytes()


def test_killed_between_file_and_row(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Store, "_insert", lambda *_: None)
        store.put_images([(KEY, IMAGE, DESCRIPTION)])
    assert store.image_path(KEY).exists()
    assert not store.has_image(KEY)
    store.put_images([(KEY, IMAGE, DESCRIPTION)])
    assert store.has_image(KEY)


def test_a_fork_gets_a_connection_of_its_own(store: Store) -> None:
    store.put_images([(KEY, IMAGE, DESCRIPTION)])
    before = store._database()
    store._process -= 1  # as if forked
    assert store._database() is not before
    assert store.has_image(KEY)
    before.close()


def test_threads_share_a_store(store: Store) -> None:
    """Each has a connection of its own; those of threads that ended are closed when another one comes."""

    def write(number: int) -> int:
        for some in range(10 * number, 10 * number + 10):
            store.put_images([entry(some)])
            store.put_scores("clip", {entry(some)[0]: float(some)})
        return len(store._connections)

    store.put_images([entry(100)])
    with ThreadPoolExecutor(4) as pool:
        assert max(pool.map(write, range(4))) > 1
    assert store.counts() == {"images": 41, "scores": 40}
    for number in range(4, 8):
        thread = threading.Thread(target=write, args=(number,))
        thread.start()
        thread.join()
    assert len(store._connections) == 2  # this thread's, and the last one's
    store.close()
    assert not store._connections
    assert store.counts()["images"] == 81


def test_patience_ends(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pagopt.store.store, "PATIENCE", 0.1)
    holder = sqlite3.connect(store.index, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    store.close()
    with pytest.raises(StoreError, match="Another process held its index"):
        store.put_scores("clip", {KEY: 1.0})
    holder.close()
    store.put_scores("clip", {KEY: 1.0})
