"""Finished images and scores on disk, found again by what they are made of: nothing is drawn or scored twice.

A folder holds ``images/ab/<key>.png``, lossless, with its description inside, and ``index.sqlite``::

    meta   (name TEXT PRIMARY KEY, value TEXT)                  schema = 1
    images (key TEXT PRIMARY KEY, description TEXT)             the JSON whose sha256 is the key
    scores (image_key TEXT, reward_key TEXT, score REAL, PRIMARY KEY (image_key, reward_key))
    notes  (image_key TEXT, kind TEXT, content TEXT, PRIMARY KEY (image_key, kind))   JSON, such as an image's looks

Several processes may write at once. A file appears whole or not at all, and its row is written after it, so a
process that is killed loses at most what it had in hand. A lost index is built again from the images.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import math
import os
import re
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image, PngImagePlugin

from pagopt.disk import explain, transaction
from pagopt.errors import StoreError
from pagopt.files import write_bytes

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Store"]

SCHEMA = 1
TABLES = (
    "CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS images (key TEXT PRIMARY KEY, description TEXT NOT NULL) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS scores (image_key TEXT NOT NULL, reward_key TEXT NOT NULL, "
    "score REAL NOT NULL, PRIMARY KEY (image_key, reward_key)) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS notes (image_key TEXT NOT NULL, kind TEXT NOT NULL, content TEXT NOT NULL, "
    "PRIMARY KEY (image_key, kind)) WITHOUT ROWID",
)
KEY = re.compile(r"[0-9a-f]{64}")
PATIENCE = 60.0  # seconds to wait for another process's transaction
CHUNK = 900  # keys in one query; older SQLite takes 999 variables


class Store:
    """Images and scores in a folder.

    Args:
        folder: Where; made if it does not exist.

    Raises:
        StoreError: If the folder cannot be used, its index is damaged or of another version.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.index = self.folder / "index.sqlite"
        self._connection: sqlite3.Connection | None = None
        self._process = 0
        with self._telling("open"):
            (self.folder / "images").mkdir(parents=True, exist_ok=True)
            self._database()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[type[Store], tuple[Path]]:
        return Store, (self.folder,)

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
        if not isinstance(key, str) or not KEY.fullmatch(key):
            raise StoreError(f"{key!r} is no key of an image: 64 hexadecimal digits, as Store.key() gives")
        return self.folder / "images" / key[:2] / f"{key}.png"

    def put_image(self, key: str, image: Image.Image, description: Mapping[str, Any]) -> None:
        """Keep one image; see :meth:`put_images`."""
        self.put_images([(key, image, description)])

    def put_images(self, entries: Iterable[tuple[str, Image.Image, Mapping[str, Any]]]) -> None:
        """Keep images, in one transaction; those before a failure are kept.

        Args:
            entries: Key, RGB image of 8 bits a channel, and the description that the key was made of.

        Raises:
            StoreError: If they cannot be written: no space, no permission, a disk or index that fails.
            ValueError: For an image that is not RGB.
        """
        rows = []
        try:
            for key, image, description in entries:
                path, text = self.image_path(key), _canonical(description)
                data = _png(image, text)
                with self._telling("write to"):
                    write_bytes(path, data)
                rows.append((key, text))
        finally:
            if rows:
                self._insert("INSERT OR REPLACE INTO images VALUES (?, ?)", rows)

    def has_image(self, key: str) -> bool:
        """Whether the image is there, its file too."""
        return not self.missing_images([key])

    def missing_images(self, keys: Iterable[str]) -> set[str]:
        """Those of the keys whose image is not there."""
        wanted = set(keys)
        paths = {key: self.image_path(key) for key in wanted}
        there = {row[0] for row in self._select("SELECT key FROM images WHERE key IN", wanted)}
        with self._telling("read"):
            return {key for key in wanted if key not in there or not paths[key].is_file()}

    def get_image(self, key: str) -> Image.Image:
        """The image as it was put in, RGB.

        Raises:
            StoreError: If it is not there, or its file is damaged.
        """
        path = self.image_path(key)
        try:
            data = path.read_bytes()
        except FileNotFoundError as error:
            raise StoreError(f"{path} is gone. Run again: it will be made anew.") from error
        except OSError as error:
            raise self._problem("read", error) from error
        try:
            with Image.open(io.BytesIO(data), formats=["PNG"]) as file:
                file.verify()  # the checksums, which load() passes over
            with Image.open(io.BytesIO(data), formats=["PNG"]) as file:
                file.load()
                if file.mode != "RGB":
                    raise ValueError(f"mode {file.mode}")
                return Image.frombytes("RGB", file.size, file.tobytes())
        except Exception as error:
            raise StoreError(
                f"the image file {path} is damaged ({error}). Delete it and run again: only it is made anew."
            ) from error

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
            with self._telling("write to"):
                self._database().execute(TABLES[-1])  # stores of the first versions have no such table
            self._insert("INSERT OR REPLACE INTO notes VALUES (?, ?, ?)", rows)

    def get_notes(self, kind: str, keys: Iterable[str]) -> dict[str, dict[str, Any]]:
        """The known notes of one kind about these images, by their key."""
        with self._telling("read"):
            if self._database().execute("SELECT 1 FROM sqlite_master WHERE name = 'notes'").fetchone() is None:
                return {}
        query = "SELECT image_key, content FROM notes WHERE kind = ? AND image_key IN"
        return {key: json.loads(content) for key, content in self._select(query, keys, kind)}

    def counts(self) -> dict[str, int]:
        """How many there are: ``{"images": ..., "scores": ...}``."""
        with self._telling("read"):
            query = "SELECT (SELECT COUNT(*) FROM images), (SELECT COUNT(*) FROM scores)"
            return dict(zip(("images", "scores"), self._database().execute(query).fetchone(), strict=True))

    def close(self) -> None:
        """Let go of the index; the next use opens it again."""
        if self._connection is not None and self._process == os.getpid():
            self._connection.close()
        self._connection = None

    def _database(self) -> sqlite3.Connection:
        # A connection must not be used on the other side of a fork.
        if self._connection is None or self._process != os.getpid():
            new = not self.index.exists() or self.index.stat().st_size == 0
            self._connection = sqlite3.connect(self.index, timeout=PATIENCE, isolation_level=None)
            self._process = os.getpid()
            try:
                self._prepare(self._connection, new)
            except BaseException:
                self.close()
                raise
        return self._connection

    def _prepare(self, database: sqlite3.Connection, new: bool) -> None:
        """Check the version, or make the tables and take in the images that are there."""
        # The rollback journal, unlike the write-ahead log, also works on network and read-only file systems.
        database.execute("PRAGMA synchronous = NORMAL")
        tables = {row[0] for row in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if "meta" not in tables:
            if tables:
                raise StoreError(f"{self.index} is the database of something else; choose another folder")
            with transaction(database):
                for statement in TABLES:
                    database.execute(statement)
                database.execute("INSERT OR IGNORE INTO meta VALUES ('schema', ?)", (str(SCHEMA),))
                if new:
                    database.executemany("INSERT OR IGNORE INTO images VALUES (?, ?)", self._found())
        schema = database.execute("SELECT value FROM meta WHERE name = 'schema'").fetchone()
        if schema is None or schema[0] != str(SCHEMA):
            raise StoreError(
                f"{self.index} has schema {schema and schema[0]}, and this version of pagopt writes {SCHEMA}. "
                "Use the version that made it, or choose another folder."
            )

    def _found(self) -> Iterator[tuple[str, str]]:
        """Key and description of the image files whose description gives their key."""
        for path in sorted((self.folder / "images").glob("??/*.png")):
            with contextlib.suppress(Exception), Image.open(path, formats=["PNG"]) as file:
                text = getattr(file, "text", {}).get("description", "")
                if KEY.fullmatch(path.stem) and hashlib.sha256(text.encode()).hexdigest() == path.stem:
                    yield path.stem, text

    def _insert(self, statement: str, rows: list[tuple[Any, ...]]) -> None:
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


def _canonical(description: Mapping[str, Any]) -> str:
    return json.dumps(description, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _png(image: Image.Image, description: str) -> bytes:
    if image.mode != "RGB":
        raise ValueError(f"the store keeps RGB images of 8 bits a channel, not mode {image.mode!r}")
    notes = PngImagePlugin.PngInfo()
    notes.add_itxt("description", description)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1, pnginfo=notes)
    return buffer.getvalue()
