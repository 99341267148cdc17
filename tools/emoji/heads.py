"""What every head of the embedded model does: `python -m tools.emoji.heads`.

An atlas (`pagopt atlas`) over prompts that the model was trained on, for docs/emoji.md. Resumable: it lies in the
folder `heads` of the build folder.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
from jsonargparse import auto_cli

from pagopt.atlas import Atlas, run_atlas
from pagopt.atlas.run import FILES
from pagopt.cli.atlas import show
from pagopt.errors import StudyError
from pagopt.reward import RewardSpec
from tools.emoji import artwork
from tools.emoji.captions import caption, name_of
from tools.emoji.train import Build

__all__ = ["choose_prompts", "heads"]


def choose_prompts(
    styles: Sequence[str], names: Sequence[str], absent: Collection[tuple[int, int]], count: int, seed: int
) -> list[str]:
    """Prompts "style, name": styles in turn, every name at most once, no pair of `absent`.

    Args:
        styles: Style words.
        names: Concept names.
        absent: (style, name) pairs, as indices, to leave out.
        count: Number of prompts, at least 2.
        seed: Of the choice of names.

    Raises:
        StudyError: If there are too few names for `count`, or it is below 2.
    """
    if count < 2:
        raise StudyError(f"a paired test takes at least 2 prompts, not {count}")
    left = np.random.default_rng(seed).permutation(len(names)).tolist()
    prompts = []
    for number in range(count):
        style = number % len(styles)
        at = next((place for place, name in enumerate(left) if (style, name) not in absent), None)
        if at is None:
            raise StudyError(f"only {number} of {count} prompts can have a name of their own: take fewer")
        prompts.append(caption(styles[style], names[left.pop(at)]))
    return prompts


def heads(
    build: Build | None = None,
    prompts: int = 40,
    first: tuple[str, ...] = ("flat, red apple", "glossy, cat face"),
    steps: int = 12,
    seed: int = 11,
    pictures: Path = Path("docs/emoji-heads.png"),
    effects: Path = Path("docs/emoji-effects.png"),
    batch_size: int = 57,
) -> None:
    """Draw, measure and print. Classifier-free guidance is off.

    Args:
        build: Folders and concepts, as in training.
        prompts: How many, beside those that are shown.
        first: The prompts whose pictures are shown.
        steps: Steps of the sampler.
        seed: Of the choice of prompts and of the noise.
        pictures: PNG file of what every head draws.
        effects: PNG file of what it changes.
        batch_size: Pictures drawn at once.
    """
    build = build or Build()
    icons, styles = artwork.concepts(build.concepts), list(artwork.STYLES)
    names = [name_of(icon) for icon in icons]
    chosen = choose_prompts(styles, names, set(artwork.held_out(icons).from_model()), prompts, seed)
    scorer = {"model": str(build.model / "scorer")}
    atlas = Atlas(
        prompts=list(dict.fromkeys([*first, *chosen])),
        model=str(build.model / "pipeline"),
        rewards=[RewardSpec("style", args=scorer), RewardSpec("clip", args=scorer), "colorfulness"],
        steps=steps,
        first_seed=seed * 10_000,
    )
    out = build.folder / "heads"
    found = run_atlas(atlas, out, batch_size=batch_size, trainer={"devices": 1})
    shutil.copyfile(out / FILES["pictures"], pictures)
    shutil.copyfile(out / FILES["effects"], effects)
    show(found, out)


if __name__ == "__main__":
    auto_cli(heads, as_positional=False)
