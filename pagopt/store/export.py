"""A store for other programs: a folder of images with readable names and a table, or a Parquet file."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from pagopt.errors import StoreError
from pagopt.files import write_bytes, write_text
from pagopt.store.store import CHUNK, Store

__all__ = ["export"]

FACTS = ("prompt", "seed", "model", "pipeline", "steps", "height", "width", "dtype", "precision")
SETTINGS = ("heads", "strength", "scale", "cfg", "target", "interval")


def export(store: Store, to: str | Path) -> int:
    """Write all images and their scores.

    Args:
        store: Of which.
        to: A new or empty folder, which gets the image files and ``table.csv``; or a file that ends in ``.parquet``,
            whose column ``image`` holds the files (``bytes``, ``path``), as the Hugging Face ``datasets`` have it.

    Returns:
        How many images.

    Raises:
        StoreError: If there is something in the way, an image is damaged, no space is left, or ``pyarrow`` is needed
            and not installed.
    """
    to = Path(to)
    if to.suffix == ".parquet":
        return _parquet(store, to)
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise StoreError(f"{to} is not empty; choose a new folder, or a file that ends in .parquet")
    rewards = sorted(store.rewards())
    table, count = io.StringIO(), 0
    lines = csv.writer(table, lineterminator="\n")
    lines.writerow(["file_name", "key", *FACTS, *SETTINGS, *rewards])
    try:
        for batch in _batches(store):
            for key, facts, scores in batch:
                path = store.image_path(key)
                store.get_image(key)  # a damaged one does not leave unnoticed
                name = readable_name(key, facts) + path.suffix
                write_bytes(to / name, path.read_bytes())
                cells = [_cell(value) for value in columns(facts).values()]
                lines.writerow([name, key, *cells, *(scores.get(reward, "") for reward in rewards)])
                count += 1
        write_text(to / "table.csv", table.getvalue())
    except OSError as error:
        raise StoreError(f"cannot write to {to}: {error.strerror}. Make room, or choose another folder.") from error
    return count


def readable_name(key: str, facts: Mapping[str, Any]) -> str:
    """What a person sees of an image, and the beginning of its key, which makes it the only one of this name."""
    words = re.sub(r"\W+", "-", str(facts.get("prompt", ""))).strip("-")[:50] or "image"
    recipe = facts.get("recipe") or {}
    heads = recipe.get("heads") or []
    how = [*heads[:3], *(["etc"] if len(heads) > 3 else [])] if recipe.get("scale") else []
    if (cfg := float(recipe.get("cfg") or 1.0)) > 1:
        how.append(f"cfg{cfg:g}")
    how = how or ["plain"]
    return "_".join([_cut(words, 110), f"seed{facts.get('seed', '')}", _cut("_".join(how), 100), key[:12]])


def columns(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Every row has the same columns; ``None`` where the description of an image says nothing."""
    recipe = facts.get("recipe") or {}
    return {**{name: facts.get(name) for name in FACTS}, **{name: recipe.get(name) for name in SETTINGS}}


def _cut(text: str, size: int) -> str:
    """At most so many bytes: a file's name has 255."""
    return text.encode()[:size].decode(errors="ignore")


def _cell(value: Any) -> Any:
    if isinstance(value, list):
        return " ".join(map(str, value))
    return "" if value is None else value


def _batches(store: Store) -> Iterator[list[tuple[str, dict[str, Any], dict[str, float]]]]:
    """Key, description and scores, some hundred at once."""
    batch: list[tuple[str, dict[str, Any]]] = []

    def scored() -> list[tuple[str, dict[str, Any], dict[str, float]]]:
        scores: dict[str, dict[str, float]] = {key: {} for key, _ in batch}
        query = "SELECT image_key, reward_key, score FROM scores WHERE image_key IN"
        for key, reward, score in store._select(query, scores):
            scores[key][reward] = score
        return [(key, facts, scores[key]) for key, facts in batch]

    for key, text, _, _ in tqdm(store.rows(), desc="export", unit="image", delay=2, leave=False):
        batch.append((key, json.loads(text)))
        if len(batch) == CHUNK:
            yield scored()
            batch = []
    yield scored()


def _parquet(store: Store, to: Path) -> int:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise StoreError(
            "a Parquet file needs the package pyarrow: pip install 'pagopt[parquet]'. "
            "A folder needs nothing: --to FOLDER"
        ) from error
    if to.exists():
        raise StoreError(f"{to} exists; choose another file")
    rewards = sorted(store.rewards())
    texts = {**dict.fromkeys((*FACTS, *SETTINGS), pyarrow.string())}
    texts |= {"seed": pyarrow.int64(), "steps": pyarrow.int64(), "height": pyarrow.int64(), "width": pyarrow.int64()}
    texts |= {"scale": pyarrow.float64(), "cfg": pyarrow.float64()}
    image = pyarrow.struct({"bytes": pyarrow.binary(), "path": pyarrow.string()})
    form = pyarrow.schema(
        {"image": image, "key": pyarrow.string(), **texts, **dict.fromkeys(rewards, pyarrow.float64())}
    )
    partial, count = to.with_name(f".{to.name}.part"), 0
    try:
        to.parent.mkdir(parents=True, exist_ok=True)
        with parquet.ParquetWriter(partial, form, compression="none") as writer:
            for batch in _batches(store):
                rows = []
                for key, facts, scores in batch:
                    path = store.image_path(key)
                    store.get_image(key)
                    file = {"bytes": path.read_bytes(), "path": readable_name(key, facts) + path.suffix}
                    values = {
                        name: str(_cell(value)) if texts[name] == pyarrow.string() and value is not None else value
                        for name, value in columns(facts).items()
                    }
                    rows.append({"image": file, "key": key, **values, **{r: scores.get(r) for r in rewards}})
                if rows:
                    writer.write_table(pyarrow.Table.from_pylist(rows, schema=form))
                    count += len(rows)
        partial.replace(to)
    except OSError as error:
        raise StoreError(f"cannot write {to}: {error}. Make room, or choose another place.") from error
    finally:
        partial.unlink(missing_ok=True)
    return count
