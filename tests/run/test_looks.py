"""Looks ride along with every score, and a search that spoils them says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from pagopt.cli import main
from pagopt.evaluate import Evaluator, make_trainer
from pagopt.looks import KIND, MEASURES, measure
from pagopt.models import load_pipeline
from pagopt.recipe import Recipe, load_recipe
from pagopt.render import Renderer, Task
from pagopt.report.guards import notice, read_guards
from pagopt.results import load_results
from pagopt.reward import load_reward
from pagopt.store import Store


def test_every_image_is_measured_when_it_is_drawn(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks, recipes = [Task("red apple", 0), Task("house", 1)], [Recipe(scale=0.0), Recipe("L1.H0")]
    with Store(tmp_path / "store") as store:
        renderer = Renderer(load_pipeline(str(tiny_model)), steps=2)
        evaluator = Evaluator(
            renderer, {"b": load_reward("brightness")}, store, make_trainer(accelerator="cpu"), batch_size=4
        )
        evaluator(recipes, tasks)
        keys = [key for row in evaluator.keys(recipes, tasks) for key in row]
        assert set(store.get_notes(KIND, keys)) == set(keys)
        expected = [measure(store.get_image(key)) for key in keys]
        with monkeypatch.context() as patch:
            patch.setattr(Store, "get_image", None)  # no image is opened again
            assert evaluator.looks([*keys, keys[0]]) == [*expected, expected[0]]
        for room in ("evaluator", "generation"):
            monkeypatch.setattr(f"pagopt.evaluate.{room}.KIND", "looks@later")
        assert evaluator.looks(keys) == expected
        assert set(store.get_notes("looks@later", keys)) == set(keys)


def test_a_search_says_where_to_look(
    capsys: pytest.CaptureFixture[str], study_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tiny model draws noise, whose contrast guidance moves by a seventh: the threshold is lowered to that."""
    monkeypatch.setattr("pagopt.report.guards.JUMP", 0.1)
    monkeypatch.setenv("COLUMNS", "200")
    out = tmp_path / "run"
    words = ["--scale", "40", "--rounds", "1", "--compare_layers", "false", "--trainer.accelerator", "cpu"]
    assert main(["search", str(study_file), "--out", str(out), *words]) == 0
    text = capsys.readouterr().out
    results = load_results(out / "results.json")
    assert all(set(method.looks) == set(MEASURES) for method in results.methods)
    assert {len(values) for method in results.methods for values in method.looks.values()} == {3}
    seen = notice(results, read_guards(results))
    assert seen.kind == "jump"
    assert f"look closely: {seen.text}" in text
    assert f"{out / 'sheet.png'}, and those that changed most in {out / 'report.html'}#guards" in text
    provenance = load_recipe(out / "recipe.json")[1]
    assert provenance is not None
    assert provenance.evidence["looks"]["notice"] == seen.text
    page = (out / "report.html").read_text(encoding="utf-8")
    for measure_ in ("contrast", "sharpness", "saturation"):
        assert (f"<h3>Where {measure_} fell most</h3>" in page) == (f"{measure_} fell" in seen.text)
