"""An atlas of the tiny model, drawn once, and one that is made up."""

from __future__ import annotations

from pathlib import Path

import pytest

from pagopt.atlas import Atlas, Effect, Findings, run_atlas
from pagopt.atlas.findings import MOVED
from pagopt.recipe import Recipe

CPU = {"accelerator": "cpu"}


@pytest.fixture(scope="session")
def tiny_atlas(tiny_model: Path) -> Atlas:
    """Three prompts of two seeds, 3 blocks of 2 heads, and a reward beside the looks."""
    return Atlas(
        prompts=["flat, red apple", "flat, house", "ink, sun"],
        model=str(tiny_model),
        seeds=2,
        rewards=["colorfulness"],
        scale=2.0,
        steps=2,
    )


@pytest.fixture(scope="session")
def drawn(tiny_atlas: Atlas, tmp_path_factory: pytest.TempPathFactory) -> tuple[Findings, Path]:
    """What it found, and its folder."""
    out = tmp_path_factory.mktemp("atlas") / "tiny"
    return run_atlas(tiny_atlas, out, batch_size=5, trainer=CPU), out


@pytest.fixture
def made_up() -> Findings:
    """Two blocks of three heads and a second site with one; L1.H2 raises "light", L0.H1 lowers it."""
    names = ["L0.H0", "L0.H1", "L0.H2", "L1.H0", "L1.H2", "L1.attn2.H0", "L0", "L1"]
    light = {name: Effect(0.001, 0.002, 1.0) for name in names}
    light |= {"L1.H2": Effect(0.2, 0.01, 0.001), "L0.H1": Effect(-0.1, 0.01, 0.04)}
    return Findings(
        pagopt="0",
        model="a <made> up model",
        fingerprint="f",
        weights={},
        blocks=2,
        heads=3,
        recipe=Recipe(target="blur", target_options={"sigma": 2.0}, scale=2.0, cfg=1.0).to_dict(),
        steps=4,
        tasks=[("a <b>", 0), ("a <b>", 100_000), ("c", 1), ("c", 100_001)],
        rewards=[],
        means={MOVED: 0.0, "light": 0.5},
        effects={MOVED: {name: Effect(0.01 * (at + 1), 0.001) for at, name in enumerate(names)}, "light": light},
        perturbed={**{name: name for name in names}, "L0": "L0.H0-2", "L1": "L1.H0-2 L1.attn2.H0"},
        images={name: [f"{name} {task}" for task in range(4)] for name in names},
        plain=[f"plain {task}" for task in range(4)],
    )
