"""LAION's aesthetic predictors, versions 1 and 2: Schuhmann et al., "LAION-5B", NeurIPS 2022 (arXiv 2210.08402).

The authors' code: https://github.com/LAION-AI/aesthetic-predictor (MIT) and
https://github.com/christophschuhmann/improved-aesthetic-predictor (Apache-2.0).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import linear

from pagopt.errors import RewardError
from pagopt.reward import Reward
from pagopt_rewards.encoder import Encoder
from pagopt_rewards.weights import (
    check_tensors,
    code_fingerprint,
    fingerprint,
    published_file,
    read_weights,
    uncached,
)

__all__ = ["Aesthetic"]

MODEL = "openai/clip-vit-large-patch14"
LINEAR = "https://github.com/LAION-AI/aesthetic-predictor/raw/main/sa_0_4_{}_linear.pth"
# By width of a feature and pixels of a patch: name and sha256 of the linear head.
LINEAR_HEADS = {
    (768, 14): ("vit_l_14", "2cd4e60f4f24ae3bcd57b847b13c1f3ba27edc28cc1a7f9ce74ee9f421243cba"),
    (512, 32): ("vit_b_32", "c7b14cead230694acc7b9447974d3cad78003c72da032e402a303b6c2429e85f"),
    (512, 16): ("vit_b_16", "8ad3923d7ecf019df20ecd2ab5542a3075fbba0278d239c0371345f3d7fcbde0"),
}
IMPROVED = (
    "https://github.com/christophschuhmann/improved-aesthetic-predictor/raw/main/sac%2Blogos%2Bava1-l14-linearMSE.pth"
)
IMPROVED_DIGEST = "21dd590f3ccdc646f0d53120778b296013b096a035a2718c9cb0d511bff0f1e0"
LAYERS = (0, 2, 4, 6, 7)  # of the improved predictor that are linear; between them was dropout, and no activation
WIDTHS = (1024, 128, 64, 16, 1)


class Aesthetic(Reward):
    """How beautiful people would find the image, whatever its prompt: LAION's predictors on CLIP features.

    About 1 to 10, the scale of the ratings they were trained on; most pictures get 4 to 7. Version 1 is one linear
    layer, version 2 ("improved", trained on SAC, Logos and AVA) five linear layers; both take the unit feature of
    OpenAI's CLIP ViT-L/14. Version 2 is the one that most papers report.

    Args:
        version: 2 or 1.
        weights: sac+logos+ava1-l14-linearMSE.pth (version 1: sa_0_4_vit_l_14_linear.pth) from the authors' repository,
            or the folder that holds it; ``None`` takes torch's cache, and downloads it (4 MB) on first use. The file
            has to fit the width of the CLIP's features.
        model: The CLIP, as for ``clip``: version 2 was trained on OpenAI's ViT-L/14 only, version 1 also exists for
            its ViT-B/32 ("openai/clip-vit-base-patch32") and ViT-B/16.
        dtype: In what CLIP calculates: "float32", "bfloat16" or "float16". The predictor is float32.
    """

    def __init__(
        self, version: int = 2, weights: str | None = None, model: str = MODEL, dtype: str = "float32"
    ) -> None:
        if version not in (1, 2):
            raise RewardError(f"version is 1 or 2, not {version!r}", reward=self.name)
        self.encoder = Encoder(model, dtype=dtype)
        width, patch = self.encoder.network.width, self.encoder.network.patch
        url, digest = IMPROVED, IMPROVED_DIGEST
        if version == 1:
            name, digest = LINEAR_HEADS.get((width, patch), LINEAR_HEADS[768, 14])
            url = LINEAR.format(name)
        if weights is None and (width, patch) not in (LINEAR_HEADS if version == 1 else [(768, 14)]):
            raise RewardError(
                f"there is no published predictor of version {version} for {model}, whose features are {width} wide: "
                f"take {MODEL}, or give a file of your own as `weights`",
                reward=self.name,
            )
        self.path = published_file(weights, url, digest)
        self.layers = (_linear if version == 1 else _improved)(read_weights(self.path), width, self.path)

    def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> Tensor:
        """Judge each image; prompts do not matter."""
        values = self.encoder.images(images)
        for weight, bias in self.layers:
            values = linear(values, weight, bias)
        return values[:, 0]

    def move(self, device: torch.device) -> None:
        """Move the CLIP model; the predictor is small, and stays where the features arrive."""
        self.encoder.move(device)

    def identity(self) -> list[str]:
        """Fingerprints of CLIP's weights and of the predictor's."""
        return [self.encoder.fingerprint, fingerprint(self.path), code_fingerprint("weights")]

    @classmethod
    def missing(cls) -> str:
        """Which of the published files are not in the caches yet."""
        if missing := uncached(MODEL, "model.safetensors", "1.7 GB"):
            return missing
        name = IMPROVED.rpartition("/")[2].replace("%2B", "+")
        there = (Path(torch.hub.get_dir()) / "checkpoints" / name).is_file()
        return "" if there else f"{name} (4 MB) is not here yet: downloaded on first use"


def _linear(tensors: Mapping[str, Tensor], width: int, path: Path) -> list[tuple[Tensor, Tensor]]:
    check_tensors(tensors, {"weight": (1, width), "bias": (1,)}, path, f"LAION's predictor 1 for features {width} wide")
    return [(tensors["weight"].float().clone(), tensors["bias"].float().clone())]


def _improved(tensors: Mapping[str, Tensor], width: int, path: Path) -> list[tuple[Tensor, Tensor]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for layer, rows, columns in zip(LAYERS, WIDTHS, (width, *WIDTHS), strict=False):
        shapes |= {f"layers.{layer}.weight": (rows, columns), f"layers.{layer}.bias": (rows,)}
    kind = "LAION's predictor 2 (linearMSE)"
    if any(re.fullmatch(r"layers\.[35]\..*", name) for name in tensors):
        kind += ", which has no activations; this looks like the reluMSE variant, which it is not"
    check_tensors(tensors, shapes, path, f"{kind} for features {width} wide")
    return [
        (tensors[f"layers.{layer}.weight"].float().clone(), tensors[f"layers.{layer}.bias"].float().clone())
        for layer in LAYERS
    ]
