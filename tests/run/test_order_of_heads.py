"""A recipe file says in which order its heads were found."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from pagopt.errors import RecipeError, StudyError
from pagopt.experiment import run_study
from pagopt.recipe import Provenance, Recipe, load_recipe
from pagopt.results import Estimate, Round
from pagopt.search.candidates import found_order
from pagopt.study import Study
from pagopt.tuning import Space, Tuning
from pagopt.tuning.start import find_start

TRAINER = {"accelerator": "cpu"}


def test_the_file_of_a_search_says_it_without_its_results(study: Study, tmp_path: Path) -> None:
    results = run_study(replace(study, rounds=3), "tiny", tmp_path / "run", trainer=TRAINER)
    found = [done.chosen[0] for done in results.rounds]
    moved = tmp_path / "moved.json"
    moved.write_bytes((tmp_path / "run" / "recipe.json").read_bytes())
    recipe, provenance = load_recipe(moved)
    assert provenance is not None
    assert [str(head) for head in provenance.order() or ()] == found
    tuning = Tuning(study, str(moved), {"leading": [1, 3]})
    start = find_start(tuning)
    assert [str(head) for head in start.order or ()] == found
    point = Space(tuning.space, start.recipe, start.order, study.steps).draw(lambda name, parameter: 1)
    assert [str(head) for head in point.recipe.heads] == found[:1]
    # It is no part of the recipe: the keys of stored images are those of before.
    assert "order" not in recipe.to_dict()
    assert recipe == Recipe.from_dict(json.loads(moved.read_text(encoding="utf-8"))["recipe"])


def test_files_of_before_still_load(study: Study, tmp_path: Path) -> None:
    run_study(study, "tiny", tmp_path / "run", trainer=TRAINER)
    file = tmp_path / "run" / "recipe.json"
    data = json.loads(file.read_text(encoding="utf-8"))
    order = data["provenance"]["evidence"].pop("order")
    file.write_text(json.dumps(data), encoding="utf-8")
    tuning = Tuning(study, str(file), {"leading": [1, 2]})
    assert [str(head) for head in find_start(tuning).order or ()] == order  # results.json lies beside it
    (tmp_path / "run" / "results.json").unlink()
    start = find_start(tuning)
    assert start.order is None
    with pytest.raises(StudyError, match="does not say in which order"):
        Space(tuning.space, start.recipe, start.order, study.steps)


def test_heads_changed_by_hand_have_no_order(study: Study, tmp_path: Path) -> None:
    file = tmp_path / "mine.json"
    Recipe("L0.H0 L1.H1 L2.H0").save(file, Provenance("tiny", "00", evidence={"order": ["L1.H1", "L0.H0"]}))
    assert find_start(Tuning(study, str(file))).order is None


@pytest.mark.parametrize("order", ["L1.H1", [7], ["L1"], ["L1.H1", "L1.H1"], 3])
def test_what_is_no_order_is_refused(order: object, study: Study, tmp_path: Path) -> None:
    file = tmp_path / "bad.json"
    Recipe("L0.H0 L1.H1").save(file, Provenance("tiny", "00", evidence={"order": order}))
    with pytest.raises(RecipeError, match="order = "):
        find_start(Tuning(study, str(file)))


def test_exchanged_heads_come_last() -> None:
    score = Estimate(0.0, 0.0)
    rounds = [
        Round(1, (), {}, ("L3.H1", "L1.H0"), score),
        Round(2, ("L1.H0", "L3.H1"), {}, ("L4.H2 for L3.H1", "L0.H5"), score),
        Round(3, ("L0.H5", "L1.H0", "L4.H2"), {}, ("without L1.H0",), score),
    ]
    assert [str(head) for head in found_order(rounds)] == ["L4.H2", "L0.H5"]
