"""What optuna-dashboard reads: one sheet of pictures a trial, names for values, and attributes that can be read."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.artifacts import get_all_artifact_meta
from PIL import Image

from pagopt.cli.tune import parser, read
from pagopt.recipe import Recipe
from pagopt.tuning import Tuned, Tuning, tune
from pagopt.tuning.ledger import Ledger
from tests.tune.conftest import TRAINER

Make = Callable[..., Tuning]


def study_of(out: Path) -> optuna.Study:
    return optuna.load_study(study_name="tiny", storage=f"sqlite:///{out / 'tuning.db'}")


def sheets(study: optuna.Study, folder: Path) -> dict[int, list[Path]]:
    """The files of every trial."""
    return {
        trial.number: [folder / one.artifact_id for one in get_all_artifact_meta(trial, storage=study._storage)]
        for trial in study.trials
    }


def test_every_trial_has_one_sheet_of_what_it_drew(whole: tuple[Tuned, Path]) -> None:
    tuned, out = whole
    study = study_of(out)
    found = sheets(study, out / "artifacts")
    assert sorted(found) == [row.number for row in tuned.trials]
    sizes = set()
    for number, (path,) in found.items():
        (meta,) = get_all_artifact_meta(study.trials[number], storage=study._storage)
        assert (meta.mimetype, meta.filename) == ("image/webp", f"trial-{number:04}.webp")
        with Image.open(path) as picture:
            assert picture.format == "WEBP"
            sizes.add(picture.size)
    assert len(list((out / "artifacts").iterdir())) == len(found), "and nothing beside them"
    states = {row.state for row in tuned.trials}
    assert len(sizes) <= len(states), "stopped early: fewer tasks"
    files = [path.read_bytes() for (path,) in found.values()]
    assert len(set(files)) == len(files), "each trial its own"


def test_a_reader_finds_numbers_and_words(whole: tuple[Tuned, Path]) -> None:
    tuned, out = whole
    study = study_of(out)
    assert study.metric_names == ["colorfulness"]
    for trial, row in zip(study.trials, tuned.trials, strict=True):
        shown = trial.user_attrs
        assert not [value for value in shown.values() if isinstance(value, dict)], "no blobs"
        assert shown["tasks"] == len(row.objective)
        assert shown["mean colorfulness"] == pytest.approx(sum(row.objective.values()) / len(row.objective), rel=1e-5)
        recipe = Recipe.from_dict(row.recipe)
        assert shown["block evaluations a picture"] >= 3 * 2, "3 blocks, 2 steps"
        assert f"u {recipe.strengths[0]:.3g} w {recipe.scale:.3g}" in shown["recipe"]
        assert "misses" not in shown


def test_going_on_adds_no_second_sheet(whole: tuple[Tuned, Path], make: Make, tmp_path: Path) -> None:
    """Also where a run ends between the pictures and the result of a trial."""
    _, done = whole
    out, pictures = tmp_path / "parts", tmp_path / "shared"
    real, told = Ledger.tell, []

    def tell(self: Ledger, number: int, *rest: Any, **options: Any) -> None:
        told.append(number)
        if len(told) == 2:
            raise KeyboardInterrupt
        real(self, number, *rest, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Ledger, "tell", tell)
        with pytest.raises(KeyboardInterrupt):
            tune(make(), "tiny", out, trainer=TRAINER, store=done / "store", artifacts=pictures)
    assert len(list(pictures.iterdir())) == 2, "the second one was not told"
    tuned = tune(make(), "tiny", out, trainer=TRAINER, store=done / "store", artifacts=pictures)
    found = sheets(study_of(out), pictures)
    finished = [found[row.number] for row in tuned.trials]
    assert [len(paths) for paths in finished] == [1] * 7
    assert len(list(pictures.iterdir())) == sum(map(len, found.values())) == 7
    assert not (out / "artifacts").exists()


def test_pictures_that_cannot_be_kept_are_a_warning(whole: tuple[Tuned, Path], make: Make, tmp_path: Path) -> None:
    tuned, done = whole
    file = tmp_path / "file"
    file.write_text("in the way", encoding="utf-8")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        other = tune(make(), "tiny", tmp_path / "run", trainer=TRAINER, store=done / "store", artifacts=file)
    words = [str(one.message) for one in said if "could not be put into" in str(one.message)]
    assert len(words) == 1, "once, not for every trial"
    assert str(file) in words[0]
    assert "The study goes on" in words[0]
    assert [row.values for row in other.trials] == [row.values for row in tuned.trials]
    assert not any(sheets(study_of(tmp_path / "run"), file).values())


def test_the_command_takes_a_folder_for_them(tuning_file: Path) -> None:
    asked = read([str(tuning_file), "--artifacts", "elsewhere"], parser())
    assert asked.options["artifacts"] == Path("elsewhere")
