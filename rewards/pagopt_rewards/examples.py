"""Example pictures: what ``reference`` and ``classifier`` read from a folder, and what they compare."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image, ImageOps
from torch import Tensor

from pagopt.errors import RewardError
from pagopt_rewards.encoder import Encoder

__all__ = ["FEWEST", "MOST", "SUFFIXES", "Examples", "read_examples"]

FEWEST, MOST = 3, 20
# Also kinds that Pillow cannot read: an example left out in silence would be worse than an error.
SUFFIXES = {".avif", ".bmp", ".gif", ".heic", ".heif", ".ico", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm"}
SUFFIXES |= {".png", ".ppm", ".psd", ".svg", ".tga", ".tif", ".tiff", ".webp"}
BATCH = 16


@dataclass(frozen=True)
class Examples:
    """Pictures that show what is meant.

    Attributes:
        files: Where they were read.
        images: RGB, upright, what is transparent on white.
    """

    files: list[Path]
    images: list[Image.Image]

    def digests(self) -> list[str]:
        """sha256 of size and pixels of each, sorted: other names, folders or file formats change nothing."""
        return sorted(_digest(image) for image in self.images)

    @torch.no_grad()
    def features(self, encoder: Encoder, projected: bool) -> Tensor:
        """Unit vectors, float32 ``(n, d)``; see :meth:`Encoder.images`."""
        starts = range(0, len(self.images), BATCH)
        return torch.cat([encoder.images(self.images[i : i + BATCH], projected) for i in starts])


def read_examples(source: str | Sequence[str], name: str, fewest: int = FEWEST, most: int = MOST) -> Examples:
    """Read the pictures of a folder, or those of a list of files.

    Args:
        source: The folder, whose files with the suffix of a picture are read (not those of folders inside, nor those
            whose name begins with a dot); or the files.
        name: The reward's argument, for messages.
        fewest: Pictures, at least.
        most: Pictures, at most.

    Raises:
        RewardError: If there is no such folder or file, too few or too many, one cannot be read, or two are the same.
    """
    files = _files(source, name)
    if not fewest <= len(files) <= most:
        where = f"the folder {source} holds" if isinstance(source, str) else "the list holds"
        raise RewardError(f"`{name}` takes {fewest} to {most} pictures, and {where} {len(files)}")
    examples = Examples(files, [_read(file, name) for file in files])
    for (one, image), (other, twin) in itertools.combinations(zip(files, examples.images, strict=True), 2):
        if image.size == twin.size and image.tobytes() == twin.tobytes():
            raise RewardError(
                f"`{name}`: {one} and {other} are the same picture. Remove one: how much examples differ is the scale "
                "that others are measured on."
            )
    return examples


def _files(source: str | Sequence[str], name: str) -> list[Path]:
    if isinstance(source, (str, Path)):
        folder = Path(source).expanduser()
        if not folder.is_dir():
            what = "a file; write a list of files, or its folder" if folder.exists() else "not there"
            raise RewardError(f"`{name}` is a folder of pictures or a list of files, and {folder} is {what}")
        found = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file())
        return [path for path in found if not path.name.startswith(".")]
    if not isinstance(source, Sequence) or not all(isinstance(path, (str, Path)) for path in source):
        raise RewardError(f"`{name}` is a folder of pictures or a list of files, not {source!r}")
    return [Path(path).expanduser() for path in source]


def _read(path: Path, name: str) -> Image.Image:
    try:
        with Image.open(path) as file:
            frames = getattr(file, "n_frames", 1)
            if frames > 1:
                raise RewardError(f"`{name}`: {path} holds {frames} pictures; save the one that is meant as PNG")
            file.load()
            image = ImageOps.exif_transpose(file)
    except RewardError:
        raise
    except Exception as error:  # Pillow's plug-ins raise what they like
        raise RewardError(
            f"`{name}`: cannot read {path} as a picture: {type(error).__name__}: {error}. Save it again as PNG or "
            "JPEG, or take it out."
        ) from error
    if image.mode in {"I", "F"} or image.mode.startswith("I;"):
        raise RewardError(f"`{name}`: {path} has mode {image.mode!r}: save it with 8 bits a channel")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return image.convert("RGB")


def _digest(image: Image.Image) -> str:
    return hashlib.sha256(f"{image.size}".encode() + image.tobytes()).hexdigest()
