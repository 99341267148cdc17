"""Which of several named styles an image is in, by texts or by example pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from pagopt.errors import PagoptError, RewardError, UnknownName
from pagopt.reward import Reward
from pagopt_rewards.encoder import Encoder, model_folder
from pagopt_rewards.examples import read_examples
from pagopt_rewards.reference import leave_one_out
from pagopt_rewards.style import named_style, own_styles, texts_of
from pagopt_rewards.weights import code_fingerprint

__all__ = ["Classifier", "fitted_scale"]

HIGHEST_SCALE = 1000.0


class Classifier(Reward):
    """How surely the image is in one of several named styles: the natural log of its probability, 0 at most.

    The log of 1 / (number of styles) is a guess; the log, because probabilities near 0 and 1 would look alike.
    A style's logit is a scale times the mean cosine similarity of the image to the style's texts, or to its example
    pictures (then in the features of ``reference``). For texts the scale is the CLIP's own. For examples it is fitted:
    the one number that makes the examples, each compared with the others only, most likely, with Platt's smoothed
    targets (an example of n is of its style with probability (n + 1) / (n + 2); Platt 1999), so that styles that are
    told apart perfectly do not end in certainty. One number, since three pictures a style would not determine more:
    a logistic regression has one for each feature.

    Args:
        style: One of the names; ``None`` takes the one that each prompt names (the first, if it names several).
        styles: The styles as texts: a list, ["flat", "ink"], or names with a text or several each,
            {paper: [flat paper cut, layered paper], photo: photograph}. ``None``, without ``examples``, takes the
            model's own.
        examples: The styles as pictures instead: names with a folder, or a list of files, of 3 to 20 pictures each.
        model: As for ``clip``.
        weights: A local checkpoint for "open_clip:NAME".
        dtype: In what the network calculates: "float32", "bfloat16" or "float16".

    Raises:
        RewardError: For fewer than two styles, unreadable pictures, or examples that the model cannot tell apart.
        UnknownName: For a style that is none of the names.
    """

    def __init__(
        self,
        style: str | None = None,
        styles: Sequence[str] | Mapping[str, str | Sequence[str]] | None = None,
        examples: Mapping[str, str | Sequence[str]] | None = None,
        model: str = "emoji",
        weights: str | None = None,
        dtype: str = "float32",
    ) -> None:
        if styles is not None and examples is not None:
            raise RewardError(
                "give the styles as texts (`styles`) or as pictures (`examples`); for both, use two rewards in one list"
            )
        self.pixels: dict[str, list[str]] = {}
        if examples is not None:
            names = _names(examples, "examples")
            read = [read_examples(examples[name], f"examples: {name}") for name in names]
            self.pixels = {name: pictures.digests() for name, pictures in zip(names, read, strict=True)}
            _no_picture_twice(self.pixels)
            self.encoder = Encoder(model, weights, dtype)
            classes = [pictures.features(self.encoder, projected=False) for pictures in read]
            self.scale = fitted_scale(classes)
        else:
            self.encoder = Encoder(model, weights, dtype)
            given = own_styles(self.encoder.folder, model) if styles is None else styles
            names = _names(given, "styles")
            texts = [given[name] if isinstance(given, Mapping) else name for name in names]
            prompts = [texts_of(text, f"styles: {name}") for name, text in zip(names, texts, strict=True)]
            with torch.no_grad():
                classes = [self.encoder.texts(some) for some in prompts]
            self.scale = self.encoder.scale
        self.names = names
        self.means = torch.stack([each.mean(dim=0) for each in classes])
        if style is not None and style not in names:
            raise UnknownName("style", str(style), names)
        self.style = style

    def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> Tensor:
        """Log-probability of each image's own style."""
        wanted = torch.tensor([self._index(prompt, at) for at, prompt in enumerate(prompts)])
        logits = self.scale * self.encoder.images(images, projected=not self.pixels) @ self.means.T
        return logits.log_softmax(dim=1).gather(1, wanted[:, None])[:, 0]

    def check_prompts(self, prompts: Sequence[str]) -> None:
        """Each has to name a style, unless one is asked for."""
        for at, prompt in enumerate(prompts):
            self._index(prompt, at)

    def move(self, device: torch.device) -> None:
        """Move the CLIP model."""
        self.encoder.move(device)

    def identity(self) -> list[object]:
        """Fingerprint of the weights, names, digests of the examples' pixels, and the code they go through."""
        return [self.encoder.fingerprint, self.names, self.pixels, code_fingerprint("examples", "reference", "style")]

    @classmethod
    def missing(cls) -> str:
        """Whether the embedded scorer and its styles are there."""
        try:
            own_styles(model_folder("emoji"), "emoji")
        except PagoptError as error:
            return str(error)
        return ""

    def _index(self, prompt: str, at: int) -> int:
        return self.names.index(self.style) if self.style is not None else named_style(prompt, self.names, at)


def fitted_scale(classes: Sequence[Tensor]) -> float:
    """The scale of mean cosines that makes examples most likely, each left out of its own class; classes count alike.

    Args:
        classes: Unit vectors of each class, float32 ``(n, d)``, n of 2 or more.

    Raises:
        RewardError: If no scale is better than a guess.
    """
    from scipy.optimize import minimize_scalar

    cosines, targets, counts = [], [], []
    for own, seen in enumerate(classes):
        rows = torch.stack(
            [leave_one_out(seen) if k == own else seen @ c.mean(dim=0) for k, c in enumerate(classes)], 1
        )
        target = np.full((len(seen), len(classes)), 1 / (len(seen) + 2) / (len(classes) - 1))
        target[:, own] = (len(seen) + 1) / (len(seen) + 2)
        cosines.append(rows.double().numpy())
        targets.append(target)
        counts.append(np.full(len(seen), 1 / len(seen)))
    table, target, share = np.concatenate(cosines), np.concatenate(targets), np.concatenate(counts)

    def surprise(scale: float) -> Any:
        return -(share * (target * _log_softmax(scale * table)).sum(axis=1)).sum() / len(classes)

    # Convex in one number, so bounded search finds its minimum.
    scale = float(minimize_scalar(surprise, bounds=(0.0, HIGHEST_SCALE), method="bounded", options={"xatol": 1e-6}).x)
    if surprise(scale) > np.log(len(classes)) - 1e-3:
        raise RewardError(
            "the model cannot tell the example pictures of the styles apart: left out one by one, they are no "
            "nearer to their own style than to the others. Give more pictures, clearer ones, or another model."
        )
    return scale


def _log_softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    shifted = logits - logits.max(axis=1, keepdims=True)
    result: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return result


def _names(given: object, argument: str) -> list[str]:
    """The names of the styles, in their order."""
    names = [] if isinstance(given, str) or not isinstance(given, (Mapping, Sequence)) else list(given)
    if argument == "examples" and not isinstance(given, Mapping):
        names = []
    if len(set(map(str, names))) < max(2, len(names)) or not all(isinstance(n, str) and n.strip() for n in names):
        kind = "names two or more styles, each with its" + (
            " pictures, {flat: folder, ink: folder}" if argument == "examples" else " text, or lists them"
        )
        raise RewardError(f"`{argument}` {kind}, not {given!r}")
    return names


def _no_picture_twice(pixels: Mapping[str, Sequence[str]]) -> None:
    home: dict[str, str] = {}
    for name, digests in pixels.items():
        for digest in digests:
            if digest in home:
                raise RewardError(f"a picture is in the examples both of {home[digest]!r} and of {name!r}")
            home[digest] = name
