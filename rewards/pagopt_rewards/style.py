"""Style contrast: how much more an image looks like one style than like the others, by the words of a CLIP."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from pagopt.errors import PagoptError, RewardError, UnknownName
from pagopt.reward import Reward
from pagopt_rewards.encoder import Encoder, model_folder

__all__ = ["Style", "named_style", "own_styles", "texts_of"]


class Style(Reward):
    """How much the image is in a style: CLIP similarity to the style's text minus the mean over the other styles.

    100 x a difference of cosines, from -200 to 200; above 0 the style is nearer than the others are on average. What is
    to be avoided is subtracted: 100 x ``avoid_weight`` x its mean cosine. Several texts of one side are averaged.

    Args:
        style: With ``against`` any text, or several: "flat paper cut", ["flat paper cut", "layered paper"]. Without,
            one of ``styles``; ``None`` takes the one that each prompt names (the first, if it names several).
        styles: The texts to tell apart, at least two: ["flat paper cut", "photo", "3d render"]. ``None`` takes the
            model's own, from styles.json in or beside its folder.
        model: As for ``clip``. The embedded scorer knows its own styles only: other words need another model.
        against: What the style is told from, a text or several: ["photo", "3d render"]. It takes the place of
            ``styles``, and all prompts are scored for ``style``.
        avoid: What else should not be seen, a text or several: ["blurry", "text"].
        avoid_weight: How much that counts, beside the 1 of the style; above 0.
        weights: A local checkpoint for "open_clip:NAME".
        dtype: In what the network calculates: "float32", "bfloat16" or "float16".

    Raises:
        RewardError: For texts that are empty, equal, or on both sides.
        UnknownName: For a style that is none of ``styles``.
    """

    def __init__(
        self,
        style: str | Sequence[str] | None = None,
        styles: Sequence[str] | None = None,
        model: str = "emoji",
        against: str | Sequence[str] | None = None,
        avoid: str | Sequence[str] | None = None,
        avoid_weight: float = 0.5,
        weights: str | None = None,
        dtype: str = "float32",
    ) -> None:
        self.avoid = [] if avoid is None else texts_of(avoid, "avoid")
        if not (math.isfinite(avoid_weight) and avoid_weight > 0):
            raise RewardError(
                f"avoid_weight is a finite number above 0, not {avoid_weight}; leave out `avoid` for none"
            )
        self.avoid_weight = avoid_weight
        if against is not None:
            if styles is not None:
                raise RewardError("give `against` or `styles`, not both: each says what the style is told from")
            if style is None:
                raise RewardError(
                    "`against` needs a `style`: the texts to be nearer to. To take it from each prompt, list `styles`."
                )
            self.wanted, self.against = texts_of(style, "style"), texts_of(against, "against")
        elif style is not None and not isinstance(style, str):
            raise RewardError(f"several texts for one style, {list(style)}, need `against`: texts to tell them from")
        else:
            self.wanted, self.against = [], []
        self._disjoint([style] if isinstance(style, str) else self.wanted)
        self.encoder = Encoder(model, weights, dtype)
        self.styles: list[str] = []
        if against is None:
            self.styles = own_styles(self.encoder.folder, model) if styles is None else texts_of(styles, "styles")
            if len(self.styles) < 2:
                raise RewardError(f"`styles` is a list of two or more different texts, not {styles!r}")
            if style is not None and style not in self.styles:
                raise UnknownName(
                    "style", str(style), self.styles, "Give texts of your own to tell it from: `against`."
                )
        self.style = style

    def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> Tensor:
        """Contrast of each image for its own style."""
        seen = self.encoder.images(images)
        if self.against:
            own = self._mean(seen, self.wanted)
            contrast = own - self._mean(seen, self.against)
        else:
            wanted = torch.tensor([self._index(prompt, at) for at, prompt in enumerate(prompts)])
            cosines = seen @ self.encoder.texts(self.styles).T
            own = cosines.gather(1, wanted[:, None])[:, 0]
            contrast = own - (cosines.sum(dim=1) - own) / (len(self.styles) - 1)
        if self.avoid:
            contrast = contrast - self.avoid_weight * self._mean(seen, self.avoid)
        return 100 * contrast

    def check_prompts(self, prompts: Sequence[str]) -> None:
        """Each has to name a style, unless one is asked for."""
        if not self.against:
            for at, prompt in enumerate(prompts):
                self._index(prompt, at)

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
            own_styles(model_folder("emoji"), "emoji")
        except PagoptError as error:
            return str(error)
        return ""

    def _disjoint(self, wanted: Sequence[str]) -> None:
        for name, texts in (("against", self.against), ("avoid", self.avoid)):
            for text in wanted:
                if text in texts:
                    raise RewardError(f"{text!r} is both in `style` and in `{name}`, so it would cancel out")

    def _mean(self, seen: Tensor, texts: Sequence[str]) -> Tensor:
        return (seen @ self.encoder.texts(texts).T).mean(dim=1)

    def _index(self, prompt: str, at: int) -> int:
        if isinstance(self.style, str):
            return self.styles.index(self.style)
        return named_style(prompt, self.styles, at)


def texts_of(given: object, name: str) -> list[str]:
    """One text or several as a list.

    Raises:
        RewardError: If there is none, one is empty, or two are equal; ``name`` is the argument's.
    """
    texts = [given] if isinstance(given, str) else list(given) if isinstance(given, Sequence) else []
    if not texts or not all(isinstance(text, str) and text.strip() for text in texts) or len(set(texts)) < len(texts):
        raise RewardError(f"`{name}` is a text or a list of different texts, none of them empty, not {given!r}")
    return texts


def named_style(prompt: str, styles: Sequence[str], at: int) -> int:
    """Index of the style that a prompt names as a whole word, in any case: the first, the longer one of two.

    Raises:
        RewardError: If it names none; ``at`` is the prompt's place in its batch.
    """
    found = []
    for index, style in enumerate(styles):
        match = re.search(rf"(?<!\w){re.escape(style)}(?!\w)", prompt, re.IGNORECASE)
        if match:
            found.append((match.start(), -len(style), index))
    if not found:
        raise RewardError(
            f"the prompt {prompt!r} names no style. Put one of {', '.join(styles)} into it, or choose one for "
            "all prompts with the reward's argument `style`.",
            index=at,
            prompt=prompt,
        )
    return min(found)[2]


def own_styles(folder: Path, model: str) -> list[str]:
    """The styles that a model brings in styles.json, in or beside its folder.

    Raises:
        RewardError: If it brings none, or the file is damaged.
    """
    for path in (folder / "styles.json", folder.parent / "styles.json"):
        if path.is_file():
            try:
                return [str(style) for style in json.loads(path.read_text(encoding="utf-8"))["styles"]]
            except (ValueError, KeyError, TypeError) as error:
                raise RewardError(f'{path} is damaged ({error!r}); it should be {{"styles": [...]}}') from error
    raise RewardError(
        f"the model {model!r} brings no styles.json, so `styles` must list the texts to tell apart, or `against` say "
        "what `style` is told from"
    )
