"""Contents, verify, prune, export, merge."""

from __future__ import annotations

import csv
import errno
import io
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pagopt.errors import StoreError
from pagopt.recipe import Recipe
from pagopt.store import Store, contents, export, merge, needed_by, prune, verify
from pagopt.store.export import readable_name
from pagopt.store.prune import as_described

RECIPES = [Recipe(scale=0.0), Recipe("L1.H0 L1.H1 L2.H0 L2.H1", scale=2.0)]
DAY = 86400.0


def picture(number: int, prompt: str = "a red/apple, flat") -> tuple[str, Image.Image, dict[str, Any]]:
    """As a run makes them: even numbers without guidance."""
    facts = {"model": "ab12", "pipeline": "StableDiffusion3Pipeline", "steps": 4, "height": 8, "width": 8}
    description = {**facts, "prompt": prompt, "seed": number, "recipe": as_described(RECIPES[number % 2])}
    pixels = np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return Store.key(description), Image.fromarray(pixels), description


KEYS = [picture(number)[0] for number in range(6)]


@pytest.fixture
def full(store: Store) -> Iterator[Store]:
    """Six images, made on six days, with scores."""
    store.put_images(picture(number) for number in range(6))
    store.put_scores("clip@1", {key: float(number) for number, key in enumerate(KEYS)})
    store.put_scores("style@2", {KEYS[0]: 0.5})
    store.put_notes("looks@1", {key: {"brightness": 0.5} for key in KEYS})
    for number, key in enumerate(KEYS):
        made = time.time() - (6 - number) * DAY
        store._database().execute("UPDATE images SET made = ? WHERE key = ?", (made, key))
    return store


def test_contents(full: Store) -> None:
    found = contents(full)
    assert (found.images, found.prompts, found.recipes) == (6, 1, 2)
    assert found.models == {"StableDiffusion3Pipeline ab12": 6}
    assert found.rewards == full.rewards() == {"clip@1": 6, "style@2": 1}
    assert found.image_bytes == sum(path.stat().st_size for path in full.files())
    assert found.index_bytes == full.index.stat().st_size
    assert found.oldest is not None
    assert found.newest is not None
    assert found.newest - found.oldest == pytest.approx(5 * DAY, abs=5)


def test_contents_of_nothing(store: Store) -> None:
    found = contents(store)
    assert (found.images, found.oldest, found.rewards, found.models) == (0, None, {}, {})
    assert verify(store).clean


def test_rows_come_page_by_page(full: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = list(full.rows())
    assert [row[0] for row in whole] == sorted(KEYS)
    for page in (1, 2, 3, 6):
        monkeypatch.setattr("pagopt.store.store.PAGE", page)
        assert list(full.rows()) == whole


def test_verify_names_everything_and_repair_puts_it_right(full: Store) -> None:
    assert verify(full).clean
    paths = [full.image_path(key) for key in KEYS]
    paths[0].unlink()
    data = paths[1].read_bytes()
    paths[1].write_bytes(data[:60] + bytes([data[60] ^ 8]) + data[61:])
    paths[2].write_bytes(paths[5].read_bytes())  # whole, and another image
    full._database().execute("UPDATE images SET description = '{}' WHERE key = ?", (KEYS[3],))
    full._database().execute("DELETE FROM images WHERE key = ?", (KEYS[4],))
    strange = full.folder / "images" / "ab" / "cat.gif"
    strange.parent.mkdir(exist_ok=True)
    strange.write_bytes(b"meow")
    old, new = (paths[5].with_name(f".{paths[5].name}.{word}") for word in ("old", "new"))
    for half in (old, new):
        half.write_bytes(b"RIFF")
    os.utime(old, (0, 0))

    found = verify(full)
    assert not found.clean
    assert found.images == 5
    assert found.lost == [KEYS[0]]
    assert sorted(found.damaged) == sorted([KEYS[1], KEYS[2]])
    assert "is another image" in found.damaged[KEYS[2]]
    assert str(paths[1]) in found.damaged[KEYS[1]]
    assert found.changed == [KEYS[3]]
    # The changed row does not count for its file.
    assert sorted(found.unlisted) == sorted(str(paths[i].relative_to(full.folder)) for i in (3, 4))
    assert found.strange == ["images/ab/cat.gif"]
    assert found.unfinished == [str(old.relative_to(full.folder))]

    assert verify(full, repair=True).repaired
    after = verify(full)
    assert after.clean
    assert after.unlisted == after.unfinished == []
    assert strange.exists()
    assert new.exists()
    assert {row[0] for row in full.rows()} == {KEYS[3], KEYS[4], KEYS[5]}
    assert full.missing_images(KEYS) == set(KEYS[:3])
    assert set(full.get_scores("clip@1", KEYS)) == set(KEYS[3:])
    full.put_images(picture(number) for number in range(6))
    assert verify(full).clean


def test_verify_makes_a_lost_index_anew(full: Store) -> None:
    full.close()
    full.index.unlink()
    with Store(full.folder) as again:
        found = verify(again, repair=True)
        assert found.clean
        assert found.images == 6
        assert sorted(row[0] for row in again.rows()) == sorted(KEYS)


def test_a_damaged_index_is_no_clean_store(full: Store) -> None:
    full.put_images(picture(number) for number in range(6, 60))
    full.close()
    data = full.index.read_bytes()
    full.index.write_bytes(data[:8192] + b"\xff" * 4096 + data[12288:])
    with Store(full.folder, read_only=True) as store, pytest.raises(StoreError, match="index is damaged"):
        verify(store)


@pytest.mark.parametrize(
    ("rules", "gone"),
    [
        ({"older_than": 3.5 * DAY}, {0, 1, 2}),
        ({"older_than": 7 * DAY}, set()),
        ({"max_bytes": 10**9}, set()),
        ({"max_bytes": 0}, {0, 1, 2, 3, 4, 5}),
        ({"max_bytes": 0, "older_than": 4.5 * DAY}, {0, 1}),
    ],
)
def test_prune(full: Store, rules: dict[str, Any], gone: set[int]) -> None:
    planned = prune(full, **rules, dry_run=True)
    assert not full.missing_images(KEYS)
    assert prune(full, **rules) == planned
    assert set(planned.keys) == {KEYS[i] for i in gone} == full.missing_images(KEYS)
    assert (planned.images, planned.kept) == (len(gone), 6 - len(gone))
    assert planned.kept_bytes == contents(full).image_bytes
    assert set(full.get_scores("clip@1", KEYS)) == set(full.get_notes("looks@1", KEYS)) == set(KEYS) - set(planned.keys)
    assert len(list(full.files())) == 6 - len(gone)
    assert verify(full).clean


def test_prune_until_the_rest_fits(full: Store) -> None:
    sizes = [full.image_path(key).stat().st_size for key in KEYS]
    done = prune(full, max_bytes=sum(sizes[2:]) + 1)
    assert done.keys == tuple(KEYS[:2])
    assert done.bytes == sum(sizes[:2])


def test_prune_keeps_what_is_needed(full: Store, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    (runs / "a").mkdir(parents=True)
    (runs / "a" / "results.json").write_text(json.dumps({"heads": 6, "methods": [{"images": [KEYS[0]]}]}))
    RECIPES[1].save(runs / "b" / "recipe.json")
    needed = needed_by([runs])
    assert needed.keys == {KEYS[0]}
    assert set(prune(full, needed=needed).keys) == {KEYS[2], KEYS[4]}
    assert prune(full, needed=needed, max_bytes=0).images == 0
    assert prune(full, needed=needed_by([runs / "a"])).images == 3
    with pytest.raises(StoreError, match="say what may go"):
        prune(full)


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("results.json", "{", "cannot read what .*results.json needs.*Nothing was removed"),
        ("recipe.json", '{"recipe": {"heads": 3}}', "cannot read what .*recipe.json needs"),
        ("other.json", '{"a": 1}', "names no images and is no recipe"),
        ("notes.txt", None, "holds no results.json"),
    ],
)
def test_prune_removes_nothing_on_a_misunderstanding(tmp_path: Path, name: str, text: str | None, says: str) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(StoreError, match=says):
        needed_by([tmp_path / name if text is not None else tmp_path])
    with pytest.raises(StoreError, match="cannot read what"):
        needed_by([tmp_path / "missing.json"])


def test_export_to_a_folder(full: Store, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert export(full, out) == 6
    rows = {row["key"]: row for row in csv.DictReader(io.StringIO((out / "table.csv").read_text(encoding="utf-8")))}
    assert rows.keys() == set(KEYS)
    assert rows[KEYS[1]]["file_name"] == f"a-red-apple-flat_seed1_L1.H0_L1.H1_L2.H0_etc_{KEYS[1][:12]}.webp"
    assert rows[KEYS[0]]["file_name"] == f"a-red-apple-flat_seed0_plain_{KEYS[0][:12]}.webp"
    for number, key in enumerate(KEYS):
        assert Image.open(out / rows[key]["file_name"]).convert("RGB").tobytes() == picture(number)[1].tobytes()
        assert float(rows[key]["clip@1"]) == number
        assert rows[key]["style@2"] == ("0.5" if not number else "")
    assert rows[KEYS[1]]["heads"] == "L1.H0 L1.H1 L2.H0 L2.H1"
    with pytest.raises(StoreError, match="is not empty"):
        export(full, out)
    full.image_path(KEYS[3]).write_bytes(b"")
    with pytest.raises(StoreError, match="is damaged"):
        export(full, tmp_path / "again")


def test_exported_names_fit_into_any_folder() -> None:
    heads = ["L1." + "長" * 60 + ".H0"] * 3
    facts = {"prompt": "画" * 300, "seed": 2**64 - 1, "recipe": {"heads": heads, "scale": 1.0}}
    name = readable_name(KEYS[0], facts) + ".webp"
    assert len(name.encode()) <= 255
    assert name.startswith("画" * 36 + "_seed18446744073709551615_L1.長長")
    assert name.endswith(f"長_{KEYS[0][:12]}.webp")


def test_parquet_without_pyarrow_says_how(full: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(StoreError, match=r"needs the package pyarrow: pip install 'pagopt\[parquet\]'"):
        export(full, tmp_path / "a.parquet")
    assert not list(tmp_path.glob("*parquet*"))


def test_parquet(full: Store, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "deep" / "a.parquet"
    assert export(full, path) == 6
    rows = {row["key"]: row for row in parquet.read_table(path).to_pylist()}
    for number, key in enumerate(KEYS):
        row = rows[key]
        assert Image.open(io.BytesIO(row["image"]["bytes"])).convert("RGB").tobytes() == picture(number)[1].tobytes()
        assert (row["seed"], row["prompt"], row["clip@1"]) == (number, "a red/apple, flat", float(number))
        assert row["style@2"] == (0.5 if not number else None)
    assert list(path.parent.iterdir()) == [path]
    with pytest.raises(StoreError, match="exists"):
        export(full, path)


def test_merge(full: Store, tmp_path: Path) -> None:
    with Store(tmp_path / "b") as other, Store(tmp_path / "all") as target:
        other.put_images(picture(number) for number in range(4, 9))
        more = [picture(number)[0] for number in range(4, 9)]
        other.put_scores("clip@1", {more[0]: 4.0, more[1]: 5.5, more[2]: 6.0, "0" * 64: 1.0})
        other.image_path(more[4]).write_bytes(b"RIFF")
        done = merge(target, [full, other])
        assert (done.images, done.known, done.scores, done.different, done.notes) == (8, 2, 8, 1, 6)
        assert list(done.damaged) == [more[4]]
        assert target.get_scores("clip@1", [*KEYS, *more]) == {
            **{key: float(number) for number, key in enumerate(KEYS)}, more[2]: 6.0
        }  # fmt: skip
        assert verify(target).clean
        assert contents(target).images == 8
        assert target.get_notes("looks@1", KEYS) == full.get_notes("looks@1", KEYS)
        again = merge(target, [full, other])
        assert (again.images, again.scores, again.notes) == (0, 0, 0)
        with pytest.raises(StoreError, match="merged into itself"):
            merge(target, [full, target])


def test_what_cannot_be_read_just_now_is_not_taken_for_damaged(full: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that hiccups must not cost images, listed or not."""
    full._database().execute("DELETE FROM images WHERE key = ?", (KEYS[5],))
    files = sorted(full.files())
    read = Path.read_bytes

    for sick in (KEYS[2], KEYS[5]):

        def hiccup(path: Path, sick: str = sick) -> bytes:
            if path.stem == sick:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return read(path)

        with monkeypatch.context() as patch:
            patch.setattr(Path, "read_bytes", hiccup)
            with pytest.raises(StoreError, match="Input/output error"):
                verify(full, repair=True)
        assert sorted(full.files()) == files
        assert not full.missing_images(KEYS[:5])
    assert verify(full, repair=True).unlisted
    assert verify(full).clean
    assert not full.missing_images(KEYS)
