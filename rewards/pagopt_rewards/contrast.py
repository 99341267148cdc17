"""Text contrast: Wang et al., "Exploring CLIP for Assessing the Look and Feel of Images", AAAI 2023 (arXiv 2207.12396).

The authors' code: https://github.com/IceClear/CLIP-IQA. Theirs leaves out the position embedding of a ResNet-50 so that
it can take pictures whole; here any CLIP is used as it is, so numbers differ from theirs.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor

from pagopt.errors import RewardError
from pagopt.reward import Reward
from pagopt_rewards.encoder import Encoder
from pagopt_rewards.weights import uncached

__all__ = ["Contrast"]

MODEL = "openai/clip-vit-large-patch14"
PAIRS = (("Good photo.", "Bad photo."),)


class Contrast(Reward):
    """Which of two opposite texts the image is nearer to, as a probability from 0 to 1; 0.5 is undecided.

    The softmax over exp(logit_scale) x cosine similarity with the two texts, its first part; of several pairs the mean.
    Prompts do not matter.

    Args:
        pairs: The texts, wanted and unwanted: [["Good photo.", "Bad photo."], ["Sharp image.", "Blurry image."]].
        model: The CLIP, as for ``clip``. The embedded scorer knows names of styles and things, and no qualities.
        weights: A local checkpoint for "open_clip:NAME".
        dtype: In what the network calculates: "float32", "bfloat16" or "float16".
    """

    def __init__(
        self,
        pairs: Sequence[Sequence[str]] = PAIRS,
        model: str = MODEL,
        weights: str | None = None,
        dtype: str = "float32",
    ) -> None:
        self.pairs = _checked(pairs)
        self.encoder = Encoder(model, weights, dtype)

    def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> Tensor:
        """Probability of the first text of each pair, averaged over the pairs."""
        texts = self.encoder.texts([text for pair in self.pairs for text in pair])
        logits = self.encoder.scale * self.encoder.images(images) @ texts.T
        chosen: Tensor = logits.view(len(images), len(self.pairs), 2).softmax(dim=-1)[..., 0]
        return chosen.mean(dim=1)

    def move(self, device: torch.device) -> None:
        """Move the CLIP model."""
        self.encoder.move(device)

    def identity(self) -> str:
        """Fingerprint of the weights."""
        return self.encoder.fingerprint

    @classmethod
    def missing(cls) -> str:
        """Which of the published files the hub's cache does not hold yet."""
        return uncached(MODEL, "model.safetensors", "1.7 GB")


def _checked(pairs: Sequence[Sequence[str]]) -> list[tuple[str, str]]:
    found = []
    for pair in [pairs] if isinstance(pairs, str) else pairs:
        # A pair written without its outer list would be two texts of letters.
        if isinstance(pair, str) or len(pair) != 2 or not all(isinstance(text, str) for text in pair):
            raise RewardError(f'pairs is a list of pairs of texts, [["Good photo.", "Bad photo."]], not {pairs!r}')
        if pair[0] == pair[1]:
            raise RewardError(f"the two texts of a pair must differ, and both are {pair[0]!r}")
        found.append((pair[0], pair[1]))
    if not found:
        raise RewardError("pairs is empty: it takes at least one pair of opposite texts")
    return found
