"""PickScore: Kirstain et al., "Pick-a-Pic: An Open Dataset of User Preferences", NeurIPS 2023 (arXiv 2305.01569).

The authors' code: https://github.com/yuvalkirstain/PickScore (MIT).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from pagopt.errors import RewardError
from pagopt.reward import Reward
from pagopt_rewards.encoder import Encoder
from pagopt_rewards.vocabulary import tokenizer_files
from pagopt_rewards.weights import uncached

__all__ = ["PickScore"]

MODEL, FILE = "yuvalkirstain/PickScore_v1", "model.safetensors"
PROCESSOR = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"


class PickScore(Reward):
    """How much people prefer the image for its prompt: a CLIP ViT-H/14 tuned on half a million of their choices.

    exp(logit_scale) x cosine similarity, which is 100 x in the published weights: from -100 to 100, pictures of today's
    models about 18 to 24. Scores of one prompt are comparable: exp(a) / (exp(a) + exp(b)) is the share of people who
    are expected to choose a. The picture is resized to 224 on its shorter side and cropped to the middle.

    Args:
        weights: A folder with the files of https://huggingface.co/yuvalkirstain/PickScore_v1 (config.json,
            model.safetensors), or that model.safetensors; ``None`` takes the hub's cache, and downloads them (3.9 GB)
            on first use.
        processor: A folder with the tokenizer and preprocessor_config.json of
            https://huggingface.co/laion/CLIP-ViT-H-14-laion2B-s32B-b79K, which the authors use; ``None`` takes those in
            the folder of the weights, else those on the hub.
        dtype: In what the network calculates: "float32" (the authors' numbers), "bfloat16" or "float16".

    Raises:
        RewardError: If a file is not there, or holds another model.
    """

    reads_prompts = True

    def __init__(self, weights: str | None = None, processor: str | None = None, dtype: str = "float32") -> None:
        model = MODEL
        if weights is not None:
            path = Path(weights).expanduser()
            if not path.exists():
                raise RewardError(
                    f"there is no checkpoint {path}. Download config.json and model.safetensors from "
                    f"https://huggingface.co/{MODEL} and give the folder that holds them.",
                    reward=self.name,
                )
            if path.is_file() and path.name != FILE:
                raise RewardError(
                    f"the weights are {FILE} beside a config.json, not {path.name}: give a folder of its own to each "
                    "checkpoint, with these names in it",
                    reward=self.name,
                )
            model = str(path.parent if path.is_file() else path)
        beside = weights is not None and bool(tokenizer_files(Path(model)))
        # transformers' crop, since the authors' numbers came through its processor.
        self.encoder = Encoder(
            model, dtype=dtype, processor=processor or (None if beside else PROCESSOR), rounding="transformers"
        )

    def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> Tensor:
        """Preference for each image, given its own prompt."""
        cosines = (self.encoder.images(images) * self.encoder.texts(prompts)).sum(dim=-1)
        return self.encoder.scale * cosines

    def features(self, images: Sequence[Image.Image]) -> Tensor:
        """What the model sees in images, before normalisation, float32 ``(n, d)``: for Frechet distances, say."""
        return self.encoder.features(images)

    def move(self, device: torch.device) -> None:
        """Move the CLIP model."""
        self.encoder.move(device)

    def identity(self) -> str:
        """Fingerprint of the weights."""
        return self.encoder.fingerprint

    @classmethod
    def missing(cls) -> str:
        """Which of the published files the hub's cache does not hold yet."""
        return uncached(MODEL, FILE, "3.9 GB") or uncached(PROCESSOR, "tokenizer_config.json")
