"""Several stores become one, as after searches on several machines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from tqdm.auto import tqdm

from pagopt.errors import StoreError
from pagopt.files import write_bytes
from pagopt.store import schema
from pagopt.store.store import CHUNK, Store

__all__ = ["Merged", "merge"]


@dataclass
class Merged:
    """What came over.

    Attributes:
        images: New images.
        known: Images that were there already.
        scores: New scores.
        different: Scores that both have and that differ by more than 1e-4 of their size; those of the target stay.
        notes: New notes.
        damaged: Images of a source that were left there, with what is wrong with them, by key.
    """

    images: int = 0
    known: int = 0
    scores: int = 0
    different: int = 0
    notes: int = 0
    damaged: dict[str, str] = field(default_factory=dict)


def merge(target: Store, sources: Sequence[Store]) -> Merged:
    """Copy what the target does not have. Doing it again, or going on after a stop, copies the rest.

    Args:
        target: Where to.
        sources: Where from; they are only read, and may be of an older schema.

    Raises:
        StoreError: If the target is a source too, or one cannot be read or written.
    """
    for source in sources:
        if source.folder.resolve() == target.folder.resolve():
            raise StoreError(f"{source.folder} is to be merged into itself; name the target first, then other stores")
    done = Merged()
    for source in sources:
        _images(target, source, done)
        _values(target, source, done)
    return done


def _images(target: Store, source: Store, done: Merged) -> None:
    batch: list[schema.Row] = []
    for row in tqdm(source.rows(), desc=f"merge {source.folder}", unit="image", delay=2, leave=False):
        batch.append(row)
        if len(batch) == CHUNK:
            _copy(target, source, batch, done)
            batch = []
    _copy(target, source, batch, done)


def _copy(target: Store, source: Store, rows: Sequence[schema.Row], done: Merged) -> None:
    missing = target.missing_images(row[0] for row in rows)
    done.known += len(rows) - len(missing)
    copied: list[schema.Row] = []
    try:
        for key, text, _, made in rows:
            if key not in missing:
                continue
            path = source.image_path(key)
            try:
                source.get_image(key)
                data = path.read_bytes()
            except (OSError, StoreError) as error:
                done.damaged[key] = str(error)
                continue
            with target._telling("write to"):
                write_bytes(target.folder / "images" / key[:2] / f"{key}{path.suffix}", data)
            copied.append((key, text, len(data), made))
    finally:
        if copied:
            target.add_rows(copied)
            done.images += len(copied)


def _values(target: Store, source: Store, done: Merged) -> None:
    """Scores and notes of the images that both have now."""
    kinds = {"scores": ("reward_key", "score"), "notes": ("kind", "content")}
    for table, (kind, value) in kinds.items():
        with source._telling("read"):
            names = {r[0] for r in source._database().execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if table not in names:
            continue
        last = ("", "")
        while True:
            query = (
                f"SELECT image_key, {kind}, {value} FROM {table} WHERE (image_key, {kind}) > (?, ?) "
                f"ORDER BY image_key, {kind} LIMIT {CHUNK}"
            )
            with source._telling("read"):
                page = source._database().execute(query, last).fetchall()
            if not page:
                break
            last = page[-1][:2]
            missing = target.missing_images({row[0] for row in page})
            page = [row for row in page if row[0] not in missing]
            there = {row[:2]: row[2] for row in target._select(
                f"SELECT image_key, {kind}, {value} FROM {table} WHERE image_key IN", {row[0] for row in page}
            )}  # fmt: skip
            new = [row for row in page if row[:2] not in there]
            target._insert(f"INSERT OR IGNORE INTO {table} VALUES (?, ?, ?)", new)
            if table == "scores":
                done.scores += len(new)
                both = [(row[2], there[row[:2]]) for row in page if row[:2] in there]
                done.different += sum(abs(a - b) > 1e-4 * max(1.0, abs(a), abs(b)) for a, b in both)
            else:
                done.notes += len(new)
