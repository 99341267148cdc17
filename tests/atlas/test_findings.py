"""Effects by hand, and findings as data."""

from __future__ import annotations

import csv
import io
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from pagopt.atlas import Effect, Findings, load_findings
from pagopt.atlas.findings import MOVED, effects_of
from pagopt.errors import StudyError
from pagopt.heads import Head
from pagopt.store import needed_by


@pytest.fixture(scope="module")
def scores() -> dict[str, np.ndarray]:
    """Head L1.H0 raises "style", L0.H1 lowers "light", and L0.H0 changes nothing at all."""
    generator = np.random.default_rng(0)
    scores = {measure: generator.normal(size=(4, 20)) for measure in ("style", "light")}
    for rows in scores.values():
        rows[1:] = rows[0] + 0.1 * generator.normal(size=(3, 20))
        rows[1] = rows[0]
    scores["style"][3] += 2
    scores["light"][2] -= 1
    return scores


def test_effects_are_paired_differences(scores):
    found = effects_of(scores, ["L0.H0", "L0.H1", "L1.H0"])
    assert [list(row) for row in found.values()] == [["L0.H0", "L0.H1", "L1.H0"]] * 2
    effect = found["style"]["L1.H0"]
    test = stats.ttest_rel(scores["style"][3], scores["style"][0])
    assert effect.mean == pytest.approx(2, abs=0.1)
    assert effect.mean / effect.se == pytest.approx(test.statistic)
    assert test.pvalue <= effect.p <= 6 * test.pvalue
    assert effect.certain
    assert found["light"]["L0.H1"].mean == pytest.approx(-1, abs=0.1)
    always = effects_of({"style": np.array([[0.0] * 20, [1.0] * 20, [0.1] * 20])}, ["L0.H0", "L0.H1"])["style"]
    assert [one.p for one in always.values()] == [2 * 2.0**-19, 2 * 2.0**-19]
    nothing = found["style"]["L0.H0"]
    assert (nothing.mean, nothing.se, nothing.p) == (0, 0, 1)


def test_chance_alone_is_rarely_certain():
    """Of 200 worlds in which no head does anything, at most about one in twenty has a certain effect."""
    generator = np.random.default_rng(1)
    false = 0
    for _ in range(200):
        world = {name: generator.normal(size=(11, 8)) for name in "abc"}
        found = effects_of(world, [f"L0.H{number}" for number in range(10)])
        false += any(one.certain for row in found.values() for one in row.values())
    assert false <= 20


def test_a_single_sample_is_not_tested():
    found = effects_of({"light": np.array([[1.0], [3.0]])}, ["L0.H0"])["light"]["L0.H0"]
    assert found.mean == 2
    assert math.isnan(found.se)
    assert math.isnan(found.p)
    assert not found.certain


def test_heads_and_layers_are_told_apart(made_up: Findings):
    assert list(made_up.layers("light")) == [0, 1]
    assert len(made_up.single("light")) == 6
    assert made_up.places() == [("attn", 0), ("attn", 1), ("attn2", 1)]
    assert made_up.shown(4) == [0, 2]
    assert made_up.shown(1) == [0]
    assert made_up.tested == ["light"]
    assert made_up.certain() == {"light": [Head(1, 2), Head(0, 1)]}


def test_the_full_colour_leaves_outliers_out(made_up: Findings):
    row = {f"L0.H{number}": Effect(0.01 * number, 0.0, 1.0) for number in range(100)}
    assert replace(made_up, effects={MOVED: row}).limits[MOVED] == pytest.approx(0.94)
    assert replace(made_up, effects={MOVED: dict.fromkeys(row, Effect(0.0, 0.0))}).limits[MOVED] == 1.0
    alone = {**dict.fromkeys(row, Effect(0.0, 0.0)), "L0.H0": Effect(-0.0123, 0.0)}
    assert replace(made_up, effects={MOVED: alone}).limits[MOVED] == pytest.approx(0.013)


def test_they_are_read_back_as_they_were(made_up: Findings, tmp_path: Path):
    made_up.save(tmp_path / "atlas.json")
    again = load_findings(tmp_path / "atlas.json")
    assert repr(again) == repr(made_up)  # NaN is not equal to itself
    assert again.images == made_up.images
    assert "NaN" not in (tmp_path / "atlas.json").read_text(encoding="utf-8")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema": 1}', '{"schema": 1, "tasks": 3}', '{"schema": 2}'])
def test_what_is_no_atlas_is_refused(text: str, tmp_path: Path):
    path = tmp_path / "atlas.json"
    with pytest.raises(StudyError, match="cannot read"):
        load_findings(path)
    path.write_text(text, encoding="utf-8")
    with pytest.raises(StudyError, match=r"no atlas|another version"):
        load_findings(path)


def test_the_table_has_a_line_for_every_head_and_measure(made_up: Findings):
    rows = list(csv.DictReader(io.StringIO(made_up.to_csv())))
    assert len(rows) == 2 * 8
    assert rows[0] == {
        "perturbed": "L0.H0",
        "measure": MOVED,
        "plain": "0",
        "change": "0.01",
        "standard_error": "0.001",
        "p": "",
    }
    (light,) = [row for row in rows if (row["perturbed"], row["measure"]) == ("L1.H2", "light")]
    assert (float(light["change"]), float(light["p"]), float(light["plain"])) == (0.2, 0.001, 0.5)


def test_a_store_keeps_the_pictures_of_an_atlas(made_up: Findings, tmp_path: Path) -> None:
    """Alone in a folder, beside other runs, and named itself; its recipe without heads keeps nothing more."""
    keys = [f"{number:064x}" for number in range(4 * len(made_up.images) + 4)]
    images = {name: keys[4 * at : 4 * at + 4] for at, name in enumerate(made_up.images)}
    folder = tmp_path / "runs" / "atlas-emoji"
    folder.mkdir(parents=True)
    replace(made_up, images=images, plain=keys[-4:]).save(folder / "atlas.json")
    for path in (tmp_path / "runs", folder, folder / "atlas.json"):
        needed = needed_by([path])
        assert needed.keys == set(keys)
        assert not needed.recipes
