"""What an atlas will cost, before it is drawn."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from pagopt.atlas import Atlas, Findings
from pagopt.atlas.run import AtlasRun
from pagopt.cli import main
from pagopt.models import Weights
from pagopt.plan import Plan, make_atlas_plan, outline_atlas_plan
from tests.atlas.conftest import CPU


@pytest.fixture(autouse=True)
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """One batch of each kind."""
    monkeypatch.setattr("pagopt.plan.trial.LEAST", 0.0)


def plan_of(atlas: Atlas, out: Path, store: Path | None = None) -> Plan:
    run = AtlasRun(atlas, out, store, 5, CPU, quiet=True)
    try:
        return make_atlas_plan(run)
    finally:
        run.close()


def test_it_is_what_the_atlas_draws(drawn: tuple[Findings, Path], tiny_atlas: Atlas, tmp_path: Path) -> None:
    """Six heads and three layers on six tasks, from blocks 0, 1 and 2 of 3 on, in two steps."""
    found, out = drawn
    plan = plan_of(tiny_atlas, tmp_path / "new")
    assert plan.exact
    assert (plan.images, plan.stored) == (found.images_generated, 0)
    assert [(stage.name, stage.images) for stage in plan.stages] == [
        ("no guidance", 6),
        ("single heads", 36),
        ("single layers", 18),
    ]
    assert [stage.evaluations for stage in plan.stages] == [6, 10, 10]
    assert plan.seconds is not None
    assert plan.seconds > 0
    assert not (tmp_path / "new" / "config.yaml").exists()
    after = plan_of(tiny_atlas, tmp_path / "again", out / "store")
    assert (after.stored, after.evaluations, after.seconds) == (60, 0, 0)
    more = plan_of(replace(tiny_atlas, seeds=3, layers=False), tmp_path / "more", out / "store")
    assert [(stage.images, stage.stored) for stage in more.stages] == [(9, 6), (54, 36)]


def test_without_weights_it_is_the_same(tiny_atlas: Atlas, tmp_path: Path) -> None:
    bare = shutil.copytree(tiny_atlas.model, tmp_path / "bare", ignore=shutil.ignore_patterns("*.safetensors"))
    here, away = (
        plan_of(tiny_atlas, tmp_path / "a"),
        outline_atlas_plan(replace(tiny_atlas, model=str(bare)), Weights()),
    )
    assert [(s.name, s.images, s.evaluations) for s in away.stages] == [
        (s.name, s.images, s.evaluations) for s in here.stages
    ]
    assert (away.blocks, away.exact, away.seconds) == (here.blocks, here.exact, None)


def test_the_command(tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "atlas"
    words = [
        "atlas",
        str(tiny_model),
        "--prompt",
        "a",
        "--steps",
        "2",
        "--out",
        str(out),
        "--trainer.accelerator",
        "cpu",
    ]
    assert main([*words, "--plan"]) == 0
    told = capsys.readouterr().out
    assert f"images  10, of which the store of {out} has 0" in told
    assert "single layers" in told
    assert not os.listdir(tmp_path)
    assert main([*words, "--plan", "--gpu", "a1000"]) == 2
    assert "unknown GPU 'a1000'. Did you mean 'a100'?" in capsys.readouterr().err


@pytest.mark.parametrize(("model", "images"), [("sd3-medium", 1 + 576 + 24), ("flux-dev", 1 + 1368 + 57)])
def test_big_models_need_no_weights(model: str, images: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["atlas", model, "--prompt", "a lighthouse", "--plan", "--trainer.precision", "bf16-true"]) == 0
    told = capsys.readouterr().out
    assert f"images  {images:,}\n" in told
    assert "nothing was downloaded" in told
    assert "(bfloat16)" in told
