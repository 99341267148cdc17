"""A made-up tuning with believable numbers and drawn pictures, so that its page can be tested without a model."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from PIL import Image

from pagopt.recipe import PLAIN, Recipe
from pagopt.results import Estimate, Method
from pagopt.summary import paired_test
from pagopt.tuning import Goal, TrialRow, Tuned, TunedMethod
from pagopt.tuning.verdict import chosen

HEADS = "L1.H1 L0.H0"
TASKS = [(f"thing {i}", i) for i in range(12)]
HELD_OUT = [(f"other {i}", 100 + i) for i in range(9)]


def picture(key: str) -> Image.Image:
    """One colour a key."""
    return Image.new("RGB", (48, 48), tuple(np.random.default_rng(len(key) * 997 + hash_of(key)).integers(0, 255, 3)))


def hash_of(key: str) -> int:
    return sum(ord(letter) * (place + 1) for place, letter in enumerate(key))


def make_tuned(
    trials: int = 24, goals: int = 1, gain: float = 6.0, extra: str = "", misses: bool = False, seed: int = 0
) -> Tuned:
    """Trials over strength and scale (log), whose score is a hill in strength; ``gain`` is what the best gains.

    Args:
        trials: How many; the first two are "no guidance" and "as it was", every fifth is pruned.
        goals: 1, or 2 with cost.
        gain: Height of the hill.
        extra: Name of one more parameter, with choices.
        misses: Whether trials beyond u = 0.8 miss a constraint.
        seed: Of everything.
    """
    noise = np.random.default_rng(seed)
    levels = noise.normal(50, 8, len(TASKS))
    rows = []
    for number in range(trials):
        u, w = float(noise.uniform()), float(2 ** noise.uniform(-1, 3))
        u, w = {0: (0.0, 2.0), 1: (1.0, 2.0)}.get(number, (u, w))
        state = "pruned" if number % 5 == 4 and goals == 1 else "complete"
        seen = [3, 7, 1, 0] if state == "pruned" else range(len(TASKS))
        values = {t: float(levels[t] + gain * math.sin(math.pi * u) + noise.normal(0, 0.5)) for t in seen}
        mean, cost = float(np.mean(list(values.values()))), float(round(20 + 20 * u))
        parameters: dict[str, Any] = {"strength": u, "scale": w, **({extra: "ab"[number % 2]} if extra else {})}
        rows.append(
            TrialRow(
                number=number,
                state=state,
                label={0: "no guidance", 1: "as it was"}.get(number, ""),
                values=() if state == "pruned" else (mean, cost)[:goals],
                parameters=parameters,
                recipe=Recipe(heads=HEADS, strength=u, scale=w, cfg=1.0).to_dict(),
                steps=4,
                objective=values,
                scores={"sharp": values, "calm": {t: 10 - 3 * u + 0.01 * t for t in seen}},
                limits={"calm at least 7.6": 0.6 if u > 0.8 else -0.1} if misses and state == "complete" else {},
                picture=f"trial {number}",
            )
        )
    goal_list = [Goal("objective", True), Goal("cost", False)][:goals]
    best = chosen(rows, goal_list)
    return _tuned(rows, best, goal_list, noise)


def _tuned(rows: list[TrialRow], best: list[int], goals: list[Goal], noise: np.random.Generator) -> Tuned:
    levels = noise.normal(50, 8, len(HELD_OUT))
    start = Recipe(heads=HEADS, strength=1.0, scale=2.0, cfg=1.0)
    entries: list[tuple[str, Recipe, int | None]] = [("no guidance", PLAIN, None), ("as it was", start, None)]
    for place, number in enumerate(best, 1):
        name = "tuned" if len(goals) == 1 else f"front {place} (trial {number})"
        entries.append((name, Recipe.from_dict(rows[number].recipe), number))
    methods, prompts = [], [prompt for prompt, _ in HELD_OUT]
    for name, recipe, trial in entries:
        gain = 0.0 if trial is None else np.mean(list(rows[trial].objective.values())) - rows[0].values[0]
        scores = tuple((levels + gain + noise.normal(0, 0.5, len(HELD_OUT))).tolist())
        rewards = {"sharp": scores, "calm": tuple([9.0] * len(HELD_OUT))}
        images = tuple(f"{name} {i}" for i in range(len(HELD_OUT)))
        method = Method(name, recipe.to_dict(), scores, rewards, images)
        methods.append(TunedMethod(method, 4, 24 if trial is None else 36, trial))
    others = [one for one in methods if one.trial is None]
    return Tuned(
        tuning="made up",
        model="tiny",
        fingerprint="0" * 32,
        pagopt="0",
        steps=4,
        start=HEADS,
        settings={"space": {"strength": [0, 1], "scale": {"low": 0.5, "high": 8, "log": True}}, "sampler": "tpe"},
        goals=goals,
        objective=[{"label": "sharp", "name": "sharp", "weight": 1.0, "args": {}}],
        search_tasks=TASKS,
        held_out_tasks=HELD_OUT,
        baseline=Estimate.of(list(rows[0].objective.values())),
        as_it_was=Estimate.of(list(rows[1].objective.values())),
        left_out={},
        trials=rows,
        best=best,
        methods=methods,
        tests={
            one.method.name: [paired_test(one.method, other.method, prompts) for other in others]
            for one in methods
            if one.trial is not None
        },
        images_generated=300,
        seconds=12.0,
        references={"no guidance": {"sharp": rows[0].values[0], "calm": 10.0}, "as it was": {"calm": 7.0}},
    )
