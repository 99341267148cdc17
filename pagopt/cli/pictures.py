"""Image files on the command line: files, folders and patterns, and the prompt of each."""

from __future__ import annotations

import csv
import glob
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps

from pagopt import checked
from pagopt.errors import PagoptError, RewardError

__all__ = ["BESIDE", "find_images", "find_prompts", "read_image", "read_prompts"]

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif"}
BESIDE = "beside"
NAMES = ("file_name", "image")
TEXTS = ("text", "prompt", "caption")


def find_images(words: Sequence[str]) -> list[Path]:
    """The image files that are meant, each once, in order.

    Args:
        words: Files; folders, of which all images are taken, sorted by name, not those of folders inside; and patterns
            such as ``"pictures/**/*.png"``, for shells that leave them alone.

    Raises:
        PagoptError: If there is no such file, or a folder or pattern has no images.
    """
    found: dict[Path, None] = {}
    for word in words:
        path = Path(word).expanduser()
        if path.is_file():
            files = [path]
        elif path.is_dir():
            files = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES)
            if not files:
                raise PagoptError(
                    f"the folder {word} holds no images ({', '.join(sorted(SUFFIXES))}). For those of its own folders "
                    f'write "{word.rstrip("/")}/**/*.png".'
                )
        else:
            # Hidden files and folders are left out, as shells do.
            files = [Path(file) for file in sorted(glob.glob(str(path), recursive=True)) if Path(file).is_file()]
            if not files:
                kind = "no file matches" if glob.has_magic(word) else "there is no file or folder"
                raise PagoptError(f"{kind} {word}")
        found.update(dict.fromkeys(files))
    return list(found)


def read_image(path: Path) -> Image.Image:
    """Open an image file, whole and upright.

    Raises:
        RewardError: If it is no image, or a part of it is missing.
    """
    try:
        with Image.open(path) as file:
            file.load()
            return ImageOps.exif_transpose(file)
    except Exception as error:  # Pillow's own errors differ from format to format
        cut = " Its end is missing: copy or make it again." if "truncated" in str(error).lower() else ""
        raise RewardError(f"cannot read {path} as an image: {error}.{cut}") from error


def read_prompts(path: Path) -> dict[Path, str]:
    """The prompts of a file, by image.

    Args:
        path: JSON lines (.jsonl), JSON (.json, a list of objects) or CSV (.csv) with the columns "file_name" and
            "text", as in the image folders of Hugging Face datasets; "image" and "prompt" do as well. Names are
            relative to the folder of this file.

    Raises:
        PagoptError: If it cannot be read, or an image has two prompts.
    """
    text = _text(path)
    try:
        if path.suffix == ".csv":
            rows: Any = list(csv.DictReader(io.StringIO(text, newline="")))
        elif path.suffix == ".json":
            rows = json.loads(text)
        elif path.suffix == ".jsonl":
            rows = [json.loads(line) for line in text.split("\n") if line.strip()]
        else:
            raise PagoptError(f'{path} is no .jsonl, .json or .csv; for a .txt beside each image write "{BESIDE}"')
        pairs = [_pair(row, number) for number, row in enumerate(rows, start=1)]
    except (ValueError, csv.Error) as error:
        raise PagoptError(f"cannot read the prompts {path}: {error}") from error
    prompts: dict[Path, str] = {}
    for name, prompt in pairs:
        image = path.parent / Path(name).expanduser()
        if prompts.setdefault(image, prompt) != prompt:
            raise PagoptError(f"{path} gives {name} two prompts: {prompts[image]!r} and {prompt!r}")
    return prompts


def find_prompts(images: Sequence[Path], prompt: str, source: str | None) -> list[str]:
    """The prompt of each image.

    Args:
        images: Image files.
        prompt: For all of them, where there is no ``source``.
        source: A file as :func:`read_prompts` takes it; or "beside", for a text file beside each image:
            apple.txt for apple.png.

    Raises:
        PagoptError: If an image has no prompt, or its prompt cannot be read.
    """
    if source is None:
        return [checked.prompt(prompt)] * len(images)
    known: Mapping[Path, str]
    if source == BESIDE:
        texts = {image: image.with_suffix(".txt") for image in images}
        known = {image: _text(file).strip() for image, file in texts.items() if file.is_file()}
        where = "no text file beside"
    else:
        known = {image.resolve(): text for image, text in read_prompts(Path(source)).items()}
        known = {image: known[image.resolve()] for image in images if image.resolve() in known}
        where = f"no prompt in {source} for"
    lacking = [str(image) for image in images if image not in known]
    if lacking:
        more = f" and {len(lacking) - 5} more" if len(lacking) > 5 else ""
        raise PagoptError(f"there is {where} {', '.join(lacking[:5])}{more}")
    return [checked.prompt(known[image]) for image in images]


def _text(path: Path) -> str:
    """What a file holds, with the ends of lines as they are: prompts may have some within."""
    try:
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise PagoptError(f"cannot read the prompts {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise PagoptError(f"cannot read the prompts {path}: {error}") from error


def _pair(row: Any, number: int) -> tuple[str, str]:
    if not isinstance(row, Mapping):
        raise ValueError(f"row {number} is {row!r:.60}, not an object with file_name and text")
    name = next((row[key] for key in NAMES if isinstance(row.get(key), str)), None)
    text = next((row[key] for key in TEXTS if isinstance(row.get(key), str)), None)
    if not name or text is None:
        raise ValueError(
            f"row {number} needs file_name and text (or image and prompt); it has {', '.join(map(str, row))}"
        )
    return name, text
