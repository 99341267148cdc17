"""A whole tuning: what it leaves behind, and that its numbers are what they say."""

from __future__ import annotations

import csv
import dataclasses
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file, save_file
from scipy import stats

from pagopt.errors import StudyError
from pagopt.evaluate import Evaluator, make_trainer
from pagopt.models import load_pipeline
from pagopt.recipe import Recipe, load_recipe
from pagopt.render import Renderer
from pagopt.reward import Objective, RewardSpec
from pagopt.store import Store
from pagopt.tuning import TrialRow, Tuned, Tuning, load_tuned, tune
from pagopt.tuning import run as runs
from tests.tune.conftest import TRAINER

Make = Callable[..., Tuning]


def plain(rows: list[TrialRow]) -> list[Any]:
    """What has to be the same in two runs."""
    return [(row.state, row.label, row.parameters, row.values) for row in rows]


def test_a_tuning_leaves_what_it_promises(whole: tuple[Tuned, Path]) -> None:
    tuned, out = whole
    assert [row.label for row in tuned.trials][:4] == ["no guidance", "u = 0.5", "as it was", ""]
    assert len(tuned.trials) == 7
    assert {row.state for row in tuned.trials} <= {"complete", "pruned"}
    assert load_tuned(out / "results.json") == tuned
    best = tuned.trial(tuned.best[0])
    assert best.values[0] == max(row.values[0] for row in tuned.trials if row.state == "complete")
    recipe, provenance = load_recipe(out / "recipe.json")
    assert recipe == tuned.recipe == Recipe.from_dict(best.recipe)
    assert provenance is not None
    assert provenance.fingerprint == tuned.fingerprint
    assert provenance.evidence["tuning"]["from"] == "L1.H1 L0.H0"
    assert provenance.evidence["search_tasks"][0] == ["red apple", 0]
    assert [one.method.name for one in tuned.methods] == ["no guidance", "CFG 2", "as it was", "tuned"]
    assert [test.against for test in tuned.tests["tuned"]] == ["no guidance", "CFG 2", "as it was"]
    lines = list(csv.DictReader((out / "trials.csv").read_text(encoding="utf-8").splitlines()))
    assert [line["state"] for line in lines] == [row.state for row in tuned.trials]
    assert float(lines[0]["value objective"]) == pytest.approx(tuned.trials[0].values[0], rel=1e-5)
    assert (out / "report.html").stat().st_size > 10_000
    assert (out / "sheet.png").stat().st_size > 1000


def test_its_numbers_are_the_evaluators(whole: tuple[Tuned, Path], make: Make, tmp_path: Path) -> None:
    """Every trial's value, against an evaluator with a store of its own, one recipe at a time."""
    tuned, _ = whole
    study = make().study
    store = Store(tmp_path / "store")
    renderer = Renderer(load_pipeline(study.model), study.steps)
    evaluator = Evaluator(renderer, Objective(["colorfulness"]).rewards, store, make_trainer(**TRAINER))
    complete = [row for row in tuned.trials if row.state == "complete"]
    for row in complete[:4]:
        scores = evaluator([Recipe.from_dict(row.recipe)], study.tasks())["colorfulness"][0]
        assert row.values[0] == pytest.approx(float(scores.mean()), abs=1e-4)
        assert [row.objective[task] for task in range(6)] == pytest.approx(scores.tolist(), abs=1e-4)
        assert row.values[0] == float(np.mean([row.objective[task] for task in range(6)]))
    assert tuned.baseline.mean == complete[0].values[0], "no guidance is the first trial"
    found = evaluator([tuned.recipe], study.held_out_tasks())["colorfulness"][0]
    assert tuned.methods[-1].method.objective == pytest.approx(found.tolist(), abs=1e-4)
    store.close()


def test_a_finished_one_returns_at_once_and_more_trials_go_on(
    whole: tuple[Tuned, Path], make: Make, tmp_path: Path
) -> None:
    """The store and the study are shared, so going on draws only what is new; and comes to what one run comes to."""
    tuned, done = whole
    before = (done / "results.json").stat().st_mtime_ns
    assert tune(make(study={"model": tuned.model}), "tiny", str(done), trainer=TRAINER) == tuned
    assert (done / "results.json").stat().st_mtime_ns == before
    out = tmp_path / "parts"
    less = tune(make(trials=4), "tiny", out, trainer=TRAINER, store=done / "store")
    assert less.images_generated == 0, "nothing is drawn twice"
    assert plain(less.trials) == plain(tuned.trials[:4])
    more = tune(make(), "tiny", out, trainer=TRAINER, store=done / "store")
    assert more.images_generated == 0
    assert plain(more.trials) == plain(tuned.trials)
    assert more.recipe == tuned.recipe


def test_a_finished_one_of_other_weights_is_refused(make: Make, tiny_model: Path, tmp_path: Path) -> None:
    """Weights that were only copied or touched are looked at, and are the same."""
    folder, out = tmp_path / "model", tmp_path / "run"
    shutil.copytree(tiny_model, folder)
    (weights,) = (folder / "transformer").glob("*.safetensors")
    few = make(study={"model": str(folder)}, trials=2)
    first = tune(few, "tiny", out, trainer=TRAINER)
    os.utime(weights, (1, 1))
    touched = tune(few, "tiny", out, trainer=TRAINER)
    assert touched.images_generated == 0
    assert plain(touched.trials) == plain(first.trials)
    save_file({name: 1.5 * value for name, value in load_file(weights).items()}, weights)
    with pytest.raises(StudyError, match="of something else:\n  model_fingerprint: there"):
        tune(few, "tiny", out, trainer=TRAINER)
    assert load_tuned(out / "results.json") == touched


def test_an_interrupted_one_goes_on_to_the_same_trials(
    whole: tuple[Tuned, Path], make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tuned, done = whole
    out, store = tmp_path / "stopped", done / "store"
    real, calls = runs.TuningRun._try, 0

    def tries(self: Any, batch: Any, ledger: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise KeyboardInterrupt
        real(self, batch, ledger)

    with monkeypatch.context() as patch:
        patch.setattr(runs.TuningRun, "_try", tries)
        with pytest.raises(KeyboardInterrupt):
            tune(make(), "tiny", out, trainer=TRAINER, store=store)
    assert not (out / "results.json").exists()
    rest = tune(make(), "tiny", out, trainer=TRAINER, store=store)
    assert len(rest.trials) == 7, "what was stopped counts as no trial"
    labels = [row.label for row in rest.trials]
    assert sorted(labels) == sorted(row.label for row in tuned.trials), "the stopped ones were queued again"
    assert [row.parameters for row in rest.trials if row.label] == [row.parameters for row in tuned.trials if row.label]


def test_a_trial_that_is_clearly_behind_is_stopped_early(make: Make, tmp_path: Path) -> None:
    """By the Wilcoxon test of scipy over the tasks that it saw, against the best trial at that time."""
    study = {"prompts": [f"thing {i}" for i in range(14)], "cfg_scales": []}
    tuning = make(
        study=study, trials=10, at_once=1, rungs=[7], sampler="random", sampler_options={},
        space={"strength": [0, 1], "scale": {"low": 0.5, "high": 12, "log": True}},
    )  # fmt: skip
    tuned = tune(tuning, "tiny", tmp_path / "run", trainer=TRAINER)
    first = tuning.slices()[0]
    assert len(first) == 7
    states = []
    for place, row in enumerate(tuned.trials):
        complete = [one for one in tuned.trials[:place] if one.state == "complete"]
        best = max(complete, key=lambda one: one.values[0], default=None)
        wanted = "complete"
        if best is not None:
            gains = [row.objective[task] - best.objective[task] for task in first]
            p = stats.wilcoxon(gains, alternative="less", zero_method="zsplit").pvalue
            wanted = "pruned" if p < 0.1 and np.mean(gains) < 0 else "complete"
        states.append(wanted)
        assert len(row.objective) == (7 if wanted == "pruned" else 14)
    assert [row.state for row in tuned.trials] == states
    assert set(states) == {"pruned", "complete"}, "or this says nothing"


def test_a_trial_that_fails_is_recorded_with_its_cause(make: Make, tmp_path: Path) -> None:
    space = {"target": ["identity", "blur"], "blur.sigma": {"choices": [1.0, -1.0]}, "strength": [0, 1]}
    tuning = make(space=space, trials=12, at_once=3, sampler="random", sampler_options={}, pruner="none", rungs=None)
    tuned = tune(tuning, "tiny", tmp_path / "run", trainer=TRAINER)
    bad = [row for row in tuned.trials if row.parameters.get("blur.sigma") == -1.0]
    assert bad, "or this says nothing"
    for row in tuned.trials:
        assert row.state == ("fail" if row in bad else "complete"), row.cause
        assert row.values == () if row in bad else len(row.values) == 1
    assert "sigma" in bad[0].cause
    assert tuned.recipe.target_options != (("sigma", -1.0),)


def test_where_all_trials_fail_it_stops_and_says_why(make: Make, tmp_path: Path) -> None:
    space = {"target": "blur", "blur.sigma": {"choices": [-2.0, -1.0]}}
    with pytest.raises(StudyError, match=r"all 2 trials failed so far; the last one: .*sigma"):
        tune(make(space=space, sampler="random", sampler_options={}), "tiny", tmp_path / "run", trainer=TRAINER)


def test_several_objectives_and_a_constraint(make: Make, tmp_path: Path) -> None:
    tuning = make(
        space={"strength": [0, 1], "cfg": {"choices": [1.0, 2.0]}, "steps": {"choices": [2, 3]}},
        objectives=[RewardSpec("brightness", -1.0), "cost"],
        constraints=[RewardSpec("sharpness", at_least="baseline - 3 sd")],
        trials=8,
        at_once=4,
        sampler="random",
        sampler_options={},
        rungs=None,
    )
    tuned = tune(tuning, "tiny", tmp_path / "run", trainer=TRAINER)
    assert [(goal.name, goal.higher) for goal in tuned.goals] == [
        ("objective", True), ("brightness", False), ("cost", False),
    ]  # fmt: skip
    assert all(row.state == "complete" for row in tuned.trials), "nothing is pruned with several objectives"
    (name,) = tuned.trials[0].limits
    assert name.startswith("sharpness at least")
    able = [row for row in tuned.trials if row.is_feasible]

    def beats(one: TrialRow, other: TrialRow) -> bool:
        signs = (1, -1, -1)
        gains = [sign * (a - b) for sign, a, b in zip(signs, one.values, other.values, strict=True)]
        return min(gains) >= 0 and max(gains) > 0

    front = {row.values for row in able if not any(beats(other, row) for other in able)}
    assert {tuned.trial(number).values for number in tuned.best} == front
    assert len(tuned.best) == len(front)
    files = sorted((tmp_path / "run" / "front").glob("*.json"))
    assert [load_recipe(file)[0].to_dict() for file in files] == [tuned.trial(n).recipe for n in tuned.best]
    blocks = {row.values[2] for row in tuned.trials if row.recipe["cfg"] == 1.0 and row.label == "no guidance"}
    assert blocks == {3.0 * 2}, "3 blocks, 2 steps"
    for one in tuned.methods:
        if one.trial is not None:
            row = tuned.trial(one.trial)
            assert (one.cost, one.steps) == (row.values[2], row.steps)
            assert provenance_steps(files[tuned.best.index(row.number)]) == row.steps
    sharpness = np.mean(list(able[0].scores["sharpness"].values()))
    assert able[0].limits[name] == pytest.approx(limit_of(name) - sharpness, rel=1e-3)


def provenance_steps(file: Path) -> int:
    provenance = load_recipe(file)[1]
    assert provenance is not None
    return int(provenance.evidence["steps"])


def limit_of(name: str) -> float:
    return float(name.split()[3])


def test_a_recipe_of_another_model_is_refused(whole: tuple[Tuned, Path], make: Make, tmp_path: Path) -> None:
    _, done = whole
    recipe, provenance = load_recipe(done / "recipe.json")
    assert provenance is not None
    file = tmp_path / "other.json"
    recipe.save(file, dataclasses.replace(provenance, fingerprint="0" * 32))
    with pytest.raises(StudyError, match="was found on another model"):
        tune(make(recipe=str(file)), "tiny", tmp_path / "run", trainer=TRAINER)


def test_tasks_of_the_search_are_not_held_out(whole: tuple[Tuned, Path], make: Make, tmp_path: Path) -> None:
    _, done = whole
    study = {"held_out_prompts": ["red apple"], "held_out_seeds": [0], "prompts": ["one", "two"]}
    with pytest.raises(StudyError, match="looked at 'red apple' with seed 0, which this tuning holds out"):
        tune(make(study=study, rungs=None, recipe=str(done / "recipe.json")), "tiny", tmp_path / "run", trainer=TRAINER)
