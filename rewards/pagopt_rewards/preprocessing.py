"""From pictures to the pixels that a CLIP takes, without torchvision, by the rules of those who trained it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pagopt.errors import RewardError

__all__ = ["MEAN", "STD", "Rounding", "letterbox", "preparation", "preprocess"]

Rounding = Literal["torchvision", "transformers"]
MEAN, STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]  # of CLIP's training pictures


def preprocess(image: Image.Image, settings: Mapping[str, Any], rounding: Rounding = "transformers") -> Tensor:
    """What transformers' ``CLIPImageProcessorPil`` does: resize, centre crop, normalise.

    Args:
        image: RGB.
        settings: The content of preprocessor_config.json.
        rounding: Where the crop begins when an odd number of pixels is cut off: "transformers" takes the smaller
            place, "torchvision" rounds half to even, as the preprocessing of OpenAI's CLIP and of open_clip does. One
            picture in four that is not square differs by one pixel.

    Returns:
        float32 ``(3, height, width)``.
    """
    if settings.get("do_resize", True):
        # PIL filters with antialiasing, in 8 bits, as the field's published scores were computed.
        filter_ = Image.Resampling(settings.get("resample", Image.Resampling.BICUBIC))
        image = image.resize(_target(image, settings["size"]), filter_)
    if settings.get("do_center_crop", True):
        crop = settings.get("crop_size", settings["size"])
        height, width = (crop["height"], crop["width"]) if isinstance(crop, Mapping) else (crop, crop)
        left, top = (_margin(spare, rounding) for spare in (image.width - width, image.height - height))
        image = image.crop((left, top, left + width, top + height))
    pixels = torch.from_numpy(np.array(image, dtype=np.float32)).permute(2, 0, 1)
    if settings.get("do_rescale", True):
        pixels = pixels * float(settings.get("rescale_factor", 1 / 255))
    if settings.get("do_normalize", True):
        pixels = _normalised(pixels, settings["image_mean"], settings["image_std"])
    return pixels


def letterbox(image: Image.Image, edge: int) -> Tensor:
    """The whole picture on a black square: the longest side resized to ``edge``, the rest filled, then normalised.

    As HPSv2's authors do: resized as numbers from 0 to 1, with an antialiased bicubic filter and without rounding to
    8 bits, the overshoot of the filter kept. A picture whose longest side is ``edge`` already is filled, too, where
    their code leaves it and then fails; a side that would vanish keeps one pixel. (Of a picture that
    becomes one pixel wide torch's filter makes a single colour, in their code, too.)

    Args:
        image: RGB.
        edge: Pixels a side.

    Returns:
        float32 ``(3, edge, edge)``.
    """
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous().to(torch.float32).div(255)
    scale = edge / float(max(image.size))
    if scale != 1.0:
        height, width = (max(1, round(side * scale)) for side in (image.height, image.width))
        pixels = torch.nn.functional.interpolate(
            pixels[None], size=(height, width), mode="bicubic", align_corners=False, antialias=True
        )[0]
    rows, columns = edge - pixels.shape[1], edge - pixels.shape[2]
    sides = (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2)
    return _normalised(torch.nn.functional.pad(pixels, sides), MEAN, STD)


def preparation(folder: Path, edge: int) -> dict[str, Any]:
    """preprocessor_config.json, or its newer form inside processor_config.json; CLIP's own values fill the gaps.

    Raises:
        RewardError: If it is damaged, or makes pictures of another size than ``edge`` x ``edge`` pixels.
    """
    files = [folder / "preprocessor_config.json", folder / "processor_config.json"]
    file = next(filter(Path.is_file, files), files[0])
    defaults = {
        "size": {"shortest_edge": edge},
        "crop_size": {"height": edge, "width": edge},
        "image_mean": MEAN,
        "image_std": STD,
    }
    try:
        found = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        if file == files[1]:
            found = found.get("image_processor", {})
        settings = {**defaults, **{key: value for key, value in found.items() if value is not None}}
        prepared = tuple(preprocess(Image.new("RGB", (7, 5)), settings).shape)
    except Exception as error:
        raise RewardError(
            f"cannot prepare pictures as {file} says: {type(error).__name__}: {error}. Take the one made for the model."
        ) from error
    if prepared != (3, edge, edge):
        raise RewardError(f"{file} makes images of {prepared}, the model takes {(3, edge, edge)}")
    return settings


def _margin(spare: int, rounding: Rounding) -> int:
    return round(spare / 2) if rounding == "torchvision" and spare > 0 else spare // 2


def _normalised(pixels: Tensor, mean: list[float], std: list[float]) -> Tensor:
    return (pixels - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)


def _target(image: Image.Image, size: Any) -> tuple[int, int]:
    if isinstance(size, Mapping) and "height" in size:
        return int(size["width"]), int(size["height"])
    edge = int(size["shortest_edge"] if isinstance(size, Mapping) else size)
    short = min(image.size)
    width, height = (edge if side == short else int(edge * side / short) for side in image.size)
    return width, height
