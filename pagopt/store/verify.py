"""Is everything there and whole? Every file is decoded and held against its key, every row against its file."""

from __future__ import annotations

import hashlib
import sqlite3
import time
from dataclasses import dataclass, field
from pathlib import Path

from tqdm.auto import tqdm

from pagopt.errors import DamagedImage
from pagopt.store.picture_file import SUFFIXES
from pagopt.store.store import KEY, Store, row_of

__all__ = ["Findings", "verify"]

ABANDONED = 3600.0  # seconds after which a half-written file is nobody's any more
BATCH = 1000


@dataclass
class Findings:
    """What a check found.

    Attributes:
        images: How many rows were checked.
        damaged: What is wrong with a file, by its key.
        lost: Keys of rows without a file.
        changed: Keys whose row's description does not give the key.
        unlisted: Files without a row, as a killed process leaves; harmless, they are drawn again when asked for.
        strange: Files in ``images`` that are no images of a store.
        unfinished: Files that were being written, over an hour ago.
        repaired: Whether all of this was put right.
    """

    images: int = 0
    damaged: dict[str, str] = field(default_factory=dict)
    lost: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    unlisted: list[str] = field(default_factory=list)
    strange: list[str] = field(default_factory=list)
    unfinished: list[str] = field(default_factory=list)
    repaired: bool = False

    @property
    def clean(self) -> bool:
        """Whether everything that the store says it has is there and whole."""
        return not (self.damaged or self.lost or self.changed)


def verify(store: Store, repair: bool = False) -> Findings:
    """Check everything. Others may go on writing meanwhile.

    Args:
        store: Read only will do without ``repair``.
        repair: Forget what is damaged, lost or changed, so that it is drawn again; list what is unlisted; delete
            what is unfinished, and what is unlisted and damaged. Strange files stay.

    Raises:
        StoreError: If the index itself is damaged, or the folder or a file cannot be read or written. Nothing is
            forgotten or deleted for that: it may pass.
    """
    _check_index(store)
    found, listed = Findings(), set()
    for key, text, _, _ in tqdm(store.rows(), desc="verify", unit="image", delay=2, leave=False):
        found.images += 1
        if not KEY.fullmatch(key) or hashlib.sha256(text.encode()).hexdigest() != key:
            found.changed.append(key)
            continue
        listed.add(key)
        if not store.image_path(key).is_file():
            if store.missing_images([key]) and not _gone(store, key):
                found.lost.append(key)
            continue
        try:
            store.get_image(key)
        except DamagedImage as error:
            found.damaged[key] = str(error)
    _look_at_files(store, listed, found)
    if repair:
        _repair(store, found)
    return found


def _gone(store: Store, key: str) -> bool:
    """Whether another process has pruned it meanwhile."""
    with store._telling("read"):
        return store._database().execute("SELECT 1 FROM images WHERE key = ?", (key,)).fetchone() is None


def _check_index(store: Store) -> None:
    with store._telling("read"):
        (said,) = store._database().execute("PRAGMA quick_check(1)").fetchone()
        if said != "ok":
            raise sqlite3.DatabaseError(f"database disk image is malformed ({said})")


def _look_at_files(store: Store, listed: set[str], found: Findings) -> None:
    with store._telling("read"):
        for path in sorted((store.folder / "images").glob("??/*")):
            name = str(path.relative_to(store.folder))
            if path.name.startswith("."):
                if time.time() - path.stat().st_mtime > ABANDONED:
                    found.unfinished.append(name)
            elif not KEY.fullmatch(path.stem) or path.parent.name != path.stem[:2] or path.suffix not in SUFFIXES:
                found.strange.append(name)
            elif path.stem not in listed:
                found.unlisted.append(name)
            elif path != store.image_path(path.stem):
                found.strange.append(name)  # a second file of one key


def _repair(store: Store, found: Findings) -> None:
    store.forget([*found.damaged, *found.lost])
    if found.changed:
        with store._telling("write to"):
            store._database().executemany("DELETE FROM images WHERE key = ?", [(key,) for key in found.changed])
    rows = []
    for name in found.unlisted:
        path: Path = store.folder / name
        if not path.exists():  # another process has pruned it meanwhile
            continue
        try:
            store.get_image(path.stem)
            rows.append(row_of(path))
        except (DamagedImage, ValueError):  # not one that cannot be read just now: that may pass
            path.unlink(missing_ok=True)
    for start in range(0, len(rows), BATCH):
        store.add_rows(rows[start : start + BATCH])
    with store._telling("write to"):
        for name in found.unfinished:
            (store.folder / name).unlink(missing_ok=True)
    found.repaired = True
