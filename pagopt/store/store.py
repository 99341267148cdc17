"""The store itself: images, scores and notes go in and come out by key.

Longer than other files, because one class keeps what ties files and index together: a file is there before its row.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import re
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from PIL import Image
from tqdm.auto import tqdm

from pagopt.disk import explain, transaction
from pagopt.errors import DamagedImage, StoreError
from pagopt.files import write_bytes
from pagopt.store import picture_file, schema
from pagopt.store.claims import Claims

__all__ = ["Store"]

KEY = re.compile(r"[0-9a-f]{64}")
PATIENCE = 60.0  # seconds to wait for another process's transaction
PAGE = 2000  # rows read at once
CHUNK = 900  # keys in one query; older SQLite takes 999 variables


class Store:
    """Images and scores in a folder. Several threads may use one, and several processes one folder.

    Args:
        folder: Where; made if it does not exist.
        read_only: Only look: nothing is made, upgraded or written.

    Raises:
        StoreError: If the folder cannot be used, its index is damaged or of a newer version, or there is no store to
            look at.
    """

    def __init__(self, folder: str | Path, read_only: bool = False) -> None:
        self.folder = Path(folder)
        self.index = self.folder / "index.sqlite"
        self.read_only = read_only
        self._schema = schema.SCHEMA
        self._connections: dict[threading.Thread, sqlite3.Connection] = {}
        self._process = 0
        self._claims = Claims(self.folder / "claims.lock")
        if read_only and not self.index.is_file():
            raise StoreError(self._absent())
        with self._telling("open"):
            if not read_only:
                (self.folder / "images").mkdir(parents=True, exist_ok=True)
            self._database()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[type[Store], tuple[Path, bool]]:
        return Store, (self.folder, self.read_only)

    @staticmethod
    def key(description: Mapping[str, Any]) -> str:
        """The key of what is made exactly like this: sha256, in hex, of the description's canonical JSON.

        Args:
            description: Everything that changes the image. ``1`` and ``1.0`` are different.

        Raises:
            TypeError, ValueError: If it is not JSON, or holds a number that is not finite.
        """
        return hashlib.sha256(_canonical(description).encode()).hexdigest()

    def image_path(self, key: str) -> Path:
        """Where the image with this key is, or would be.

        Raises:
            StoreError: If this is no key (64 hex digits), so that no path can lead out of the folder.
        """
        _check_key(key)
        paths = [self.folder / "images" / key[:2] / f"{key}{suffix}" for suffix in picture_file.SUFFIXES]
        return next((path for path in paths if path.is_file()), paths[0])

    def put_images(self, entries: Iterable[tuple[str, Image.Image, Mapping[str, Any]]]) -> None:
        """Keep images, in one transaction; those before a failure are kept.

        Args:
            entries: Key, RGB image of 8 bits a channel, and the description that the key was made of.

        Raises:
            StoreError: If they cannot be written: no space, no permission, a disk or index that fails.
            ValueError: For an image that is not RGB.
        """
        rows: list[schema.Row] = []
        self._check_writable()
        described = ((key, image, _canonical(description)) for key, image, description in entries)
        try:
            for key, text, data, suffix in picture_file.encode_all(described):
                before = self.image_path(key)
                path = before.with_suffix(suffix)
                with self._telling("write to"):
                    write_bytes(path, data)
                    if before != path:  # one that was damaged, of another format
                        before.unlink(missing_ok=True)
                rows.append((key, text, len(data), time.time()))
        finally:
            if rows:
                self._insert("INSERT OR REPLACE INTO images VALUES (?, ?, ?, ?)", rows)

    def claim(self, keys: Iterable[str]) -> contextlib.AbstractContextManager[set[str]]:
        """``with store.claim(keys) as mine``: those that no other process is drawing; ask again for the others.

        Of several processes on one store only one draws an image, the others find it. See
        :class:`pagopt.store.claims.Claims`.
        """
        return self._claims.take(keys)

    def has_image(self, key: str) -> bool:
        """Whether the image is there, its file too."""
        return not self.missing_images([key])

    def missing_images(self, keys: Iterable[str]) -> set[str]:
        """Those of the keys whose image is not there."""
        wanted = set(keys)
        for key in wanted:
            _check_key(key)
        there = {row[0] for row in self._select("SELECT key FROM images WHERE key IN", wanted)}
        with self._telling("read"):
            return {key for key in wanted if key not in there or not self._has_file(key)}

    def get_image(self, key: str) -> Image.Image:
        """The image as it was put in, RGB.

        Raises:
            StoreError: If it is not there, or cannot be read.
            DamagedImage: If its file is damaged.
        """
        path = self.image_path(key)
        try:
            data = path.read_bytes()
        except FileNotFoundError as error:
            raise StoreError(f"{path} is gone. Run again: it will be made anew.") from error
        except OSError as error:
            raise self._problem("read", error) from error
        try:
            image, description = picture_file.decode(data)
        except Exception as error:  # Pillow's own differ from format to format
            raise DamagedImage(
                f"the image file {path} is damaged ({error}). Delete it and run again: only it is made anew."
            ) from error
        # Read as PNG of other programs may be, which hold none; those of the store do.
        if description and hashlib.sha256(description.encode()).hexdigest() != key:
            raise DamagedImage(f"the image file {path} is damaged (it is another image). Delete it and run again.")
        return image

    def put_scores(self, reward_key: str, scores: Mapping[str, float]) -> None:
        """Keep scores of one reward, by the key of the image; a score that is there already is replaced.

        Raises:
            StoreError: If they cannot be written, a score is not finite, or a key is none.
        """
        rows = []
        for key, score in scores.items():
            self.image_path(key)
            if not math.isfinite(score):
                raise StoreError(f"the score {score} of image {key} by {reward_key} is not finite")
            rows.append((key, reward_key, float(score)))
        self._insert("INSERT OR REPLACE INTO scores VALUES (?, ?, ?)", rows)

    def get_scores(self, reward_key: str, keys: Iterable[str]) -> dict[str, float]:
        """The known scores of one reward among these images, by their key."""
        query = "SELECT image_key, score FROM scores WHERE reward_key = ? AND image_key IN"
        return dict(self._select(query, keys, reward_key))

    def put_notes(self, kind: str, notes: Mapping[str, Mapping[str, Any]]) -> None:
        """Keep what was measured on images, by the key of the image; what is there already is replaced.

        Args:
            kind: What it is, with a version: "looks@1".
            notes: JSON data for every image.

        Raises:
            StoreError: If they cannot be written, or a key is none.
        """
        rows = [(key, kind, _canonical(content)) for key, content in notes.items() if self.image_path(key)]
        if rows:
            self._insert("INSERT OR REPLACE INTO notes VALUES (?, ?, ?)", rows)

    def get_notes(self, kind: str, keys: Iterable[str]) -> dict[str, dict[str, Any]]:
        """The known notes of one kind about these images, by their key."""
        with self._telling("read"):
            if self._database().execute("SELECT 1 FROM sqlite_master WHERE name = 'notes'").fetchone() is None:
                return {}
        query = "SELECT image_key, content FROM notes WHERE kind = ? AND image_key IN"
        return {key: json.loads(content) for key, content in self._select(query, keys, kind)}

    def rows(self) -> Iterator[schema.Row]:
        """Key, description, bytes and time of every image, in the order of their keys.

        Read in pages, so that nobody waits for the end of it. Bytes and time that are not in the index are the file's;
        ``None`` where there is no file.
        """
        more = "bytes, made" if self._schema > 1 else "NULL, NULL"
        query, last = f"SELECT key, description, {more} FROM images WHERE key > ? ORDER BY key LIMIT {PAGE}", ""
        while True:
            with self._telling("read"):
                page = self._database().execute(query, (last,)).fetchall()
            for key, text, size, made in page:
                if size is None:
                    with contextlib.suppress(OSError):
                        found = self.image_path(key).stat()
                        size, made = found.st_size, found.st_mtime
                yield key, text, size, made
            if len(page) < PAGE:
                return
            last = page[-1][0]

    def rewards(self) -> dict[str, int]:
        """How many scores there are of each reward, by its key."""
        with self._telling("read"):
            return dict(self._database().execute("SELECT reward_key, COUNT(*) FROM scores GROUP BY reward_key"))

    def add_rows(self, rows: Iterable[schema.Row]) -> None:
        """Take rows of images into the index whose files are there; one that is known stays."""
        self._insert("INSERT OR IGNORE INTO images VALUES (?, ?, ?, ?)", list(rows))

    def forget(self, keys: Iterable[str]) -> None:
        """Remove images with their scores and notes: first the rows, in one transaction, then the files.

        A process that is killed between them leaves files that nobody asks for, never rows without files.
        """
        wanted = [(key,) for key in keys if self.image_path(key)]
        self._check_writable()
        with self._telling("write to"):
            database = self._database()
            with transaction(database):
                for table, column in (("images", "key"), ("scores", "image_key"), ("notes", "image_key")):
                    database.executemany(f"DELETE FROM {table} WHERE {column} = ?", wanted)
            for (key,) in wanted:
                self.image_path(key).unlink(missing_ok=True)

    def counts(self) -> dict[str, int]:
        """How many there are: ``{"images": ..., "scores": ...}``."""
        with self._telling("read"):
            query = "SELECT (SELECT COUNT(*) FROM images), (SELECT COUNT(*) FROM scores)"
            return dict(zip(("images", "scores"), self._database().execute(query).fetchone(), strict=True))

    def close(self) -> None:
        """Let go of the index, in all threads; the next use opens it again."""
        connections, self._connections = self._connections, {}
        if self._process == os.getpid():
            for connection in connections.values():
                connection.close()
        self._claims.close()

    def _database(self) -> sqlite3.Connection:
        """The connection of this thread; SQLite's are not for several at once, nor for the other side of a fork."""
        if self._process != os.getpid():
            self._connections, self._process = {}, os.getpid()
        thread = threading.current_thread()
        if thread not in self._connections:
            for other in list(self._connections):
                if not other.is_alive() and (left := self._connections.pop(other, None)) is not None:
                    left.close()
            new = not self.index.exists() or self.index.stat().st_size == 0
            # Checked by the line above; any thread may close them.
            connection = sqlite3.connect(self.index, timeout=PATIENCE, isolation_level=None, check_same_thread=False)
            try:
                self._prepare(connection, new)
            except BaseException:
                connection.close()
                raise
            self._connections[thread] = connection
        return self._connections[thread]

    def _prepare(self, database: sqlite3.Connection, new: bool) -> None:
        """Check the version, bring it up to date, or make the tables and take in the images that are there."""
        # The rollback journal, unlike the write-ahead log, also works on network and read-only file systems.
        database.execute("PRAGMA synchronous = NORMAL")
        self._schema = schema.schema_of(database, self.index)
        if self.read_only:
            if not self._schema:
                raise StoreError(self._absent())
            database.execute("PRAGMA query_only = ON")
        elif not self._schema:
            schema.make(database, list(self._found()) if new else [])
            self._schema = schema.SCHEMA
        elif self._schema < schema.SCHEMA:
            try:
                schema.upgrade(database, lambda: schema.schema_of(database, self.index))
                self._schema = schema.SCHEMA
            except sqlite3.OperationalError as error:
                if "readonly" not in str(error):  # on a read-only disk it is read as it is
                    raise

    def _absent(self) -> str:
        if (self.folder / "images").is_dir():
            return f"{self.folder} has lost its index: `pagopt store verify {self.folder} --repair` makes it anew"
        return f"{self.folder} is no store: it has no index.sqlite. A run's store is runs/NAME/store."

    def files(self) -> Iterator[Path]:
        """Image files of the folder, in order; not those that are being written."""
        for folder in sorted((self.folder / "images").glob("??")):
            yield from sorted(p for p in folder.iterdir() if p.suffix in picture_file.SUFFIXES and p.name[0] != ".")

    def _found(self) -> Iterator[schema.Row]:
        """Rows of the image files whose description gives their key."""
        for path in tqdm(self.files(), desc="index", unit="image", delay=2, leave=False):
            if KEY.fullmatch(path.stem):
                with contextlib.suppress(Exception):
                    yield row_of(path)

    def _has_file(self, key: str) -> bool:
        # Path objects would take most of the time of a large look-up.
        beginning = os.path.join(self.folder, "images", key[:2], key)
        return any(os.path.isfile(beginning + suffix) for suffix in picture_file.SUFFIXES)

    def _check_writable(self) -> None:
        if self.read_only:
            raise StoreError(f"the store {self.folder} was opened to look at it only")

    def _insert(self, statement: str, rows: Sequence[tuple[Any, ...]]) -> None:
        self._check_writable()
        with self._telling("write to"):
            database = self._database()
            with transaction(database):
                database.executemany(statement, rows)

    def _select(self, query: str, keys: Iterable[str], *first: str) -> Iterator[tuple[Any, ...]]:
        wanted = list(keys)
        with self._telling("read"):
            for start in range(0, len(wanted), CHUNK):
                some = wanted[start : start + CHUNK]
                marks = ",".join("?" * len(some))
                yield from self._database().execute(f"{query} ({marks})", (*first, *some)).fetchall()

    @contextlib.contextmanager
    def _telling(self, what: str) -> Iterator[None]:
        try:
            yield
        except (OSError, sqlite3.Error) as error:
            raise self._problem(what, error) from error

    def _problem(self, what: str, error: OSError | sqlite3.Error) -> StoreError:
        return explain(what, self.folder, self.index, error, PATIENCE)


def _check_key(key: str) -> None:
    if not isinstance(key, str) or not KEY.fullmatch(key):
        raise StoreError(f"{key!r} is no key of an image: 64 hexadecimal digits, as Store.key() gives")


def _canonical(description: Mapping[str, Any]) -> str:
    return json.dumps(description, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def row_of(path: Path) -> schema.Row:
    """The row of an image file.

    Raises:
        Exception: If it cannot be read, or is not what its name says.
    """
    text = picture_file.read_description(path.read_bytes())
    if hashlib.sha256(text.encode()).hexdigest() != path.stem:
        raise ValueError("its description does not give its name")
    return path.stem, text, path.stat().st_size, path.stat().st_mtime
