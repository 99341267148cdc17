"""What the store keeps: exactly, once, and inside its folder."""

from __future__ import annotations

import pickle
import re
import sqlite3
import textwrap
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from entries import DESCRIPTION, IMAGE, KEY, entry
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

import pagopt.store
from pagopt.errors import StoreError
from pagopt.store import Store


def test_an_image_comes_back_exactly(store: Store) -> None:
    assert not store.has_image(KEY)
    store.put_images([(KEY, IMAGE, DESCRIPTION)])
    assert store.has_image(KEY)
    assert store.get_image(KEY).tobytes() == IMAGE.tobytes()
    assert store.get_image(KEY).mode == "RGB"
    assert store.image_path(KEY) == store.folder / "images" / KEY[:2] / f"{KEY}.webp"
    assert store.counts() == {"images": 1, "scores": 0}


@settings(max_examples=15, deadline=None)
@given(pixels=hnp.arrays(np.uint8, st.tuples(st.integers(1, 20), st.integers(1, 20), st.just(3))))
def test_any_pixels_come_back(tmp_path_factory: pytest.TempPathFactory, pixels: np.ndarray) -> None:
    with Store(tmp_path_factory.mktemp("any")) as store:
        store.put_images([(KEY, Image.fromarray(pixels), DESCRIPTION)])
        assert np.array_equal(np.asarray(store.get_image(KEY)), pixels)


def test_the_same_description_has_the_same_key() -> None:
    assert Store.key({"a": 1, "b": [1.5, None]}) == Store.key({"b": [1.5, None], "a": 1})
    others = [{"a": 1}, {"a": 1.0}, {"a": "1"}, {"a": True}, {"b": 1}, {"a": [1]}, {"a": "é"}, {"a": "e\u0301"}]
    assert len({Store.key(other) for other in others}) == len(others)
    with pytest.raises(ValueError, match="JSON compliant"):
        Store.key({"a": float("nan")})
    with pytest.raises(TypeError, match="set"):
        Store.key({"a": {1}})


def test_scores_belong_to_an_image_and_a_reward(store: Store) -> None:
    keys = [entry(i)[0] for i in range(3)]
    store.put_scores("clip", {keys[0]: 1.25, keys[1]: -1e-30})
    store.put_scores("style", {keys[0]: 7})
    store.put_scores("style", {keys[0]: 8})
    store.put_scores("style", {})
    assert store.get_scores("clip", keys) == {keys[0]: 1.25, keys[1]: -1e-30}
    assert store.get_scores("style", keys[:1]) == {keys[0]: 8.0}
    assert store.get_scores("other", keys) == {}
    assert store.get_scores("clip", []) == {}
    assert store.counts() == {"images": 0, "scores": 3}
    with pytest.raises(StoreError, match=rf"the score nan of image {keys[0]} by clip is not finite"):
        store.put_scores("clip", {keys[0]: float("nan")})


def test_missing_images(store: Store) -> None:
    entries = [entry(i) for i in range(5)]
    store.put_images(entries[:3])
    assert store.missing_images(key for key, *_ in entries) == {entries[3][0], entries[4][0]}
    store.image_path(entries[0][0]).unlink()
    assert store.missing_images([entries[0][0], entries[1][0]]) == {entries[0][0]}
    store.put_images(entries[:1])
    assert store.has_image(entries[0][0])
    assert store.missing_images([]) == set()


def test_a_thousand_images_take_seconds(store: Store) -> None:
    entries = [entry(i, size=64) for i in range(1000)]
    keys = [key for key, *_ in entries]
    start = time.perf_counter()
    store.put_images(entries)
    store.put_scores("clip", dict.fromkeys(keys, 0.5))
    assert not store.missing_images(keys)
    assert len(store.get_scores("clip", keys)) == 1000
    for key in keys:
        store.get_image(key)
    assert time.perf_counter() - start < 10


def test_it_opens_again_and_travels(store: Store) -> None:
    store.put_images([(KEY, IMAGE, DESCRIPTION)])
    copy = pickle.loads(pickle.dumps(store))
    assert copy.has_image(KEY)
    copy.close()
    copy.close()
    assert copy.has_image(KEY)  # opens by itself
    copy.close()


@pytest.mark.parametrize("bad", ["", "abc", "../" * 21 + "a", "A" * 64, "g" * 64, KEY + "\n", KEY[:-1] + "/", None, 3])
def test_no_path_leads_out(store: Store, bad: Any) -> None:
    for use in (
        lambda: store.image_path(bad),
        lambda: store.get_image(bad),
        lambda: store.has_image(bad),
        lambda: store.put_images([(bad, IMAGE, {})]),
        lambda: store.put_scores("clip", {bad: 1.0}),
    ):
        with pytest.raises(StoreError, match="is no key of an image"):
            use()
    assert store.counts() == {"images": 0, "scores": 0}


def test_only_rgb_is_kept(store: Store) -> None:
    for mode in ("RGBA", "L", "P", "F"):
        with pytest.raises(ValueError, match=f"not mode '{mode}'"):
            store.put_images([(KEY, Image.new(mode, (2, 2)), DESCRIPTION)])
    assert not store.has_image(KEY)


def test_the_documented_schema(store: Store) -> None:
    store.put_images([(KEY, IMAGE, DESCRIPTION)])
    store.put_scores("clip", {KEY: 0.5})
    documented = textwrap.dedent(pagopt.store.__doc__ or "")
    page = (Path(__file__).parent.parent.parent / "docs" / "store.md").read_text(encoding="utf-8")
    database = sqlite3.connect(store.index)
    for (table,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
        columns = [f"{row[1]} {row[2]}" for row in database.execute(f"PRAGMA table_info({table})")]
        for text in (documented, page):
            (line,) = [line for line in text.splitlines() if re.match(rf" *{table} +\(", line)]
            assert all(column in line for column in columns), text
    assert database.execute("SELECT * FROM scores").fetchall() == [(KEY, "clip", 0.5)]
    database.close()
