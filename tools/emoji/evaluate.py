"""What the shipped model, scorer and judge can do, in numbers: `python -m tools.emoji.evaluate`.

Two instruments look at artwork and at generated pictures: the scorer, which searches optimise, and the judge, which
shares no weights with it and never saw a generated picture. Resumable: pictures lie in the folder `evaluation` of the
build folder. Leaves `evaluation.json` there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from jsonargparse import auto_cli
from numpy.typing import NDArray
from PIL import Image

from pagopt.distribution import bootstrap, frechet_distance, precision_recall_density_coverage
from pagopt.evaluate import Evaluator, Progress, make_trainer
from pagopt.files import write_text
from pagopt.models import load_pipeline
from pagopt.recipe import Recipe
from pagopt.render import Renderer, Task
from pagopt.results import load_results
from pagopt.store import Store
from pagopt_rewards.encoder import Encoder
from pagopt_rewards.judge import Judge
from tools.emoji.augment import reduce_area, shift_scale, to_unit
from tools.emoji.captions import caption, name_of
from tools.emoji.degrade import degrade
from tools.emoji.train import Build

__all__ = ["Instrument", "Recognised", "evaluate", "recognise"]

Pair = tuple[int, int]
PLAIN = "no guidance"


class Instrument(Protocol):
    """Images and texts to vectors in one space."""

    def images(self, images: Sequence[Image.Image]) -> torch.Tensor:
        """Unit vectors (n, d)."""

    def texts(self, texts: Sequence[str]) -> torch.Tensor:
        """Unit vectors (n, d)."""


class JudgeVectors:
    """The judge as an instrument; `features` are what Frechet distances are measured in."""

    def __init__(self, folder: Path) -> None:
        self.judge = Judge(str(folder))
        self.texts = self.judge.texts

    def features(self, images: Sequence[Image.Image]) -> torch.Tensor:
        """Vectors before normalisation (n, d)."""
        return torch.cat([self.judge.features(images[i : i + 64]) for i in range(0, len(images), 64)])

    def images(self, images: Sequence[Image.Image]) -> torch.Tensor:
        """Unit vectors (n, d)."""
        return F.normalize(self.features(images), dim=-1)


@dataclass(frozen=True)
class Recognised:
    """Shares of pictures whose nearest text is the right one, among all concept names and among all style words."""

    count: int
    concept: float
    style: float


@torch.inference_mode()
def recognise(
    instrument: Instrument, images: Sequence[Image.Image], pairs: Sequence[Pair], styles: list[str], names: list[str]
) -> Recognised:
    """Ask an instrument what it sees; `pairs` are the (style, name) indices of the images."""
    seen = instrument.images(images)
    style, name = torch.tensor(pairs).T
    return Recognised(
        len(pairs),
        concept=float(((seen @ instrument.texts(names).T).argmax(1) == name).float().mean()),
        style=float(((seen @ instrument.texts(styles).T).argmax(1) == style).float().mean()),
    )


def to_images(pictures: torch.Tensor) -> list[Image.Image]:
    """Float (n, 3, H, W) in [-1, 1] to RGB images."""
    array = ((pictures.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    return [Image.fromarray(row) for row in array]


def choose(pairs: Sequence[Pair], count: int, seed: int) -> list[Pair]:
    """At most `count` of the pairs, at random."""
    order = np.random.default_rng(seed).permutation(len(pairs))[:count]
    return [pairs[int(i)] for i in order]


class Exam:
    """All that is measured, on pictures drawn once and kept."""

    def __init__(self, build: Build, seed: int, batch_size: int) -> None:
        self.build, self.seed, self.batch_size = build, seed, batch_size
        self.styles, self.names = build.chosen.styles, [name_of(name) for name in build.chosen.names]
        absent = set(build.held_out.from_model())
        every = [(s, n) for s in range(len(self.styles)) for n in range(len(self.names))]
        self.pairs = {
            "seen": [pair for pair in every if pair not in absent],
            "held-out pairs": build.held_out.pairs,
            "held-out concepts": [(s, n) for s in range(len(self.styles)) for n in build.held_out.names],
        }
        self.judge = JudgeVectors(build.model / "judge")
        self.instruments: dict[str, Instrument] = {
            "scorer": Encoder(str(build.model / "scorer")),
            "judge": self.judge,
        }
        self.recognised: list[dict[str, object]] = []
        self.renderer = Renderer(load_pipeline(str(build.model / "pipeline")), steps=12)

    def tasks(self, pairs: Sequence[Pair]) -> list[Task]:
        """A prompt and a seed of its own for each pair."""
        return [Task(caption(self.styles[s], self.names[n]), self.seed * 100_000 + i) for i, (s, n) in enumerate(pairs)]

    def draw(self, recipe: Recipe, pairs: Sequence[Pair], label: str) -> list[Image.Image]:
        """One picture for each pair."""
        progress, trainer = Progress(len(pairs), leave=False), make_trainer(accelerator="cpu")
        progress.label(label)
        trainer.callbacks.append(progress)
        with Store(self.build.folder / "evaluation") as store:
            evaluator = Evaluator(self.renderer, {}, store, trainer, self.batch_size, progress)
            tasks = self.tasks(pairs)
            evaluator([recipe], tasks)
            images = [store.get_image(key) for key in evaluator.keys([recipe], tasks)[0]]
        progress.close()
        return images

    def artwork(self, pairs: Sequence[Pair], *, degraded: bool = False, moved: bool = True) -> list[Image.Image]:
        """The real pictures of these pairs, moved a little, and degraded if asked."""
        generator = torch.Generator().manual_seed(self.seed)
        real = to_unit(torch.stack([self.build.chosen.images[s, n] for s, n in pairs]))
        small = shift_scale(real, generator) if moved else reduce_area(real)
        return to_images(degrade(small, generator) if degraded else small)

    def ask(self, pictures: str, kind: str, images: Sequence[Image.Image], pairs: Sequence[Pair]) -> None:
        """What both instruments recognise; printed and kept."""
        row: dict[str, object] = {"pictures": pictures, "pairs": kind, "count": len(pairs)}
        for name, instrument in self.instruments.items():
            seen = recognise(instrument, images, pairs, self.styles, self.names)
            row[f"{name} concept"], row[f"{name} style"] = seen.concept, seen.style
        self.recognised.append(row)
        cells = [f"{value:.1%}" if isinstance(value, float) else str(value) for value in row.values()]
        print("| " + " | ".join(cells) + " |", flush=True)

    def recognition(self, count: int, guidance: Sequence[float]) -> None:
        """Rank 1 of artwork and of generated pictures, without guidance and with CFG."""
        print("| pictures | pairs | count | scorer: concept | style | judge: concept | style |\n" + "|---" * 7 + "|")
        for kind, every in self.pairs.items():
            pairs = choose(every, count, self.seed)
            self.ask("artwork, moved", kind, self.artwork(pairs), pairs)
            self.ask("artwork, degraded", kind, self.artwork(pairs, degraded=True), pairs)
            for scale in guidance:
                label = f"CFG {scale:g}" if scale > 1 else PLAIN
                self.ask(label, kind, self.draw(Recipe(scale=0.0, cfg=scale), pairs, label), pairs)

    def distances(self, methods: Mapping[str, Recipe], count: int, repeats: int) -> list[dict[str, object]]:
        """Distances to the real artwork of the same pairs in the judge's features, methods on the same seeds."""
        pairs = choose(self.pairs["seen"], count, self.seed)
        real = self.judge.features(self.artwork(pairs, moved=False)).numpy()
        drawn = {}
        for name, recipe in methods.items():
            images = self.draw(recipe, pairs, name)
            self.ask(name, "seen, for distances", images, pairs)
            drawn[name] = self.judge.features(images).numpy()
        print("\n| method | Frechet | difference to the first (95 %) | precision | recall | density | coverage |")
        print("|---" * 7 + "|")
        first = next(iter(drawn))
        return [
            measure(name, real, features, None if name == first else drawn[first], repeats, self.seed)
            for name, features in drawn.items()
        ]


def measure(
    name: str,
    real: NDArray[np.float32],
    drawn: NDArray[np.float32],
    other: NDArray[np.float32] | None,
    repeats: int,
    seed: int,
) -> dict[str, object]:
    """Frechet distance, its paired difference to that of `other`, and how the sets overlap; the rows are tasks."""
    distance = bootstrap(frechet_distance, paired=(real, drawn), repeats=repeats, seed=seed)
    row: dict[str, object] = {"method": name, "count": len(real), "frechet": asdict(distance)}
    difference = ""
    if other is not None:
        gap = bootstrap(
            lambda r, x, y: frechet_distance(r, x) - frechet_distance(r, y),
            paired=(real, drawn, other),
            repeats=repeats,
            seed=seed,
        )
        row["difference"] = asdict(gap)
        difference = f"{gap.value:+.3f} ({gap.low:+.3f} to {gap.high:+.3f})"
    manifold = asdict(precision_recall_density_coverage(real, drawn))
    values = "".join(f"| {value:.3f} " for value in manifold.values())
    print(f"| {name} | {distance.value:.3f} | {difference} {values}|", flush=True)
    return row | manifold


def evaluate(
    build: Build | None = None,
    count: int = 500,
    guidance: tuple[float, ...] = (1.0, 1.5, 2.0, 3.0),
    run: Path | None = Path("runs/demo"),
    repeats: int = 1000,
    seed: int = 9,
    batch_size: int = 50,
) -> None:
    """Measure and print as Markdown tables.

    Args:
        build: Folders and concepts, as in training.
        count: Pictures for each row, at most; there are fewer held-out pairs.
        guidance: Classifier-free guidance scales; 1 is none.
        run: A finished run of the same model, whose methods are compared by their distance to the artwork; none skips
            that.
        repeats: Bootstrap samples.
        seed: Of the chosen pairs and of the noise.
        batch_size: Pictures drawn at once.
    """
    build = build or Build()
    exam = Exam(build, seed, batch_size)
    exam.recognition(count, guidance)
    distances = []
    if run is not None:
        methods = {m.name: Recipe.from_dict(m.recipe) for m in load_results(run / "results.json").methods}
        distances = exam.distances(methods, count, repeats)
    facts = {"seed": seed, "recognised": exam.recognised, "distances": distances}
    write_text(build.folder / "evaluation.json", json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    auto_cli(evaluate, as_positional=False)
