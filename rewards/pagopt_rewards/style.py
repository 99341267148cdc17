"""Style contrast: how much more an image looks like one style than like the others."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from pagopt.errors import PagoptError, RewardError, UnknownName
from pagopt.reward import Reward
from pagopt_rewards.encoder import Encoder, model_folder

__all__ = ["Style"]


class Style(Reward):
    """How much the image is in a style: CLIP similarity to the style's text minus the mean over the other styles.

    100 x a difference of cosines, from -200 to 200; above 0 the style is nearer than the others are on average.

    Args:
        style: One of the styles; ``None`` takes the one that each prompt names (the first, if it names several).
        styles: The texts to tell apart, at least two: ["flat paper cut", "photo", "3d render"]. ``None`` takes the
            model's own, from styles.json in or beside its folder.
        model: As for ``clip``.
    """

    def __init__(self, style: str | None = None, styles: Sequence[str] | None = None, model: str = "emoji") -> None:
        self.encoder = Encoder(model)
        self.styles = list(styles) if styles is not None else _styles_of(self.encoder.folder, model)
        if isinstance(styles, str) or len(set(self.styles)) < max(2, len(self.styles)):
            raise RewardError(f"styles must be a list of two or more different texts, not {styles!r}", reward=self.name)
        if style is not None and style not in self.styles:
            raise UnknownName("style", style, self.styles, "Give other ones to tell apart with `styles`.")
        self.style = style

    def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> Tensor:
        """Contrast of each image for its own style."""
        wanted = torch.tensor([self._index(prompt, at) for at, prompt in enumerate(prompts)])
        cosines = self.encoder.images(images) @ self.encoder.texts(self.styles).T
        own = cosines.gather(1, wanted[:, None])[:, 0]
        return 100 * (own - (cosines.sum(dim=1) - own) / (len(self.styles) - 1))

    def move(self, device: torch.device) -> None:
        """Move the CLIP model."""
        self.encoder.move(device)

    def identity(self) -> list[object]:
        """Fingerprint of the weights, and the styles that were told apart."""
        return [self.encoder.fingerprint, self.styles]

    @classmethod
    def missing(cls) -> str:
        """Whether the embedded scorer and its styles are there."""
        try:
            _styles_of(model_folder("emoji"), "emoji")
        except PagoptError as error:
            return str(error)
        return ""

    def _index(self, prompt: str, at: int) -> int:
        if self.style is not None:
            return self.styles.index(self.style)
        found = []
        for index, style in enumerate(self.styles):
            match = re.search(rf"(?<!\w){re.escape(style)}(?!\w)", prompt, re.IGNORECASE)
            if match:
                found.append((match.start(), -len(style), index))
        if not found:
            raise RewardError(
                f"the prompt {prompt!r} names no style. Put one of {', '.join(self.styles)} into it, or choose one for "
                "all prompts with the reward's argument `style`.",
                index=at,
                prompt=prompt,
            )
        return min(found)[2]


def _styles_of(folder: Path, model: str) -> list[str]:
    for path in (folder / "styles.json", folder.parent / "styles.json"):
        if path.is_file():
            try:
                return [str(style) for style in json.loads(path.read_text(encoding="utf-8"))["styles"]]
            except (ValueError, KeyError, TypeError) as error:
                raise RewardError(f'{path} is damaged ({error!r}); it should be {{"styles": [...]}}') from error
    raise RewardError(f"the model {model!r} brings no styles.json, so `styles` must list the texts to tell apart")
