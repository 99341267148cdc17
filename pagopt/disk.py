"""Transactions of the index, and what a failing disk or index means to a user."""

from __future__ import annotations

import contextlib
import errno
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from pagopt.errors import StoreError

__all__ = ["explain", "transaction"]

DENIED = {errno.EROFS, errno.EACCES, errno.EPERM}
KEPT = "What is finished is kept; run again to go on."


@contextlib.contextmanager
def transaction(database: sqlite3.Connection) -> Iterator[None]:
    """All of what is written inside, or nothing of it."""
    database.execute("BEGIN IMMEDIATE")
    try:
        yield
        database.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):
            database.execute("ROLLBACK")
        raise


def explain(what: str, folder: Path, index: Path, error: OSError | sqlite3.Error, patience: float) -> StoreError:
    """An error that says what to do.

    Args:
        what: What was tried: "open", "read", "write to".
        folder: The store.
        index: Its index.
        error: What the system or SQLite said.
        patience: Seconds that were waited for another process.
    """
    number, text = (error.errno, "") if isinstance(error, OSError) else (None, str(error))
    if number in {errno.ENOSPC, errno.EDQUOT} or "full" in text:
        advice = f"No space is left there. Free some, or move the folder to a larger disk. {KEPT}"
    elif number in {errno.EEXIST, errno.ENOTDIR}:
        advice = "It is a file, or in one; choose another folder."
    elif number in DENIED or "readonly" in text or "unable to open" in text:
        advice = f"It may not be written to. Change its permissions, or choose another folder. {KEPT}"
    elif "locked" in text or "busy" in text:
        advice = f"Another process held its index for {patience:.0f} seconds. {KEPT}"
    elif "malformed" in text or "not a database" in text:
        advice = f"Its index is damaged. Move {index} away and run again: the images are found again."
    else:
        advice = KEPT
    return StoreError(f"cannot {what} the store {folder}: {error}. {advice}")
