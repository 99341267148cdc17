"""Drawn pictures against a folder of real ones, in the features of a reward that has some."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps

from pagopt.distribution import Interval, Manifold, bootstrap, frechet_distance, precision_recall_density_coverage
from pagopt.errors import PagoptError, RewardError, StudyError
from pagopt.reward import FunctionReward, Reward

__all__ = ["FEWEST", "Distance", "Distances", "Extractor", "first_extractor", "measure", "read_references"]

FEWEST = 6
"""Pictures on either side; balls reach to the fifth neighbour."""

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"}
AT_ONCE = 32


@dataclass(frozen=True)
class Distance:
    """How far a method's pictures are from the reference.

    Attributes:
        method: The method.
        frechet: Frechet distance of the features, with a 95 % interval that has the bias of small samples taken out,
            which the value keeps, so that it lies lower.
        manifold: Precision, recall, density and coverage.
    """

    method: str
    frechet: Interval
    manifold: Manifold


@dataclass(frozen=True)
class Distances:
    """All of them, and what they were measured with.

    Attributes:
        features: The reward whose features these are.
        width: Length of a feature vector.
        references: Number of reference pictures.
        methods: One for each method.
        differences: For each recipe its Frechet distance minus that of another method, as "recipe - other": below 0 the
            recipe is nearer.
    """

    features: str
    width: int
    references: int
    methods: tuple[Distance, ...]
    differences: dict[str, Interval]


class Extractor:
    """Features of pictures, by a reward that offers ``features(images)``: float numbers of shape ``(n, d)``.

    Args:
        reward: The reward.

    Raises:
        RewardError: If it offers none.
    """

    def __init__(self, reward: Reward) -> None:
        method = features_of(reward)
        if method is None:
            raise RewardError(
                f"the reward {reward.name!r} has no features to measure distances in: it needs a method "
                "features(images) that gives n vectors. Of the shipped ones `judge`, `clip`, `hps` and `pickscore` "
                "have it",
                reward=reward.name,
            )
        self.reward = reward
        self._features: Callable[[Sequence[Image.Image]], Any] = method

    def __call__(self, images: Sequence[Image.Image], device: torch.device) -> NDArray[np.float64]:
        """Features of RGB pictures, shape ``(n, d)``.

        Raises:
            RewardError: If the reward gives something else.
        """
        self.reward.move(device)
        parts = []
        for start in range(0, len(images), AT_ONCE):
            some = list(images[start : start + AT_ONCE])
            with torch.no_grad():
                given = self._features(some)
            part = np.asarray(given.detach().cpu().float() if isinstance(given, torch.Tensor) else given, np.float64)
            if part.ndim != 2 or len(part) != len(some) or not np.isfinite(part).all():
                raise RewardError(
                    f"features of reward {self.reward.name!r} have the shape {part.shape} for {len(some)} pictures: it "
                    "takes one vector of finite numbers for each",
                    reward=self.reward.name,
                )
            parts.append(part)
        return np.concatenate(parts)


def features_of(reward: Reward) -> Callable[..., Any] | None:
    """Its features, if it offers any; of an object that serves as a reward, the object's."""
    inside = reward.function if isinstance(reward, FunctionReward) else None
    for thing in (reward, inside):
        method = getattr(thing, "features", None)
        if callable(method):
            return method  # type: ignore[no-any-return]
    return None


def first_extractor(rewards: Mapping[str, Reward], searched: Collection[str]) -> Extractor | None:
    """Features by the first reward that has some; ``None`` where none has.

    Args:
        rewards: By label, in the order in which they were given.
        searched: Labels of those that a search maximised. They come last: what guidance was tuned for, it was tuned for
            in their features.
    """
    for reward in (rewards[label] for label in sorted(rewards, key=lambda label: label in searched)):
        if features_of(reward) is not None:
            return Extractor(reward)
    return None


def read_references(folder: str | Path) -> list[Image.Image]:
    """All pictures in a folder and in folders within it, in the order of their names, RGB, upright, on white.

    Raises:
        StudyError: If the folder or a picture cannot be read, or there are too few.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise StudyError(f"--reference takes a folder of pictures, and {folder} is none")
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))
    if len(files) < FEWEST:
        raise StudyError(
            f"{folder} holds {len(files)} pictures ({', '.join(sorted(SUFFIXES))}); distances take at least {FEWEST}, "
            "and mean little below some hundreds"
        )
    return [_read(file) for file in files]


def measure(
    extractor: Extractor,
    references: Sequence[Image.Image],
    drawn: Mapping[str, Sequence[Image.Image]],
    prompts: int,
    pairs: Sequence[tuple[str, str]],
    device: torch.device,
) -> Distances:
    """Distances of all methods, and differences of some.

    Args:
        extractor: Gives the features.
        references: Real pictures, at least ``FEWEST``.
        drawn: The pictures of each method, prompt by prompt, equally many of each.
        prompts: How many prompts; a prompt is drawn again with all its pictures.
        pairs: Recipe and other method, whose distances are compared.
        device: Where to compute features.

    Raises:
        StudyError: If there are too few drawn pictures.
        RewardError: If the reward fails.
    """
    count = len(next(iter(drawn.values())))
    if count < FEWEST:
        raise StudyError(f"distances take at least {FEWEST} tasks, and there are {count}: give more prompts or seeds")
    try:
        real = extractor(references, device)
        # Of a single prompt the pictures are what is drawn again.
        groups = prompts if prompts > 1 else count
        sets = {name: extractor(images, device).reshape(groups, count // groups, -1) for name, images in drawn.items()}
    except PagoptError:
        raise
    except Exception as error:
        raise RewardError(
            f"features of reward {extractor.reward.name!r} failed: {type(error).__name__}: {error}",
            reward=extractor.reward.name,
        ) from error
    width = real.shape[1]
    # A distance takes time for the third power of the smaller one.
    repeats = 200 if min(count, width) <= 256 else 50

    def frechet(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
        return frechet_distance(a, b.reshape(-1, width))

    def gap(a: NDArray[np.float64], b: NDArray[np.float64], c: NDArray[np.float64]) -> float:
        return frechet(a, b) - frechet(a, c)

    methods = tuple(
        Distance(
            name,
            bootstrap(frechet, real, paired=(features,), repeats=repeats),
            precision_recall_density_coverage(real, features.reshape(-1, width), k=FEWEST - 1),
        )
        for name, features in sets.items()
    )
    differences = {
        f"{one} - {other}": bootstrap(gap, real, paired=(sets[one], sets[other]), repeats=repeats)
        for one, other in pairs
    }
    return Distances(extractor.reward.name, width, len(references), methods, differences)


def _read(file: Path) -> Image.Image:
    try:
        with Image.open(file) as image:
            layer = ImageOps.exif_transpose(image).convert("RGBA")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise StudyError(f"cannot read the reference picture {file}: {error}. Mend it, or take it away") from error
    return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
