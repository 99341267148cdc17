"""Do ``style``, ``reference`` and ``classifier`` put artwork of the right style above the wrong ones?

``python -m benchmarks.style_order``. For every concept and style the picture of that style is compared with those of
the same concept in each other style; a pair is in order if the right one has the higher score. Beside all pairs, those
whose right picture was kept from the training of the scorer are counted apart. Examples are drawn at random, for each
style and seed anew; pairs of a concept that is among them are left out.
"""

from __future__ import annotations

import argparse
import functools
import json
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from pagopt.reward import Reward, load_reward
from pagopt_rewards import encoder
from pagopt_rewards.encoder import Encoder
from tools.emoji.artwork import Artwork, concepts, held_out, load, render

__all__ = ["Gallery", "Share", "main"]

Scores = NDArray[np.float32]


@dataclass
class Share:
    """Ordered pairs of all, and the smallest share of one seed and style."""

    ordered: int = 0
    pairs: int = 0
    held_ordered: int = 0
    held_pairs: int = 0
    least: float = 1.0
    by_style: dict[str, list[int]] = field(default_factory=dict)

    def row(self, reward: str) -> dict[str, Any]:
        """As a line of the table."""
        return {
            "reward": reward,
            "ordered": self.ordered / self.pairs,
            "pairs": self.pairs,
            "held out": self.held_ordered / max(1, self.held_pairs),
            "held-out pairs": self.held_pairs,
            "least of a style and seed": self.least,
            **{style: ordered / pairs for style, (ordered, pairs) in self.by_style.items()},
        }


class Remembering(Encoder):
    """An encoder that looks at each picture of the gallery once: hundreds of rewards score the same pictures."""

    gallery: Gallery

    def images(self, images: Sequence[Image.Image], projected: bool = True) -> Tensor:
        """Unit vectors of pictures, remembered where they are of the gallery."""
        known = self.gallery.places(images)
        if known is None:
            return super().images(images, projected)
        if projected not in self.gallery.seen:
            every, parts = self.gallery.images, range(0, len(self.gallery.images), 64)
            seen = [Encoder.images(self, every[i : i + 64], projected) for i in parts]
            self.gallery.seen[projected] = torch.cat(seen)
        return self.gallery.seen[projected][known]


class Gallery:
    """The artwork as pictures, style by style, and what the scorer saw of it."""

    def __init__(self, art: Artwork) -> None:
        self.styles, self.names = art.styles, art.names
        self.images = [Image.fromarray(each.permute(1, 2, 0).numpy()) for each in art.images.flatten(0, 1)]
        self._places = {id(image): place for place, image in enumerate(self.images)}
        self.held = np.zeros((len(self.styles), len(self.names)), dtype=bool)
        for style, name in held_out(art.names).pairs:
            self.held[style, name] = True
        self.seen: dict[bool, Tensor] = {}

    def places(self, images: Sequence[Image.Image]) -> list[int] | None:
        """Where these pictures are; ``None`` if they are not of the gallery."""
        found = [self._places.get(id(image), -1) for image in images]
        return None if -1 in found else found

    def scores(self, reward: Reward) -> Scores:
        """Of all pictures, shape (styles, names)."""
        given: Any = reward
        given.encoder.__class__, given.encoder.gallery = Remembering, self
        scores: Scores = reward(self.images, [""] * len(self.images)).numpy()
        return scores.reshape(len(self.styles), len(self.names))

    def count(self, share: Share, style: int, scores: Scores, without: Sequence[int] = ()) -> None:
        """Add the pairs of a style; ``without`` are the names whose pictures the reward was made of."""
        keep = np.setdiff1d(np.arange(len(self.names)), np.array(without, dtype=int))
        wrong = np.delete(scores, style, axis=0)[:, keep]
        right, held = scores[style, keep] > wrong, np.broadcast_to(self.held[style, keep], wrong.shape)
        share.ordered, share.pairs = share.ordered + int(right.sum()), share.pairs + right.size
        share.held_ordered += int(right[held].sum())
        share.held_pairs += int(held.sum())
        share.least = min(share.least, float(right.mean()))
        ordered, pairs = share.by_style.get(self.styles[style], (0, 0))
        share.by_style[self.styles[style]] = [ordered + int(right.sum()), pairs + right.size]

    def picture(self, style: int, name: int) -> Image.Image:
        """One picture."""
        return self.images[style * len(self.names) + name]


def by_text(gallery: Gallery, reward: str, **arguments: Any) -> Share:
    """A reward that knows styles by their words."""
    share = Share()
    for number, style in enumerate(gallery.styles):
        gallery.count(share, number, gallery.scores(load_reward(reward, style=style, **arguments)))
    return share


def by_examples(gallery: Gallery, make: Callable[[Path, int], Reward], seeds: int, draw: Drawing) -> Share:
    """A reward that is made of random pictures, for each style and seed."""
    share = Share()
    for seed in range(seeds):
        for number in range(len(gallery.styles)):
            with TemporaryDirectory() as folder:
                used = draw(Path(folder), number, seed)
                gallery.count(share, number, gallery.scores(make(Path(folder), number)), used)
    return share


@dataclass(frozen=True)
class Drawing:
    """Draws examples: for each style a folder with its number as name; returns the names that are in any.

    Attributes:
        gallery: Where they are drawn from.
        count: Pictures of the right style.
        wrong: Pictures of the other styles: of each for a classifier, in turns for ``against``; 0 for none.
        together: Put those of the other styles into one folder, "against".
    """

    gallery: Gallery
    count: int
    wrong: int = 0
    together: bool = False

    def __call__(self, folder: Path, style: int, seed: int) -> list[int]:
        """Write the pictures."""
        draw, styles = random.Random(1000 * seed + style), range(len(self.gallery.styles))
        chosen = [(style, name, str(style)) for name in self._sample(draw, self.count, [style])]
        others = [number for number in styles if number != style]
        if self.together:
            names = self._sample(draw, self.wrong, others)
            chosen += [(others[i % len(others)], name, "against") for i, name in enumerate(names)]
        elif self.wrong:
            for other in others:
                names = self._sample(draw, self.wrong, [other])
                chosen += [(other, name, str(other)) for name in names]
        for number, name, home in chosen:
            (folder / home).mkdir(parents=True, exist_ok=True)
            self.gallery.picture(number, name).save(folder / home / f"{number}-{name}.png")
        return [name for _, name, _ in chosen]

    def _sample(self, draw: random.Random, count: int, styles: Sequence[int]) -> list[int]:
        """Names whose pictures differ, in turns through the styles: some artists drew one picture for two names."""
        found: dict[bytes, int] = {}
        for name in draw.sample(range(len(self.gallery.names)), len(self.gallery.names)):
            if len(found) == count:
                break
            found.setdefault(self.gallery.picture(styles[len(found) % len(styles)], name).tobytes(), name)
        return list(found.values())


def rows(gallery: Gallery, counts: Sequence[int], seeds: int) -> Iterator[dict[str, Any]]:
    """The table, line by line."""
    yield by_text(gallery, "style").row("style, by its word")
    yield by_text(gallery, "classifier").row("classifier, by words")
    for count in counts:
        for projected in (False, True):

            def near(folder: Path, style: int, projected: bool = projected) -> Reward:
                return load_reward("reference", examples=str(folder / str(style)), projected=projected)

            said = "reference" + (", projected" if projected else "")
            yield by_examples(gallery, near, seeds, Drawing(gallery, count)).row(f"{said}, {count} examples")

        def told(folder: Path, style: int) -> Reward:
            return load_reward("reference", examples=str(folder / str(style)), against=str(folder / "against"))

        wrong = 2 * (len(gallery.styles) - 1)
        drawing = Drawing(gallery, count, wrong, together=True)
        yield by_examples(gallery, told, seeds, drawing).row(f"reference, {count} examples against {wrong}")

        def chosen(folder: Path, style: int) -> Reward:
            styles = {name: str(folder / str(number)) for number, name in enumerate(gallery.styles)}
            return load_reward("classifier", style=gallery.styles[style], examples=styles)

        drawing = Drawing(gallery, count, count)
        yield by_examples(gallery, chosen, seeds, drawing).row(f"classifier, {count} examples a style")


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print a table in Markdown."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--artwork", type=Path, default=Path("build/emoji/art.safetensors"), help="drawn if not there")
    parser.add_argument("--examples", type=int, nargs="+", default=[3, 5, 10, 20], help="example pictures a style")
    parser.add_argument("--seeds", type=int, default=20, help="choices of examples")
    parser.add_argument("--names", type=int, help="concepts; default: all")
    parser.add_argument("--json", type=Path, help="write the table to this file too")
    options = parser.parse_args(argv)
    # One network for the hundreds of rewards that are made.
    encoder._transformers = functools.cache(encoder._transformers)
    if not options.artwork.exists():
        render(options.artwork)
    gallery = Gallery(load(options.artwork).select(concepts(options.names)))
    found: list[dict[str, Any]] = []
    print(f"{len(gallery.names)} concepts in {', '.join(gallery.styles)}; {options.seeds} seeds\n")
    for row in rows(gallery, options.examples, options.seeds):
        if not found:
            print(f"| {' | '.join(row)} |\n|{'---|' * len(row)}")
        cells = [f"{100 * value:.2f} %" if isinstance(value, float) else str(value) for value in row.values()]
        print(f"| {' | '.join(cells)} |", flush=True)
        found.append(row)
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps({"seeds": options.seeds, "rows": found}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
