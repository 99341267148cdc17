"""Writing files so that a reader never sees half of one."""

from __future__ import annotations

import io
import os
import uuid
from pathlib import Path

from PIL import Image

__all__ = ["write_bytes", "write_png", "write_text"]


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write ``data`` to ``path`` through a temporary file beside it, then rename.

    Args:
        path: Target; its folder is created. A link stays one, and what it points at is written; so are a device and a
            pipe, which nothing replaces.
        data: Content.

    Raises:
        OSError: As the system says it (no space, no permission); the old content then still stands.
    """
    path = Path(os.path.realpath(path))
    if path.exists() and not path.is_file():
        path.write_bytes(data)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".pagopt-{uuid.uuid4().hex}")  # short, whatever the target is called
    try:
        with temporary.open("xb") as file:
            file.write(data)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_text(path: str | Path, text: str) -> None:
    """Like :func:`write_bytes`, for text in UTF-8."""
    write_bytes(path, text.encode("utf-8"))


def write_png(path: str | Path, image: Image.Image) -> None:
    """Like :func:`write_bytes`, for an image, without loss."""
    data = io.BytesIO()
    image.save(data, format="PNG")
    write_bytes(path, data.getvalue())
