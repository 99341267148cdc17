"""Who draws what: several searches on one store do not draw the same image at the same moment.

A claim is a lock of the operating system on one byte of the file ``claims.lock``, at a place that the image's key
gives. The system lets go of it when its process ends, however it ends, so nothing has to be cleaned up after a crash.
Claims save work and protect nothing: without them (on Windows, on a network file system without locks) an image may
be drawn twice, and is kept once.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = ["Claims"]

PATIENCE = 600.0  # seconds to wait for another process's image before drawing it after all; it may be stopped
_BUSY = (BlockingIOError, PermissionError)  # what lockf raises where another process has the lock


class Claims:
    """Claims of one process on images of one store.

    Args:
        path: The lock file; it is made when it is first needed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: int | None = None
        self._process = 0

    @contextlib.contextmanager
    def take(self, keys: Iterable[str]) -> Iterator[set[str]]:
        """Those of the keys that no other process has claimed; they are this one's inside the ``with`` block.

        Where all of them are taken it waits until one is free, holding none itself, so that two processes never wait
        for each other. After ``PATIENCE`` it gives all of them.
        """
        wanted = sorted(set(keys))
        mine, until, pause = self._free(wanted), time.monotonic() + PATIENCE, 0.01
        while wanted and not mine and time.monotonic() < until:
            time.sleep(pause)
            pause = min(0.5, pause * 1.5)
            mine = self._free(wanted)
        try:
            yield set(mine or wanted)
        finally:
            for key in mine:
                self._lock(key, release=True)

    def close(self) -> None:
        """Let go of everything."""
        if self._file is not None and self._process == os.getpid():
            os.close(self._file)
        self._file = None

    def _free(self, keys: list[str]) -> list[str]:
        free = []
        try:
            if fcntl is None:
                return keys
            if self._file is None or self._process != os.getpid():  # a fork inherits no locks
                self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
                self._process = os.getpid()
            for key in keys:
                with contextlib.suppress(*_BUSY):
                    self._lock(key)
                    free.append(key)
        except OSError:  # no locks here, or no space for the file: draw
            return keys
        return free

    def _lock(self, key: str, release: bool = False) -> None:
        # 60 bits of the key: two keys of one place would only wait for each other.
        if fcntl is not None and self._file is not None:
            how = fcntl.LOCK_UN if release else fcntl.LOCK_EX | fcntl.LOCK_NB
            with contextlib.suppress(OSError) if release else contextlib.nullcontext():
                fcntl.lockf(self._file, how, 1, int(key[:15], 16))
