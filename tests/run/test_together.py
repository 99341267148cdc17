"""Several processes of a run decide together, whatever others put into the store meanwhile."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pagopt.evaluate import Evaluator, make_trainer
from pagopt.evaluate import evaluator as module
from pagopt.models import load_pipeline
from pagopt.recipe import Recipe
from pagopt.render import Job, Renderer, Task
from pagopt.reward import load_reward
from pagopt.store import Store

TASKS = [Task("red apple", 0), Task("house", 1)]
RECIPES = [Recipe(scale=0.0), Recipe("L1.H0")]

# Before every reading of the store by the second process, another run fills it: it looks only after that.
SCRIPT = """
import os, sys
from pagopt.evaluate import Evaluator, make_trainer
from pagopt.models import load_pipeline
from pagopt.recipe import Recipe
from pagopt.render import Renderer, Task
from pagopt.reward import load_reward
from pagopt.store import Store

model, folder = sys.argv[1:]
rank = os.environ.get("LOCAL_RANK", "0")
if rank == "1":
    Evaluator._incomplete = lambda self, keys: set()
with Store(folder) as store:
    renderer = Renderer(load_pipeline(model), steps=2)
    trainer = make_trainer(accelerator="cpu", devices=2)
    evaluate = Evaluator(renderer, {"b": load_reward("brightness")}, store, trainer, batch_size=2)
    tasks = [Task("red apple", 0), Task("house", 1)]
    said = []
    for recipes in ([Recipe(scale=0.0)], [Recipe(scale=0.0), Recipe("L1.H0")], [Recipe("L1.H0")]):
        table = evaluate(recipes, tasks)["b"]
        said.append(f"{table.shape} {evaluate.missing(recipes, tasks)} {evaluate.images_generated}")
    print(f"rank {rank}: {said}", flush=True)
"""


@pytest.fixture(scope="module")
def renderer(tiny_model: Path) -> Renderer:
    return Renderer(load_pipeline(str(tiny_model)), steps=2)


def test_the_first_process_decides(renderer: Renderer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second one draws what the first one lacks, though it finds everything itself."""
    with Store(tmp_path / "store") as store:
        trainer = make_trainer(accelerator="cpu")
        evaluate = Evaluator(renderer, {"b": load_reward("brightness")}, store, trainer)
        table = evaluate(RECIPES, TASKS)
        keys = evaluate.keys(RECIPES, TASKS)
        answers: list[Any] = [({keys[1][0]}, 1), table, {keys[0][0]}]
        asked: list[Any] = []
        drawn: list[Sequence[Job]] = []

        def broadcast(value: Any) -> Any:
            asked.append(value)
            return answers.pop(0)

        monkeypatch.setattr(module, "_joined", lambda: True)
        monkeypatch.setattr(type(trainer), "is_global_zero", property(lambda _: False))
        monkeypatch.setattr(trainer.strategy, "broadcast", broadcast)
        monkeypatch.setattr(evaluate, "_predict", drawn.append)
        np.testing.assert_array_equal(evaluate(RECIPES, TASKS)["b"], table["b"])
        assert drawn == [[Job(RECIPES[1], TASKS[0])]]
        assert evaluate.images_generated == len(RECIPES) * len(TASKS) + 1
        assert evaluate.missing(RECIPES, TASKS) == 1
        assert asked == [None, None, None], "what the second process finds counts for nothing"


def test_the_others_are_started_before_the_first_decision(
    renderer: Renderer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else one that is started later finds more in the store, and leaves the first one waiting."""
    with Store(tmp_path / "store") as store:
        trainer = make_trainer(accelerator="cpu")
        evaluate = Evaluator(renderer, {"b": load_reward("brightness")}, store, trainer)
        evaluate(RECIPES, TASKS)
        predicted: list[Sequence[Job]] = []
        monkeypatch.setattr(type(trainer), "world_size", property(lambda _: 2))
        monkeypatch.setattr(evaluate, "_predict", predicted.append)
        evaluate(RECIPES, TASKS)
        assert predicted == [[]]
        predicted.clear()
        assert evaluate.missing(RECIPES, TASKS) == 0
        assert evaluate.stored(RECIPES, TASKS) is not None
        assert not predicted, "looking starts nothing"


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("filled", [False, True])
def test_a_store_that_fills_between_two_readings(filled: bool, renderer: Renderer, tmp_path: Path) -> None:
    model, folder, script = renderer.pipe.config._name_or_path, tmp_path / "store", tmp_path / "script.py"
    script.write_text(SCRIPT)
    if filled:  # nothing is to be drawn at first, so that the first process could go on alone
        with Store(folder) as store:
            alone = Evaluator(renderer, {"b": load_reward("brightness")}, store, make_trainer(accelerator="cpu"))
            alone(RECIPES[:1], TASKS)
    done = subprocess.run(
        [sys.executable, str(script), str(model), str(folder)],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = sorted(line for line in done.stdout.splitlines() if line.startswith("rank "))
    first = 0 if filled else 2
    said = [f"(1, 2) 0 {first}", f"(2, 2) 0 {first + 2}", f"(1, 2) 0 {first + 2}"]
    assert lines == [f"rank 0: {said}", f"rank 1: {said}"]
