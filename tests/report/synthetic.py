"""A made-up search with believable numbers and drawn pictures, so that the report can be tested without a model."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw

from pagopt.recipe import Recipe
from pagopt.results import Estimate, Method, PairedTest, Results, Round

THINGS = (
    "red apple",
    "cat face",
    "sailboat",
    "rocket",
    "sunflower",
    "pizza",
    "snowman",
    "guitar",
    "cactus",
    "owl",
    "bicycle",
    "lighthouse",
)


def make_results(
    *,
    layers: int = 8,
    heads: int = 6,
    rounds: int = 3,
    per_round: int = 2,
    tasks: int = 24,
    gain: float = 0.09,
    attn2: int = 0,
    prompts: list[str] | None = None,
    seed: int = 0,
) -> Results:
    """A search whose found recipe is ``gain`` above no guidance; ``attn2`` gives that many layers a second site."""
    noise = np.random.default_rng(seed)
    effects = {
        f"L{b}.H{h}": noise.normal(0.02 - 0.004 * (b - layers / 3) ** 2, 0.03)
        for b in range(layers)
        for h in range(heads)
    }
    effects |= {f"L{b}.attn2.H{h}": noise.normal(0, 0.02) for b in range(attn2) for h in range(heads)}
    base, level, made = (), 0.21, []
    for number in range(1, rounds + 1):
        scores = {
            name: Estimate(level + effect * 0.7**number + noise.normal(0, 0.008), abs(noise.normal(0.02, 0.004)))
            for name, effect in effects.items()
            if name not in base
        }
        chosen = tuple(sorted(scores, key=lambda name: -scores[name].mean)[:per_round])
        level = max(scores[name].mean for name in chosen) + 0.01
        made.append(Round(number, base, scores, chosen, Estimate(level, 0.021)))
        base = (*base, *chosen)

    held_out = [(f"flat, {(prompts or THINGS)[i % len(prompts or THINGS)]}", 100 + i) for i in range(tasks)]
    plain = noise.normal(0.21, 0.06, tasks)
    columns = {
        "no guidance": (Recipe(cfg=1.0), plain),
        "CFG 2.0": (Recipe(cfg=2.0), plain + noise.normal(0.03, 0.04, tasks)),
        f"best layer L{layers // 3}": (
            Recipe(heads=[f"L{layers // 3}.H{h}" for h in range(heads)], scale=2.0, cfg=1.0),
            plain + noise.normal(gain * 0.4, 0.04, tasks),
        ),
        "HeadHunter": (Recipe(heads=base, scale=2.0, cfg=1.0), plain + noise.normal(gain, 0.05, tasks)),
    }
    methods = [
        Method(
            name,
            recipe.to_dict(),
            tuple(map(float, values)),
            {
                "style": tuple(map(float, values)),
                "clip": tuple(map(float, 0.3 + 0.2 * values + noise.normal(0, 0.02, tasks))),
                "colorfulness": tuple(map(float, 40 + 30 * values + noise.normal(0, 5, tasks))),
            },
            tuple(f"{index}-{task}" for task in range(tasks)),
        )
        for index, (name, (recipe, values)) in enumerate(columns.items())
    ]
    return Results(
        study="flat",
        model="emoji",
        fingerprint="3f9a1c77d0b24e58",
        pagopt="0.1.0",
        layers=layers,
        heads=heads,
        steps=12,
        objective=[{"label": "style", "name": "style", "weight": 1.0, "args": {"style": "flat"}}],
        search_tasks=[(f"flat, {thing}", i) for i, thing in enumerate(("cherry", "dog", "train", "moon", "tulip"))],
        held_out_tasks=held_out,
        rounds=made,
        methods=methods,
        tests=[compare(methods[-1], other) for other in methods[:-1]],
        images_generated=870,
        seconds=213.4,
        baseline=Estimate(0.2, 0.02),
    )


def compare(found: Method, other: Method) -> PairedTest:
    """The paired test, with the normal distribution in place of Student's: near enough for a made-up search."""
    gaps = np.subtract(found.objective, other.objective)
    mean, wins = float(gaps.mean()), float((gaps > 0).mean())
    if len(gaps) < 2:
        return PairedTest(other.name, mean, math.nan, math.nan, wins)
    se = float(gaps.std(ddof=1) / math.sqrt(len(gaps)))
    return PairedTest(other.name, mean, se, 0.5 * math.erfc(mean / se / math.sqrt(2)), wins)


def painter(size: int = 64) -> Callable[[str], Image.Image]:
    """Pictures for the keys of :func:`make_results`: blobs, cleaner and more colourful from method to method."""

    def paint(key: str) -> Image.Image:
        method, task = map(int, key.split("-"))
        noise = np.random.default_rng(task)
        hue = float(noise.random())
        picture = Image.new("RGB", (size, size), "white")
        draw = ImageDraw.Draw(picture)
        colour = tuple(int(255 * c) for c in colorsys.hsv_to_rgb(hue, 0.4 + 0.15 * method, 0.9))
        dark = tuple(int(255 * c) for c in colorsys.hsv_to_rgb((hue + 0.1) % 1, 0.5 + 0.1 * method, 0.6))
        x, y, r = (int(size * v) for v in (*noise.uniform(0.42, 0.58, 2), noise.uniform(0.28, 0.4)))
        draw.ellipse((x - r, y - r, x + r, y + r), fill=colour)
        for _ in range(3):
            a, b = (int(size * v) for v in noise.uniform(0.25, 0.75, 2))
            draw.rounded_rectangle((a - r // 4, b - r // 4, a + r // 4, b + r // 4), radius=r // 8, fill=dark)
        grain = noise.normal(0, 22 / (method + 1), (size, size, 3))
        return Image.fromarray(np.clip(np.asarray(picture) + grain, 0, 255).astype(np.uint8))

    return paint
