"""Making room: images go by age, by what nothing needs any more, or until the rest fits."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from pagopt.errors import PagoptError, StoreError
from pagopt.recipe import Recipe, load_recipe
from pagopt.store.store import KEY, Store

__all__ = ["Needed", "Pruned", "needed_by", "prune"]

BATCH = 500
FILES = ("results.json", "comparison.json", "atlas.json", "recipe.json")
"""What runs leave that needs images."""


@dataclass(frozen=True)
class Needed:
    """What has to stay.

    Attributes:
        keys: Images that some results name.
        recipes: Recipes, as the descriptions of images hold them; all their images stay.
    """

    keys: frozenset[str] = frozenset()
    recipes: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True)
class Pruned:
    """What goes, or went.

    Attributes:
        images: How many.
        bytes: Size of their files.
        kept: How many images stay.
        kept_bytes: Size of their files.
        keys: The images that go, oldest first.
    """

    images: int
    bytes: int
    kept: int
    kept_bytes: int
    keys: tuple[str, ...] = ()


def needed_by(paths: Iterable[str | Path]) -> Needed:
    """What results and recipes need.

    Args:
        paths: Files, or folders in which :data:`FILES` count, at any depth.

    Raises:
        StoreError: If one is neither, or cannot be read: nothing is removed on a misunderstanding.
    """
    keys: set[str] = set()
    recipes: list[dict[str, Any]] = []
    for path in map(Path, paths):
        files = sorted(_files(path)) if path.is_dir() else [path]
        if not files:
            raise StoreError(f"the folder {path} holds no {', '.join(FILES[:-1])} or {FILES[-1]} to keep")
        for file in files:
            try:
                data = json.loads(file.read_text(encoding="utf-8"))
                # An atlas has a recipe, too, but needs the images that it names.
                if isinstance(data, dict) and isinstance(data.get("recipe"), dict) and "images" not in data:
                    recipes.append(as_described(load_recipe(file)[0]))
                    continue
            except (OSError, ValueError, PagoptError) as error:
                raise StoreError(f"cannot read what {file} needs: {error}. Nothing was removed.") from error
            named = set(_keys(data))
            if not named and not path.is_dir():
                raise StoreError(f"{file} names no images and is no recipe. Nothing was removed.")
            keys |= named
    return Needed(frozenset(keys), tuple(recipes))


def as_described(recipe: Recipe) -> dict[str, Any]:
    """A recipe as the description of its images holds it; see :meth:`pagopt.evaluate.Generation.describe`."""
    drawn = Recipe(scale=0.0, cfg=recipe.cfg) if recipe.is_plain else recipe
    return drawn.replace(cfg=drawn.cfg or 1.0).to_dict()


def prune(
    store: Store,
    older_than: float | None = None,
    needed: Needed | None = None,
    max_bytes: int | None = None,
    dry_run: bool = False,
    keys: Iterable[str] | None = None,
) -> Pruned:
    """Remove images with their scores. What several rules are given for goes only if all of them let it.

    Args:
        store: From where.
        older_than: Only what was made more than so many seconds ago.
        needed: What stays in any case. Alone, everything else goes.
        max_bytes: Oldest first, and no more than until the files of the rest take so much.
        dry_run: Only say what would go.
        keys: Remove these, chosen by an earlier ``dry_run``, instead of choosing again.

    Raises:
        StoreError: Without any rule, or if the store cannot be read or written.
    """
    if keys is None and older_than is None and needed is None and max_bytes is None:
        raise StoreError("say what may go: what is older, what nothing needs, or until the rest fits")
    chosen = _choose(store, older_than, needed or Needed(), max_bytes, None if keys is None else set(keys))
    if not dry_run:
        with tqdm(total=chosen.images, desc="prune", unit="image", delay=2, leave=False) as bar:
            for start in range(0, chosen.images, BATCH):
                store.forget(chosen.keys[start : start + BATCH])
                bar.update(min(BATCH, chosen.images - start))
    return chosen


def _choose(
    store: Store, older_than: float | None, needed: Needed, max_bytes: int | None, only: set[str] | None
) -> Pruned:
    before = math.inf if older_than is None else time.time() - older_than
    recipes = {json.dumps(recipe, sort_keys=True) for recipe in needed.recipes}
    candidates: list[tuple[float, str, int]] = []
    images = total = 0
    for key, text, size, made in tqdm(store.rows(), desc="look", unit="image", delay=2, leave=False):
        images, total = images + 1, total + (size or 0)
        if only is not None:
            may = key in only
        else:
            may = key not in needed.keys and (made or 0.0) < before
            if may and recipes:
                may = json.dumps(json.loads(text).get("recipe"), sort_keys=True) not in recipes
        if may:
            candidates.append((made or 0.0, key, size or 0))
    candidates.sort()
    going: list[tuple[float, str, int]] = []
    freed = 0
    for candidate in candidates:
        if only is None and max_bytes is not None and total - freed <= max_bytes:
            break
        going.append(candidate)
        freed += candidate[2]
    return Pruned(len(going), freed, images - len(going), total - freed, tuple(key for _, key, _ in going))


def _files(folder: Path) -> Iterator[Path]:
    for name in FILES:
        yield from folder.rglob(name)


def _keys(data: Any) -> Iterator[str]:
    """Every text in JSON data that can be a key; a few too many do no harm."""
    if isinstance(data, str):
        if KEY.fullmatch(data):
            yield data
    elif isinstance(data, dict):
        for item in data.values():
            yield from _keys(item)
    elif isinstance(data, list):
        for item in data:
            yield from _keys(item)
