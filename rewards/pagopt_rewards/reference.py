"""Nearness to example pictures, in features of a CLIP's image tower.

Features are those before the projection into the space shared with texts, as Radford et al. probe them (arXiv
2103.00020, appendix A.2): texts say little of a style, and the projection drops what they do not say.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor

from pagopt.errors import PagoptError, RewardError
from pagopt.reward import Reward
from pagopt_rewards.encoder import Encoder, model_folder
from pagopt_rewards.examples import FEWEST, read_examples
from pagopt_rewards.weights import code_fingerprint

__all__ = ["Reference", "leave_one_out"]

MOST_AGAINST = 100
SPREAD = 1e-5
"""Cosines; float32 features do not tell less."""


class Reference(Reward):
    """How near the image is to example pictures, in leave-one-out standard deviations of the examples.

    With s(x) the mean cosine similarity of x to the examples, minus that to the pictures of ``against`` if there are
    any, the score is (s(image) - m) / d. Here m and d are mean and standard deviation (ddof 1) over the examples of s
    of each, compared with the others only. So 0 is as near to the examples as they are to one another, on average;
    -1 is one standard deviation less. Above 0 lies what is nearer to their common centre than most of them. Unbounded.
    Prompts do not matter.

    Args:
        examples: A folder with 3 to 20 pictures, or a list of files. They should differ in all but what is wanted: a
            style in five contents, not one content five times.
        against: Pictures to be told from, 3 to 100: a folder or a list of files. Best: like contents in other styles.
        model: As for ``clip``: "emoji", the embedded scorer, knows emoji only.
        projected: Compare in the space that is shared with texts instead.
        weights: A local checkpoint for "open_clip:NAME".
        dtype: In what the network calculates: "float32", "bfloat16" or "float16".

    Raises:
        RewardError: If the pictures cannot be read, are too few or too many, or do not differ (no spread).
    """

    def __init__(
        self,
        examples: str | Sequence[str],
        against: str | Sequence[str] | None = None,
        model: str = "emoji",
        projected: bool = False,
        weights: str | None = None,
        dtype: str = "float32",
    ) -> None:
        wanted = read_examples(examples, "examples")
        other = None if against is None else read_examples(against, "against", FEWEST, MOST_AGAINST)
        self.pixels = [wanted.digests(), [] if other is None else other.digests()]
        both = set(self.pixels[0]) & set(self.pixels[1])
        if both:
            raise RewardError(
                f"{len(both)} of the pictures are both in `examples` and in `against`: take them out of one"
            )
        self.encoder = Encoder(model, weights, dtype)
        self.projected = projected
        # In float64: similarities differ in their last digits, and it is the differences that count.
        seen = wanted.features(self.encoder, projected).double()
        self.direction = seen.mean(dim=0)
        own = leave_one_out(seen)
        if other is not None:
            away = other.features(self.encoder, projected).double().mean(dim=0)
            self.direction -= away
            own -= seen @ away
        self.mean, self.deviation = float(own.mean()), float(own.std())
        if not self.deviation > SPREAD:
            raise RewardError(
                f"the {len(seen)} pictures of `examples` have no spread ({self.deviation:.1g} in cosine), so "
                "nothing says how near is near. Give pictures that differ in all but the style."
            )

    def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> Tensor:
        """Nearness of each image, whatever its prompt."""
        seen = self.encoder.images(images, self.projected).double()
        return (seen @ self.direction - self.mean) / self.deviation

    def move(self, device: torch.device) -> None:
        """Move the CLIP model."""
        self.encoder.move(device)

    def identity(self) -> list[object]:
        """Fingerprint of the weights, digests of the examples' pixels, and the code that reads them."""
        return [self.encoder.fingerprint, *self.pixels, code_fingerprint("examples")]

    @classmethod
    def missing(cls) -> str:
        """Whether the embedded scorer is there; the examples are yours to give."""
        try:
            model_folder("emoji")
        except PagoptError as error:
            return str(error)
        return ""


def leave_one_out(features: Tensor) -> Tensor:
    """Mean cosine similarity of each unit vector ``(n, d)`` to the others, ``(n,)``; n is 2 or more."""
    cosines = features @ features.T
    return (cosines.sum(dim=1) - cosines.diagonal()) / (len(features) - 1)
