"""What ``clip`` and ``style`` share: a transformers ``CLIPModel`` that turns images and texts into unit vectors."""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pagopt.errors import PagoptError, RewardError
from pagopt_rewards.weights import fingerprint

__all__ = ["Encoder", "folder_fingerprint", "model_folder", "preprocess"]

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


class Encoder:
    """A CLIP in float32.

    Args:
        model: "emoji" (the embedded scorer), a folder that holds a ``CLIPModel`` with its tokenizer, or the id of one
            on the Hugging Face hub, which is downloaded on first use.

    Raises:
        PagoptError: If there is no such model, or it cannot be loaded. Weights are read from safetensors only.
    """

    def __init__(self, model: str) -> None:
        # Here, because importing transformers takes seconds, and `pagopt rewards` only wants a docstring.
        from transformers import CLIPModel, CLIPTokenizer

        self.folder = model_folder(model)
        try:
            self.model: Any = CLIPModel.from_pretrained(self.folder, dtype=torch.float32, use_safetensors=True).eval()
            self.tokenizer: Any = CLIPTokenizer.from_pretrained(self.folder)
            self.preparation = _preparation(self.folder, self.model.config.vision_config.image_size)
        except Exception as error:
            raise RewardError(
                f"cannot load a CLIP model from {self.folder}: {type(error).__name__}: {error}. It takes config.json, "
                "model.safetensors, a tokenizer and preprocessor_config.json, as CLIPModel.save_pretrained makes them."
            ) from error
        self.device = torch.device("cpu")
        self._texts: dict[str, Tensor] = {}

    def move(self, device: torch.device) -> None:
        """Move the networks."""
        self.model.to(device)
        self.device = device

    def images(self, images: Sequence[Image.Image]) -> Tensor:
        """Unit vectors of RGB images, float32 ``(n, d)`` on the CPU."""
        pixels = torch.stack([preprocess(image, self.preparation) for image in images])
        features = self.model.get_image_features(pixel_values=pixels.to(self.device)).pooler_output
        return torch.nn.functional.normalize(features, dim=-1).cpu()

    def texts(self, texts: Sequence[str]) -> Tensor:
        """Unit vectors of texts, float32 ``(n, d)`` on the CPU; each is computed once, cut at the model's length."""
        new = [text for text in dict.fromkeys(texts) if text not in self._texts]
        if new:
            length = self.model.config.text_config.max_position_embeddings
            tokens = self.tokenizer(new, padding=True, truncation=True, max_length=length, return_tensors="pt")
            features = self.model.get_text_features(
                input_ids=tokens["input_ids"].to(self.device), attention_mask=tokens["attention_mask"].to(self.device)
            ).pooler_output
            self._texts.update(zip(new, torch.nn.functional.normalize(features, dim=-1).cpu(), strict=True))
        return torch.stack([self._texts[text] for text in texts])

    @functools.cached_property
    def fingerprint(self) -> str:
        """Hex digest of weights, configuration, and this file."""
        return folder_fingerprint(self.folder) + hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:16]


def model_folder(model: str) -> Path:
    """The folder of a model by name; see :class:`Encoder`."""
    from pagopt.models import scorer_folder

    if Path(model).expanduser().is_dir() or not HUB_ID.fullmatch(model):
        return scorer_folder(model)
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(model, allow_patterns=["*.json", "*.txt", "model*.safetensors"]))
    except Exception as error:
        raise RewardError(
            f"there is no folder {model}, and the hub does not give {model!r}: {type(error).__name__}: {error}. "
            "Without a network, download it elsewhere and give the folder."
        ) from error


def folder_fingerprint(folder: Path) -> str:
    """sha256 over configuration and weights; large files are sampled."""
    files = [path for path in folder.iterdir() if path.suffix in {".json", ".txt", ".safetensors"}]
    return fingerprint(*sorted(files))


def preprocess(image: Image.Image, settings: Mapping[str, Any]) -> Tensor:
    """What transformers' ``CLIPImageProcessor`` does, without torchvision: resize, centre crop, normalise.

    Args:
        image: RGB.
        settings: The content of preprocessor_config.json.

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
        left, top = (image.width - width) // 2, (image.height - height) // 2
        image = image.crop((left, top, left + width, top + height))
    pixels = torch.from_numpy(np.array(image, dtype=np.float32)).permute(2, 0, 1)
    if settings.get("do_rescale", True):
        pixels = pixels * float(settings.get("rescale_factor", 1 / 255))
    if settings.get("do_normalize", True):
        mean, std = (torch.tensor(settings[name]).view(3, 1, 1) for name in ("image_mean", "image_std"))
        pixels = (pixels - mean) / std
    return pixels


def _target(image: Image.Image, size: Any) -> tuple[int, int]:
    if isinstance(size, Mapping) and "height" in size:
        return int(size["width"]), int(size["height"])
    edge = int(size["shortest_edge"] if isinstance(size, Mapping) else size)
    short = min(image.size)
    width, height = (edge if side == short else int(edge * side / short) for side in image.size)
    return width, height


def _preparation(folder: Path, edge: int) -> dict[str, Any]:
    """preprocessor_config.json, or its newer form inside processor_config.json; CLIP's own values fill the gaps."""
    settings: dict[str, Any] = {}
    if (folder / "preprocessor_config.json").is_file():
        settings = json.loads((folder / "preprocessor_config.json").read_text(encoding="utf-8"))
    elif (folder / "processor_config.json").is_file():
        settings = json.loads((folder / "processor_config.json").read_text(encoding="utf-8")).get("image_processor", {})
    defaults = {
        "size": {"shortest_edge": edge},
        "crop_size": {"height": edge, "width": edge},
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
    }
    settings = {**defaults, **{key: value for key, value in settings.items() if value is not None}}
    prepared = tuple(preprocess(Image.new("RGB", (7, 5)), settings).shape)
    if prepared != (3, edge, edge):
        raise PagoptError(f"preprocessor_config.json makes images of {prepared}, the model takes {(3, edge, edge)}")
    return settings
