"""CLIP score: Hessel et al., "CLIPScore", EMNLP 2021 (arXiv 2104.08718), unclipped."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor

from pagopt.errors import PagoptError
from pagopt.reward import Reward
from pagopt_rewards.encoder import Encoder, model_folder

__all__ = ["Clip"]


class Clip(Reward):
    """How well the image fits its prompt: 100 x cosine similarity in a CLIP model, from -100 to 100.

    The scale of the usual "CLIP score"; values below 0 are kept, since a search can tell them apart. Photographs with
    their captions reach about 25 to 35 in OpenAI's models.

    Args:
        model: "emoji" (the embedded scorer, for the embedded model's pictures), a folder with a transformers
            ``CLIPModel``, its id on the Hugging Face hub, or "open_clip:NAME/TAG"; see :class:`Encoder`.
        weights: A local checkpoint for "open_clip:NAME".
        dtype: In what the network calculates: "float32", "bfloat16" or "float16".
    """

    reads_prompts = True

    def __init__(self, model: str = "emoji", weights: str | None = None, dtype: str = "float32") -> None:
        self.encoder = Encoder(model, weights, dtype)

    def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> Tensor:
        """Similarity of each image to its own prompt."""
        return 100 * (self.encoder.images(images) * self.encoder.texts(prompts)).sum(dim=-1)

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
        """Whether the embedded scorer is there."""
        try:
            model_folder("emoji")
        except PagoptError as error:
            return str(error)
        return ""
