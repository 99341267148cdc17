"""An image as a file: lossless WebP that says itself what it is and whether it is whole.

WebP has no checksums, so the file holds one of its pixels. Both texts lie in its EXIF block: the description (UTF-8) as
ImageDescription, the checksum as ImageUniqueID.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import os
import struct
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

from PIL import Image, PngImagePlugin

__all__ = ["SUFFIXES", "decode", "encode", "encode_all", "read_description"]

SUFFIXES = (".webp", ".png")
"""In the order in which they are looked for; PNG are those of schema 1 and those too large for WebP."""

LARGEST = 16383  # pixels of a side, a limit of WebP
EFFORT = 1  # measured, see benchmarks.store: a fifth smaller than PNG at about its speed; more effort costs much more
AT_ONCE = min(16, os.cpu_count() or 1)
SMALL = 256 * 256  # pixels; below, threads cost more than they save
_DESCRIPTION, _CHECKSUM = 0x010E, 0xA420


def encode(image: Image.Image, description: str) -> tuple[bytes, str]:
    """The content of a file, and its suffix.

    Args:
        image: RGB, of 8 bits a channel.
        description: Canonical JSON.

    Raises:
        ValueError: For an image that is not RGB.
    """
    if image.mode != "RGB":
        raise ValueError(f"the store keeps RGB images of 8 bits a channel, not mode {image.mode!r}")
    buffer = io.BytesIO()
    if max(image.size) > LARGEST:
        notes = PngImagePlugin.PngInfo()
        notes.add_itxt("description", description)
        image.save(buffer, "PNG", compress_level=1, pnginfo=notes)
        return buffer.getvalue(), ".png"
    exif = Image.Exif()
    exif[_DESCRIPTION], exif[_CHECKSUM] = description.encode(), _checksum(image)
    image.save(buffer, "WEBP", lossless=True, method=EFFORT, quality=0, exact=True, exif=exif.tobytes())
    return buffer.getvalue(), ".webp"


def encode_all(entries: Iterable[tuple[str, Image.Image, str]]) -> Iterator[tuple[str, str, bytes, str]]:
    """:func:`encode` for several, in their order, and at the same time where they are large: a GPU waits for it.

    Args:
        entries: A key, which is passed on, an image, and its description.

    Yields:
        Key, description, content and suffix.
    """
    waiting = iter(entries)
    with ThreadPoolExecutor(AT_ONCE) as threads:
        while some := list(itertools.islice(waiting, AT_ONCE)):
            keys, images, texts = zip(*some, strict=True)
            large = len(some) > 1 and max(image.width * image.height for image in images) >= SMALL
            for key, text, file in zip(
                keys, texts, (threads.map if large else map)(encode, images, texts), strict=True
            ):
                yield key, text, *file


def decode(data: bytes) -> tuple[Image.Image, str]:
    """The RGB image of a file, checked, and its description.

    Raises:
        Exception: Whatever Pillow or a check says about a damaged file.
    """
    with Image.open(io.BytesIO(data), formats=["WEBP", "PNG"]) as file:
        if file.format == "WEBP" and len(data) != 8 + struct.unpack("<I", data[4:8])[0]:
            raise ValueError("its length is not what it says")
        if file.format == "PNG":
            file.verify()  # the checksums, which load() passes over
    with Image.open(io.BytesIO(data), formats=["WEBP", "PNG"]) as file:
        file.load()
        if file.mode != "RGB":
            raise ValueError(f"mode {file.mode}")
        image = Image.frombytes("RGB", file.size, file.tobytes())
        if file.format == "WEBP" and file.getexif().get(_CHECKSUM) != _checksum(image):
            raise ValueError("its pixels do not match its checksum")
        return image, _description(file)


def read_description(data: bytes) -> str:
    """The description of a file, without decoding its pixels.

    Raises:
        Exception: Whatever Pillow says about a damaged file.
    """
    with Image.open(io.BytesIO(data), formats=["WEBP", "PNG"]) as file:
        return _description(file)


def _description(file: Image.Image) -> str:
    if file.format == "PNG":
        return str(getattr(file, "text", {}).get("description", ""))
    # Pillow takes the bytes of this field for Latin-1.
    return str(file.getexif().get(_DESCRIPTION, "")).encode("latin-1").decode()


def _checksum(image: Image.Image) -> str:
    digest = hashlib.blake2b(b"%d %d " % image.size, digest_size=16)
    digest.update(image.tobytes())
    return digest.hexdigest()
