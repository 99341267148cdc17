"""The tables of the index: made, checked, and brought up to date."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable
from pathlib import Path

from pagopt.disk import transaction
from pagopt.errors import StoreError

__all__ = ["SCHEMA", "make", "schema_of", "upgrade"]

SCHEMA = 2
TABLES = (
    "CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS images (key TEXT PRIMARY KEY, description TEXT NOT NULL, bytes INTEGER, made REAL) "
    "WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS scores (image_key TEXT NOT NULL, reward_key TEXT NOT NULL, "
    "score REAL NOT NULL, PRIMARY KEY (image_key, reward_key)) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS notes (image_key TEXT NOT NULL, kind TEXT NOT NULL, content TEXT NOT NULL, "
    "PRIMARY KEY (image_key, kind)) WITHOUT ROWID",
)

Row = tuple[str, str, int | None, float | None]


def schema_of(database: sqlite3.Connection, index: Path) -> int:
    """The schema of an index; 0 for an empty file.

    Raises:
        StoreError: If it belongs to something else, or to a newer pagopt.
    """
    tables = {row[0] for row in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if not tables:
        return 0
    if "meta" not in tables:
        raise StoreError(f"{index} is the database of something else; choose another folder")
    row = database.execute("SELECT value FROM meta WHERE name = 'schema'").fetchone()
    text = str(row[0]) if row else "none"
    if not text.isdecimal() or not 1 <= int(text) <= SCHEMA:
        raise StoreError(
            f"{index} has schema {text}, and this version of pagopt knows 1 to {SCHEMA}. "
            "Use the version that made it, or a newer one, or choose another folder."
        )
    return int(text)


def make(database: sqlite3.Connection, rows: Iterable[Row]) -> None:
    """Make the tables, with these rows of images; another process may be doing the same."""
    with transaction(database):
        for statement in TABLES:
            database.execute(statement)
        database.execute("INSERT OR IGNORE INTO meta VALUES ('schema', ?)", (str(SCHEMA),))
        database.executemany("INSERT OR IGNORE INTO images VALUES (?, ?, ?, ?)", rows)


def upgrade(database: sqlite3.Connection, current: Callable[[], int]) -> None:
    """Schema 1 to 2, in one transaction: two more columns, and the table of notes that the first versions lacked.

    Args:
        database: The index, writable.
        current: Reads its schema again: another process may have been faster.
    """
    with transaction(database):
        if current() == 1:
            database.execute("ALTER TABLE images ADD COLUMN bytes INTEGER")
            database.execute("ALTER TABLE images ADD COLUMN made REAL")
            database.execute(TABLES[-1])
            database.execute("UPDATE meta SET value = ? WHERE name = 'schema'", (str(SCHEMA),))
