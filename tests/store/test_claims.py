"""Claims: one process draws, the others wait or draw something else; a crash holds nobody up."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from entries import entry

import pagopt.store.claims
from pagopt.store import Store

ROOT = Path(__file__).parent.parent.parent
HOLDER = """
import sys
sys.path.insert(0, {root!r})
from pathlib import Path
from pagopt.store.claims import Claims

with Claims(Path(sys.argv[1])).take(sys.argv[2:]) as mine:
    print(len(mine), flush=True)
    sys.stdin.readline()
"""
A, B, C = (entry(number)[0] for number in range(3))


def holder(store: Store, *keys: str) -> subprocess.Popen[str]:
    """A process that holds claims until it is told, or killed."""
    words = [sys.executable, "-c", HOLDER.format(root=str(ROOT)), str(store.folder / "claims.lock"), *keys]
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == f"{len(keys)}\n"
    return process


def test_only_what_nobody_draws_is_given(store: Store) -> None:
    other = holder(store, A, B)
    with store.claim([A, B, C]) as mine:
        assert mine == {C}
    other.communicate("\n")
    with store.claim([A, B, C]) as mine:
        assert mine == {A, B, C}
        beside = holder(store, entry(4)[0])
        beside.communicate("\n")
    again = holder(store, A, B, C)  # let go of at the end of the block
    again.communicate("\n")


def test_a_killed_process_holds_nothing(store: Store) -> None:
    other = holder(store, A)
    other.send_signal(signal.SIGKILL)
    other.communicate()
    began = time.monotonic()
    with store.claim([A]) as mine:
        assert mine == {A}
    assert time.monotonic() - began < 1


def test_it_waits_for_the_last_ones(store: Store) -> None:
    other = holder(store, A)
    began = time.monotonic()
    threading.Timer(0.4, lambda: other.communicate("\n")).start()
    with store.claim([A]) as mine:
        assert mine == {A}
    assert time.monotonic() - began > 0.3
    other.wait()


def test_patience_ends_and_the_image_is_drawn_after_all(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pagopt.store.claims, "PATIENCE", 0.1)
    other = holder(store, A)
    with store.claim([A]) as mine:
        assert mine == {A}
    other.communicate("\n")


def test_without_locks_everybody_draws(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(pagopt.store.claims, "fcntl", None)
        with store.claim([A, B]) as mine:
            assert mine == {A, B}
    store.close()
    (store.folder / "claims.lock").unlink(missing_ok=True)
    (store.folder / "claims.lock").mkdir()  # cannot be opened
    with store.claim([A, B]) as mine:
        assert mine == {A, B}
    with store.claim([]) as mine:
        assert mine == set()
