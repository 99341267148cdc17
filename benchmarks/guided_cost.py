"""What guidance costs on the embedded model: unguided, with one head a row, and with all blocks evaluated twice.

Prints ratios measured in one run, each the median over rounds in which all variants take turns.

    python benchmarks/guided_cost.py --batch 16 --rounds 5
"""

from __future__ import annotations

import argparse
import platform
import random
import statistics
import time

import torch

from pagopt.guide import guided
from pagopt.models import family_of, load_pipeline
from pagopt.recipe import Recipe
from pagopt.render import Job, Renderer, Task

PLAIN = Recipe(scale=0.0)


def seconds(renderer: Renderer, recipes: list[Recipe]) -> float:
    """Time of one batch with a recipe for each row."""
    start = time.perf_counter()
    renderer.render([Job(recipe, Task("flat, red apple", seed)) for seed, recipe in enumerate(recipes)])
    return time.perf_counter() - start


def blocks(renderer: Renderer, recipes: list[Recipe]) -> int:
    """Block evaluations of one step of that batch."""
    with guided(renderer.pipe, recipes) as guidance:
        renderer.pipe(
            ["flat, red apple"] * len(recipes), num_inference_steps=1, guidance_scale=1.0, output_type="latent"
        )
    return guidance.block_evaluations


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=16, help="rows in a batch")
    parser.add_argument("--rounds", type=int, default=5, help="rounds to take the median of")
    parser.add_argument("--steps", type=int, default=12, help="inference steps")
    options = parser.parse_args()
    pipe = load_pipeline("emoji")
    renderer = Renderer(pipe, options.steps)
    heads = list(family_of(pipe).head_map(pipe.transformer))
    draw = random.Random(0)
    variants = {
        "unguided": [PLAIN] * options.batch,
        "one random head a row": [Recipe([draw.choice(heads)], scale=2.0) for _ in range(options.batch)],
        "a head of the first block": [Recipe("L0.H0", scale=2.0)] * options.batch,
        "unguided, twice the rows": [PLAIN] * (2 * options.batch),
    }
    times: dict[str, list[float]] = {name: [] for name in variants}
    for recipes in variants.values():
        seconds(renderer, recipes)  # warm-up
    for _ in range(options.rounds):
        for name, recipes in variants.items():
            times[name].append(seconds(renderer, recipes))
    print(
        f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, float32, torch "
        f"{torch.__version__}, {options.batch} rows of 64 x 64 pixels, {options.steps} steps, median of "
        f"{options.rounds} rounds"
    )
    base = times["unguided"]
    for name, recipes in variants.items():
        ratio = statistics.median(t / b for t, b in zip(times[name], base, strict=True))
        work = blocks(renderer, recipes) / blocks(renderer, variants["unguided"])
        image = statistics.median(times[name]) / options.batch
        print(f"{name:26} {image:.3f} s an image   {ratio:.2f} x unguided   {work:.2f} x block evaluations")


if __name__ == "__main__":
    main()
