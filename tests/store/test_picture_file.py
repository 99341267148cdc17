"""Image files: exact, whole or noticed, and they say what they are."""

from __future__ import annotations

import json

import numpy as np
import pytest
from entries import IMAGE
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pagopt.store.picture_file import LARGEST, SMALL, decode, encode, encode_all, read_description


@settings(max_examples=25, deadline=None)
@given(text=st.text(st.characters(exclude_categories=["Cs"])))
def test_any_prompt_comes_back(text: str) -> None:
    description = json.dumps({"prompt": text}, ensure_ascii=False)
    data, suffix = encode(IMAGE, description)
    assert suffix == ".webp"
    assert read_description(data) == description
    image, again = decode(data)
    assert (image.tobytes(), again) == (IMAGE.tobytes(), description)


@pytest.mark.parametrize("side", [8, 256])
def test_many_are_encoded_as_one_is_and_in_order(side: int) -> None:
    """The large ones several at a time."""
    assert (side**2 >= SMALL) == (side == 256)
    draw = np.random.default_rng(side)
    images = [Image.fromarray(draw.integers(0, 256, (side, side, 3), dtype=np.uint8)) for _ in range(37)]
    entries = [(f"key {number}", image, str(number)) for number, image in enumerate(images)]
    found = list(encode_all(iter(entries)))
    assert found == [(key, text, *encode(image, text)) for key, image, text in entries]
    assert list(encode_all([])) == []
    entries[3] = ("bad", Image.new("L", (side, side)), "")
    files = encode_all(entries)
    assert [next(files)[0] for _ in range(3)] == ["key 0", "key 1", "key 2"]
    with pytest.raises(ValueError, match="not mode 'L'"):
        next(files)


def test_a_changed_byte_never_gives_another_image() -> None:
    """WebP has no checksums of its own."""
    pixels = np.zeros((12, 12, 3), dtype=np.uint8)
    pixels[3:7, 2:9] = [200, 30, 60]
    pixels[5] += np.arange(36, dtype=np.uint8).reshape(12, 3)
    image = Image.fromarray(pixels)
    description = '{"prompt":"a"}'
    data, _ = encode(image, description)
    noticed = 0
    for at in range(len(data)):
        for bit in (1, 128):
            changed = data[:at] + bytes([data[at] ^ bit]) + data[at + 1 :]
            try:
                found, said = decode(changed)
            except Exception:  # any, as the store takes any
                noticed += 1
                continue
            # What it says is held against its key by the store.
            assert found.tobytes() == image.tobytes()
            noticed += said != description
    assert noticed > len(data)
    for end in range(0, len(data), 7):
        with pytest.raises(Exception, match=r"."):
            decode(data[:end])


def test_what_is_too_large_for_webp_is_png() -> None:
    wide = Image.new("RGB", (LARGEST + 1, 1), (1, 2, 3))
    data, suffix = encode(wide, '{"prompt":"é"}')
    assert suffix == ".png"
    image, description = decode(data)
    assert image.tobytes() == wide.tobytes()
    assert description == read_description(data) == '{"prompt":"é"}'
    assert encode(wide.crop((0, 0, LARGEST, 1)), "{}")[1] == ".webp"
