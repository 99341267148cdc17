"""Does the judge see the style that a search asked for? `python -m tools.emoji.styles '[runs/glossy, runs/flat]'`.

The judge, which no search optimised, is asked of every held-out picture which of the five styles it shows.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from jsonargparse import auto_cli
from PIL import Image

from pagopt.results import Results, load_results
from pagopt.store import Store
from tools.emoji.artwork import STYLES
from tools.emoji.evaluate import Instrument, JudgeVectors
from tools.emoji.train import Build

__all__ = ["shares", "styles"]


@torch.inference_mode()
def shares(results: Results, image: Callable[[str], Image.Image], instrument: Instrument) -> dict[str, tuple[int, int]]:
    """For each method how many held-out pictures are taken for the style of their prompt, and of how many.

    Args:
        results: Of a search in one style; prompts are "style, content".
        image: Gives the picture of a store key.
        instrument: Who is asked.
    """
    words = list(STYLES)
    wanted = torch.tensor([words.index(prompt.partition(", ")[0]) for prompt, _ in results.held_out_tasks])
    texts = instrument.texts(words)
    found = {}
    for method in results.methods:
        seen = (instrument.images([image(key) for key in method.images]) @ texts.T).argmax(1)
        found[method.name] = int((seen == wanted).sum()), len(wanted)
    return found


def styles(runs: list[Path], build: Build | None = None) -> None:
    """Print a line for each method of each run.

    Args:
        runs: Folders of searches on the embedded model.
        build: Where the judge is.
    """
    judge = JudgeVectors((build or Build()).model / "judge")
    for run in runs:
        results = load_results(run / "results.json")
        with Store(run / "store", read_only=True) as store:
            for method, (right, count) in shares(results, store.get_image, judge).items():
                print(f"{results.study:12} {method:16} {right / count:4.0%} of {count}")


if __name__ == "__main__":
    auto_cli(styles)
