"""How a picture looks, in four numbers and a thumbnail, and how alike a set of pictures is.

A reward can be raised by loud pictures, by noise, or by drawing one picture for every prompt. These measures ride along
with every score and show it. They are cheap beside any drawing: on one CPU core 0.2 ms for a picture of 64 x 64 pixels,
8 ms at 512 x 512, 10 ms at 1024 x 1024.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["EDGE", "KIND", "MEASURES", "SINGLE", "TWIN", "Looks", "distances", "looks_table", "measure"]

VERSION = 1  # raise it when a number of any picture changes
KIND = f"looks@{VERSION}"
"""Name of these notes in the store."""

SINGLE = ("brightness", "saturation", "contrast", "sharpness")
"""The measures of one picture."""

MEASURES = (*SINGLE, "variety", "twins")
"""All measures; the last two are of a picture among others."""

EDGE = 8
"""Pixels a side of the thumbnails that are compared."""

TWIN = 0.03
"""Two pictures are twins when their thumbnails are nearer than this: about 8 of 255 levels, root mean square."""

LARGEST = 512
REC_709 = (0.2126, 0.7152, 0.0722)


@dataclass(frozen=True)
class Looks:
    """One picture, measured on its sRGB values in [0, 1].

    Attributes:
        brightness: Mean luma (Rec. ITU-R BT.709 weights on the stored values), 0 to 1.
        saturation: Mean of max - min over the three channels, 0 to 1.
        contrast: Standard deviation of luma, 0 to 0.5.
        sharpness: Standard deviation of the Laplacian of luma, 0 and up. It sees noise, too.
        thumbnail: ``EDGE * EDGE * 3`` bytes, row by row, RGB: the means of ``EDGE x EDGE`` equal areas.
    """

    brightness: float
    saturation: float
    contrast: float
    sharpness: float
    thumbnail: bytes = bytes(EDGE * EDGE * 3)

    def to_dict(self) -> dict[str, Any]:
        """As JSON data; :meth:`from_dict` gives it back."""
        return {**{name: getattr(self, name) for name in SINGLE}, "thumbnail": self.thumbnail.hex()}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Looks:
        """Read what :meth:`to_dict` wrote.

        Raises:
            KeyError, ValueError: If it is something else.
        """
        numbers = {name: float(data[name]) for name in SINGLE}
        return cls(**numbers, thumbnail=bytes.fromhex(data["thumbnail"]))


def measure(image: Image.Image) -> Looks:
    """Measure one picture. Those over 512 pixels are reduced to that first, so that no picture costs more.

    Args:
        image: Of any size; it is taken as RGB.
    """
    image = image.convert("RGB")
    if max(image.size) > LARGEST:
        # By whole areas: quick, and it invents no edges.
        image.thumbnail((LARGEST, LARGEST), Image.Resampling.BOX)
    red, green, blue = np.ascontiguousarray(np.moveaxis(np.asarray(image), -1, 0))
    luma = sum(np.float32(share / 255) * plane for share, plane in zip(REC_709, (red, green, blue), strict=True))
    spread = np.maximum(np.maximum(red, green), blue) - np.minimum(np.minimum(red, green), blue)
    wide = np.pad(luma, 1, mode="edge")
    laplacian = wide[:-2, 1:-1] + wide[2:, 1:-1] + wide[1:-1, :-2] + wide[1:-1, 2:] - np.float32(4) * luma
    return Looks(
        brightness=float(luma.mean(dtype=np.float64)),
        saturation=float(spread.mean(dtype=np.float64) / 255),
        contrast=float(luma.std(dtype=np.float64)),
        sharpness=float(laplacian.std(dtype=np.float64)),
        thumbnail=image.resize((EDGE, EDGE), Image.Resampling.BOX).tobytes(),
    )


def distances(looks: Sequence[Looks]) -> NDArray[np.float64]:
    """How far each picture is from each other one: root mean square of the differences of their thumbnails.

    Args:
        looks: ``n`` pictures.

    Returns:
        Shape ``(n, n)``, from 0, equal, to 1, black against white.
    """
    pixels = np.array([np.frombuffer(one.thumbnail, np.uint8) for one in looks], dtype=np.float64) / 255
    squares = (pixels**2).sum(axis=1)
    gaps = np.maximum(squares[:, None] + squares - 2 * pixels @ pixels.T, 0)
    np.fill_diagonal(gaps, 0)
    return np.sqrt(gaps / pixels.shape[1])  # type: ignore[no-any-return]


def looks_table(looks: Sequence[Looks]) -> dict[str, tuple[float, ...]]:
    """All measures of a set of pictures, such as those of one recipe.

    Args:
        looks: ``n`` pictures.

    Returns:
        For each of ``MEASURES`` a value for each picture: those of :class:`Looks`; "variety", its mean distance from
        the other pictures (their mean over the set is the mean distance of two pictures); and "twins", 1 where another
        picture is nearer than ``TWIN``, else 0. Of a single picture the last two are left out.
    """
    table = {name: tuple(float(getattr(one, name)) for one in looks) for name in SINGLE}
    if len(looks) > 1:
        gaps = distances(looks)
        table["variety"] = tuple((gaps.sum(axis=1) / (len(looks) - 1)).tolist())
        np.fill_diagonal(gaps, np.inf)
        table["twins"] = tuple((gaps.min(axis=1) < TWIN).astype(float).tolist())
    return table
