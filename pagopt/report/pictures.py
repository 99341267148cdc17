"""What the page needs from the pictures: small copies inside it, their sizes, and how they look."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from PIL import Image

from pagopt.looks import Looks, measure

__all__ = ["Album", "collect", "data_uris"]

THUMBNAIL = 256
"""Longest side of an embedded picture in pixels. Smaller originals are embedded as they are."""

BUDGET = 1_900_000
"""Bytes that all embedded pictures may take before base64."""

Encoding = tuple[int, int]


@dataclass(frozen=True)
class Album:
    """Pictures by store key: the copy to embed (a ``data:`` address), and the looks and size of the original."""

    uris: dict[str, str]
    looks: dict[str, Looks]
    sizes: dict[str, tuple[int, int]]


def collect(keys: Sequence[str], image: Callable[[str], Image.Image]) -> Album:
    """Fetch every picture once, measure it and make its small copy.

    Args:
        keys: Store keys; repeated ones are fetched once.
        image: Gives the picture of a key.
    """
    small: dict[str, Image.Image] = {}
    measured: dict[str, Looks] = {}
    sizes: dict[str, tuple[int, int]] = {}
    for key in dict.fromkeys(keys):
        picture = image(key).convert("RGB")
        measured[key], sizes[key] = measure(picture), picture.size
        picture.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
        small[key] = picture
    return Album(data_uris(small), measured, sizes)


def data_uris(pictures: dict[str, Image.Image], budget: int = BUDGET) -> dict[str, str]:
    """Encode pictures as WebP ``data:`` addresses; beyond ``budget`` bytes in all, all are made smaller alike."""
    lossless = all(max(picture.size) <= 96 for picture in pictures.values())
    choices: list[Encoding] = [(THUMBNAIL, 101)] if lossless else []
    choices += [(THUMBNAIL, 84), (THUMBNAIL, 75), (192, 75), (128, 70), (96, 60), (64, 50)]
    encoded: dict[str, bytes] = {}
    for choice in choices:
        encoded = {key: _webp(picture, choice) for key, picture in pictures.items()}
        if sum(map(len, encoded.values())) <= budget:
            break
    return {key: "data:image/webp;base64," + base64.b64encode(data).decode("ascii") for key, data in encoded.items()}


def _webp(picture: Image.Image, encoding: Encoding) -> bytes:
    side, quality = encoding
    if max(picture.size) > side:
        picture = picture.copy()
        picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", lossless=quality > 100, quality=min(quality, 100), method=4)
    return buffer.getvalue()
