"""A plan against the run that it is made for."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from pagopt.cli import main
from pagopt.comparison.compute import block_evaluations
from pagopt.errors import UnknownName
from pagopt.experiment import Run, run_study
from pagopt.folder import Folder, configuration
from pagopt.plan import GPUS, Plan, Stage, make_plan
from pagopt.study import Study

TRAINER = {"accelerator": "cpu"}


@pytest.fixture(autouse=True)
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """One batch of each kind."""
    monkeypatch.setattr("pagopt.plan.trial.LEAST", 0.0)


def plan_of(study: Study, out: Path) -> Plan:
    run = Run(study, "tiny", Folder(out, configuration(study, "tiny", TRAINER)), 8, TRAINER, quiet=True)
    try:
        return make_plan(run)
    finally:
        run.close()


def test_the_images_of_the_exhaustive_search_are_exact(study: Study, tmp_path: Path, asked: Callable[[], int]) -> None:
    study = replace(study, cfg_scales=[2.0, 3.0])
    plan = plan_of(study, tmp_path / "plan")
    assert plan.exact
    assert {stage.name: stage.images for stage in plan.stages} == {
        "no guidance": 2,
        "CFG": 4,
        "single layers": 6,
        "search": 2 * (6 + 1 + 5 + 1),
        "held-out tasks": 4 * 3,
    }
    results = run_study(study, "tiny", tmp_path / "run", trainer=TRAINER)
    assert asked() == plan.images
    # The selection of a round with one head was a candidate of it, and two heads may be a layer: drawn once.
    assert plan.images - 2 * 2 - 2 <= results.images_generated <= plan.images - 2 * 2
    assert plan.stored == 0
    assert plan.seconds > 0


def test_block_evaluations_are_those_of_the_recipes(study: Study, tmp_path: Path) -> None:
    plan = plan_of(study, tmp_path / "plan")
    by_name = {stage.name: stage for stage in plan.stages}
    assert by_name["no guidance"].evaluations == plan.blocks == 3 * 2
    assert by_name["CFG"].evaluations == 2 * 3 * 2
    base = study.recipe()
    layers = [block_evaluations(base.replace(heads=f"L{layer}.H0-1"), 3, 2) for layer in range(3)]
    assert by_name["single layers"].evaluations == pytest.approx(sum(layers) / 3)
    assert plan.evaluations == pytest.approx(sum(s.images * s.evaluations for s in plan.stages))


def test_a_plan_knows_what_the_store_has(study: Study, tmp_path: Path) -> None:
    out = tmp_path / "run"
    run_study(study, "tiny", out, trainer=TRAINER)
    (out / "results.json").unlink()
    whole = plan_of(study, out)
    stored = {stage.name: (stage.stored, stage.images) for stage in whole.stages}
    for name in ("no guidance", "CFG", "single layers", "search"):
        assert stored[name][0] == stored[name][1], name
    files = sorted(path for path in (out / "store" / "images").rglob("*") if path.is_file())
    for file in files[: len(files) // 2]:
        file.unlink()
    half = plan_of(study, out)
    assert 0 < half.stored < whole.stored
    assert half.seconds > whole.seconds
    assert sum(path.is_file() for path in (out / "store" / "images").rglob("*")) == len(files) - len(files) // 2


def test_a_race_and_a_budget_say_at_most(study: Study, tmp_path: Path) -> None:
    raced = plan_of(replace(study, search="racing"), tmp_path / "a")
    assert not raced.exact
    short = plan_of(replace(study, budget="40-images"), tmp_path / "b")
    assert not short.exact
    assert short.images <= 40


def search_of(plan: Plan) -> Stage:
    (stage,) = (stage for stage in plan.stages if stage.name == "search")
    return stage


def test_layers_are_counted_as_layers(study: Study, tmp_path: Path, asked: Callable[[], int]) -> None:
    swept = replace(study, search="layers")
    stage = search_of(plan_of(swept, tmp_path / "plan"))
    assert stage.images == 2 * (3 + 2 + 1)
    layers, base = [f"L{layer}.H0-1" for layer in range(3)], study.recipe()
    first = [block_evaluations(base.replace(heads=layer), 3, 2) for layer in layers]
    assert stage.evaluations == pytest.approx((sum(first) / 3 + max(first)) / 2)
    run_study(swept, "tiny", tmp_path / "run", trainer=TRAINER)
    assert asked() <= plan_of(swept, tmp_path / "again").images


def test_the_subsets_of_a_random_search_are_those_that_it_draws(study: Study, tmp_path: Path) -> None:
    randomly = replace(study, search="random", search_options={"size": 2, "number": 7})
    stage = search_of(plan_of(randomly, tmp_path / "plan"))
    results = run_study(randomly, "tiny", tmp_path / "run", trainer=TRAINER)
    drawn = [block_evaluations(study.recipe().replace(heads=name), 3, 2) for name in results.rounds[0].scores]
    assert (stage.images, stage.evaluations) == (7 * 2, pytest.approx(sum(drawn) / 7))


@pytest.mark.parametrize("search", ["lookahead", "refinement"])
def test_other_searches_cost_at_most_what_the_plan_says(search: str, study: Study, tmp_path: Path) -> None:
    other = replace(study, search=search, rounds=1)
    plan = plan_of(other, tmp_path / "plan")
    assert 3 * 2 < search_of(plan).evaluations <= 2 * 3 * 2
    assert run_study(other, "tiny", tmp_path / "run", trainer=TRAINER).images_generated <= plan.images


def test_a_plan_follows_a_race_within_its_budget(study: Study, tmp_path: Path) -> None:
    """With another number of images it races differently."""
    raced, out = replace(study, search="racing", prompts=list("abcdef"), budget="100-images"), tmp_path / "run"
    results = run_study(raced, "tiny", out, trainer=TRAINER)
    (out / "results.json").unlink()
    stage = search_of(plan_of(raced, out))
    seen = sum(sum(done.tasks.values()) + 6 for done in results.rounds)
    assert stage.stored == seen > search_of(plan_of(replace(raced, budget=None), out)).stored


def test_another_gpu_is_arithmetic(study: Study, tmp_path: Path) -> None:
    plan = plan_of(study, tmp_path / "plan")
    assert plan.seconds_on("a100") > plan.seconds_on("h100") > 0
    assert plan.seconds_on("a100") / plan.seconds_on("h100") == pytest.approx(GPUS["h100"] / GPUS["a100"])
    with pytest.raises(UnknownName, match="h100"):
        plan.seconds_on("h1000")


def test_the_command_prints_it_and_leaves_nothing(
    study_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    assert main(["plan", str(study_file), "--trainer.accelerator", "cpu", "--gpu", "a100"]) == 0
    said = capsys.readouterr().out
    assert "48, of which the store of runs/tiny has 0" in said
    assert "a100" in said
    assert sorted(tmp_path.rglob("*")) == before
    assert main(["plan", str(study_file), "--trainer.accelerator", "cpu", "--gpu", "abacus"]) == 2
    assert main(["plan", "nothing"]) == 2


def test_a_finished_run_needs_no_plan(
    study: Study, study_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(study_file), "--trainer.accelerator", "cpu", "--out", str(tmp_path / "run")]
    assert main(["search", *words]) == 0
    assert json.loads((tmp_path / "run" / "results.json").read_text(encoding="utf-8"))["images_generated"] > 0
    capsys.readouterr()
    assert main(["plan", *words]) == 0
    assert "finished run" in capsys.readouterr().out
