"""A plan of a tuning against the tuning, and plans of models whose weights are not here."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from pagopt.cli import main
from pagopt.cli.plan import is_tuning
from pagopt.errors import ModelError
from pagopt.experiment import Run
from pagopt.folder import Folder, configuration
from pagopt.heads import Head
from pagopt.models import Weights
from pagopt.models.names import has_weights
from pagopt.models.outline import outline_of
from pagopt.plan import Plan, make_plan, operations, outline_plan
from pagopt.recipe import Recipe
from pagopt.study import Study
from pagopt.tuning import Space, Tuned, Tuning, tune
from pagopt.tuning.plan import finished_trials, make_tuning_plan, outline_tuning_plan, random_points
from pagopt.tuning.run import TuningRun
from pagopt.tuning.start import opened

TRAINER = {"accelerator": "cpu"}
CPU = ["--trainer.accelerator", "cpu"]


@pytest.fixture(autouse=True)
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """One batch of each kind."""
    monkeypatch.setattr("pagopt.plan.trial.LEAST", 0.0)
    monkeypatch.setattr("pagopt.tuning.plan.SHORT", 0.0)


def tuning_of(study: Study, **changes: Any) -> Tuning:
    return Tuning(study, **{"recipe": "L1.H1 L0.H0", "trials": 5, "at_once": 2, "pruner": "none", **changes})


def plan_of(tuning: Tuning, out: Path) -> Plan:
    start, space, folder, _ = opened(tuning, "tiny", out, TRAINER)
    run = TuningRun(tuning, "tiny", folder, start, space, 8, TRAINER, None, quiet=True)
    try:
        return make_tuning_plan(run, min(finished_trials(None, out, "tiny"), tuning.trials))
    finally:
        run.close()


@pytest.fixture
def bare(tiny_model: Path, tmp_path: Path) -> Path:
    """The tiny model without its weights."""
    return Path(shutil.copytree(tiny_model, tmp_path / "bare", ignore=shutil.ignore_patterns("*.safetensors")))


def test_the_images_of_a_tuning_are_exact_where_nothing_is_pruned(
    study: Study, tmp_path: Path, asked: Callable[[], int]
) -> None:
    tuning = tuning_of(study)
    plan = plan_of(tuning, tmp_path / "plan")
    assert plan.exact
    assert {stage.name: stage.images for stage in plan.stages} == {
        "no guidance, as it was": 2 * 2,
        "trials": (5 - 2) * 2,
        "CFG": 2,
        "held-out tasks": 4 * 3,
    }
    tuned = tune(tuning, "tiny", tmp_path / "run", trainer=TRAINER)
    # "no guidance" and "as it was" are trials, too, and drawn once: the plan knows.
    assert asked() == plan.images + 2 * 2
    assert plan.stored == 0, "the store does not exist"
    best = tuned.trial(tuned.best[0])
    again = 3 if best.label in {"no guidance", "as it was"} else 0  # then its held-out pictures are there, too
    assert tuned.images_generated == plan.images - again
    assert plan.seconds is not None
    assert plan.seconds > 0


def test_pruning_and_fronts_say_at_most(study: Study, tmp_path: Path) -> None:
    assert not plan_of(tuning_of(study, pruner="wilcoxon"), tmp_path / "a").exact
    front = plan_of(tuning_of(study, objectives=["cost"]), tmp_path / "b")
    assert not front.exact
    assert front.stages[-1].images == (3 + 5) * 3  # every trial may lie on the front


def test_a_finished_tuning_counts_when_more_trials_are_planned(study: Study, tmp_path: Path) -> None:
    out = tmp_path / "run"
    tune(tuning_of(study, trials=3), "tiny", out, trainer=TRAINER)
    assert finished_trials(None, out, "tiny") == 3
    plan = plan_of(tuning_of(study), out)
    stages = {stage.name: (stage.images, stage.stored) for stage in plan.stages}
    assert stages["trials"] == ((5 - 2) * 2, 2), "two of the three are of the stage before"
    assert stages["no guidance, as it was"] == (4, 4)
    assert stages["CFG"] == (2, 2)
    assert finished_trials(None, tmp_path / "nothing", "tiny") == 0
    assert finished_trials(str(tmp_path / "no.journal"), out, "tiny") == 0
    assert not (tmp_path / "no.journal").exists()


def test_without_held_out_tasks_the_comparison_draws_nothing(study: Study, tmp_path: Path) -> None:
    tuning = tuning_of(Study(**{**study.__dict__, "held_out_prompts": [], "held_out_seeds": None}))
    plan = plan_of(tuning, tmp_path / "plan")
    assert [(stage.name, stage.stored) for stage in plan.stages] == [
        ("no guidance, as it was", 0), ("trials", 0), ("CFG", 0),
    ]  # fmt: skip
    assert tune(tuning, "tiny", tmp_path / "run", trainer=TRAINER).images_generated == plan.images


def test_points_of_a_space_are_of_it_and_differ() -> None:
    given = {
        "steps": [4, 8],
        "leading": [1, 2],
        "strength": [0, 1],
        "scale": {"low": 0.5, "high": 8, "log": True},
        "stop": {"low": 0.4, "high": 1, "step": 0.2},
        "target": ["identity", "uniform"],
    }
    space = Space(given, Recipe("L1.H0 L2.H1"), (Head.parse("L2.H1"), Head.parse("L1.H0")), 6)
    points = random_points(space, 64, 0)
    for point in points:
        for name, value in point.values.items():
            assert space.parameters[name].hold(name, value) == value
    assert {point.steps for point in points} == {4, 5, 6, 7, 8}
    assert {len(point.recipe.heads) for point in points} == {1, 2}
    assert {round(point.recipe.interval[1], 9) for point in points} == {0.4, 0.6, 0.8, 1.0}
    assert len({point.recipe.key() for point in points}) > 50
    assert [p.values for p in random_points(space, 3, 0)] == [p.values for p in points[:3]]


def test_without_weights_images_blocks_and_work_are_the_same(study: Study, bare: Path, tmp_path: Path) -> None:
    assert not has_weights(str(bare))
    assert has_weights(study.model)
    run = Run(study, "tiny", Folder(tmp_path / "a", configuration(study, "tiny", TRAINER)), 8, TRAINER, quiet=True)
    try:
        here, counted = make_plan(run), operations(run.renderer, run.tasks[0])
    finally:
        run.close()
    away = outline_plan(Study(**{**study.__dict__, "model": str(bare)}), Weights())
    assert [(s.name, s.images, s.evaluations) for s in away.stages] == [
        (s.name, s.images, s.evaluations) for s in here.stages
    ]
    assert (away.blocks, away.exact) == (here.blocks, here.exact)
    assert away.seconds is None
    # The text that the outline assumes is longer than what this model's tokenizer fills.
    assert away.operations is not None
    assert counted == here.operations
    assert counted < away.operations < 20 * counted
    tuned, bare_tuned = tuning_of(study), tuning_of(Study(**{**study.__dict__, "model": str(bare)}))
    first, second = plan_of(tuned, tmp_path / "b"), outline_tuning_plan(bare_tuned, Weights())
    assert [(s.name, s.images, s.evaluations) for s in second.stages] == [
        (s.name, s.images, s.evaluations) for s in first.stages
    ]


def test_attention_counts_as_work(study: Study, tmp_path: Path) -> None:
    """PyTorch's counter passes over the fused attention of a CPU."""
    run = Run(study, "tiny", Folder(tmp_path / "a", configuration(study, "tiny", TRAINER)), 8, TRAINER, quiet=True)
    try:
        small = operations(run.renderer, run.tasks[0])
    finally:
        run.close()
    big = Study(**{**study.__dict__, "height": 32, "width": 32})
    run = Run(big, "big", Folder(tmp_path / "b", configuration(big, "big", TRAINER)), 8, TRAINER, quiet=True)
    try:
        assert (
            operations(run.renderer, run.tasks[0]) > 4 * small - 3 * small / 10
        )  # image tokens are four times as many, text stays
    finally:
        run.close()


@pytest.mark.parametrize(
    ("name", "heads", "billions"),
    [("sd3-medium", 576, 2.1), ("sd3.5-medium", 888, 2.3), ("sd3.5-large", 1444, 8.1), ("flux-dev", 1368, 12.0)],
)
@pytest.mark.slow
def test_published_models_need_no_network(name: str, heads: int, billions: float) -> None:
    outline = outline_of(name)
    assert len(outline.head_map) == heads
    assert outline.parameters == pytest.approx(billions * 1e9, rel=0.05)
    once, twice = (outline.operations(steps, 512, 512) for steps in (1, 2))
    assert once is not None
    assert twice is not None
    assert 1e12 < twice - once < 3e13


def test_a_published_model_in_short() -> None:
    outline = outline_of("sd3-medium")
    assert len(outline.head_map) == 576
    assert outline.parameters == pytest.approx(2.1e9, rel=0.05)


def test_a_folder_without_configuration_is_an_error(bare: Path) -> None:
    (bare / "transformer" / "config.json").unlink()
    with pytest.raises(ModelError, match="cannot load the model"):
        outline_of(str(bare))


def test_the_command_tells_a_tuning_from_a_study(
    study_file: Path, bare: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert not is_tuning([str(study_file), "--rounds", "2"])
    assert is_tuning([str(study_file), "--recipe", "L1.H1"])
    assert is_tuning(["strength"])
    words = ["plan", str(study_file), "--model", str(bare), *CPU]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "images  48\n" in said
    assert "not told: the weights of" in said
    assert "in the store" not in said
    assert main([*words, "--recipe", "L1.H1", "--trials", "4", "--pruner", "none"]) == 0
    said = capsys.readouterr().out
    assert "trials" in said
    assert f"images  {2 * 2 + (4 - 2) * 2 + 2 + 4 * 3}\n" in said
    assert main(["plan", str(study_file), "--space", "{strength: [0, 1]}", *CPU]) == 2
    assert "there is nothing to tune" in capsys.readouterr().err
    assert main(["plan", "nothing"]) == 2
    assert "study or tuning 'nothing'" in capsys.readouterr().err


def test_the_command_plans_a_tuning_here(
    study_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    data = yaml.safe_load(study_file.read_text(encoding="utf-8"))
    study_file.write_text(yaml.safe_dump({**data, "recipe": "L1.H1", "trials": 3}), encoding="utf-8")
    before = sorted(tmp_path.rglob("*"))
    assert main(["plan", str(study_file), *CPU]) == 0
    said = capsys.readouterr().out
    assert "at most 20, of which the store of runs/tune-tiny has 0" in said
    assert "time left" in said
    assert sorted(tmp_path.rglob("*")) == before
    assert main(["tune", str(study_file), *CPU]) == 0
    capsys.readouterr()
    assert main(["plan", str(study_file), *CPU]) == 0
    assert "finished run" in capsys.readouterr().out


def test_a_tuning_keeps_the_order_of_its_heads(study: Study, tmp_path: Path) -> None:
    """So that another tuning can take its recipe and vary how many lead."""
    out = tmp_path / "run"
    tuned: Tuned = tune(tuning_of(study, recipe="L2.H1 L0.H0", trials=2), "tiny", out, trainer=TRAINER)
    assert [str(head) for head in tuned.recipe.heads] == ["L0.H0", "L2.H1"]
    moved = tmp_path / "moved.json"
    moved.write_bytes((out / "recipe.json").read_bytes())
    again = tuning_of(study, recipe=str(moved), space={"leading": [1, 2]})
    _, space, _, _ = opened(again, "again", tmp_path / "again", TRAINER)
    assert [str(head) for head in space.order or ()] == ["L2.H1", "L0.H0"]
