"""The pure parts of the report: scales, colours, picture measures, numbers in words."""

from __future__ import annotations

import dataclasses
import math
import re
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image
from synthetic import make_results

from pagopt.report.charts import draw_differences, draw_rounds
from pagopt.report.palette import diverging_css, step_class
from pagopt.report.pictures import data_uris
from pagopt.report.reading import decimals, number, objective_name, p_text, read_rows, signed
from pagopt.report.scoremap import centres, common_limit, draw_map
from pagopt.report.svg import pad, spread, tag, ticks
from pagopt.results import Estimate


def test_tags_escape_text_and_attributes() -> None:
    assert tag("text", "<&>", class_='a"b', stroke_width=1.234, x=None) == (
        '<text class="a&#34;b" stroke-width="1.2">&lt;&amp;&gt;</text>'
    )


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-0.013, 0.27), (990, 1010), (-5e-4, 2e-4)])
def test_ticks_are_round_and_inside(low: float, high: float) -> None:
    made = ticks(low, high)
    assert 2 <= len(made) <= 7
    assert all(low - 1e-9 <= value <= high + 1e-9 for value, _ in made)
    assert len({text for _, text in made}) == len(made)


def test_values_that_are_the_same_but_for_rounding_are_one() -> None:
    values = [0.1 + 0.2, 0.3, 0.3]
    assert len(set(values)) == 2
    assert Estimate.of(values).se == 0
    low, high = pad(values)
    assert [text for _, text in ticks(low, high)] == ["0.29", "0.30", "0.31"]


def test_labels_move_apart_and_keep_their_order() -> None:
    moved = spread([10.0, 11.0, 11.5, 60.0], 12)
    assert moved[3] == 60
    assert moved[:3] == sorted(moved[:3])
    assert min(b - a for a, b in pairwise(moved)) >= 12 - 1e-9
    assert math.isclose(sum(moved[:3]) / 3, sum([10.0, 11.0, 11.5]) / 3, abs_tol=0.6)


def test_colour_steps() -> None:
    assert [step_class(v, 1.0) for v in (-9, -1, 0.01, 0.5, 9)] == ["n10", "n10", "z", "p5", "p10"]
    assert step_class(math.nan, 1.0) == "x"
    assert step_class(0.3, 0.0) == "z"
    assert diverging_css(False) != diverging_css(True)
    assert ".p10{fill:#c8500f}" in diverging_css(False)  # the end colour survives the trip through OKLab


def test_pictures_shrink_until_they_fit() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8)
    pictures = {str(i): Image.fromarray(noise) for i in range(4)}
    large = sum(map(len, data_uris(pictures, budget=10**9).values()))
    small = sum(map(len, data_uris(pictures, budget=60_000).values()))
    assert small < 60_000 * 1.4 < large


def test_methods_get_their_parts() -> None:
    rows = read_rows(make_results())
    assert [row.role for row in rows] == ["none", "cfg", "layer", "found"]
    assert [row.strength for row in rows] == ["", "", "1", "1"]
    assert rows[-1].test is None


def test_maps_are_centred_on_what_the_round_began_with() -> None:
    results = make_results()
    middle = centres(results)
    assert middle[0] == (results.baseline.mean, "no guidance")
    assert [centre for centre, _ in middle[1:]] == [item.score.mean for item in results.rounds[:-1]]
    assert common_limit(results.rounds, middle) > 0


def test_a_map_says_every_score() -> None:
    results = make_results(attn2=2)
    item = results.rounds[1]
    svg = draw_map(item, (0.2, "base"), 0.1, results.layers, results.heads)
    for name in item.scores:
        assert f"<title>{name}: " in svg
    for name in item.base:
        assert f"<title>{name}: selected in an earlier round</title>" in svg
    assert svg.count('class="ring"') == len(item.chosen)
    assert "chosen as number 2" in svg


def test_labels_of_charts_have_room() -> None:
    results = make_results(rounds=14, per_round=1)
    methods = list(results.methods)
    methods[2] = dataclasses.replace(methods[2], name="best layer L17 (of 12)")
    tests = [
        dataclasses.replace(test, against=method.name) for test, method in zip(results.tests, methods[:-1], strict=True)
    ]
    results = dataclasses.replace(results, methods=methods, tests=tests)
    rows = read_rows(results)
    places = {text: float(x) for x, text in re.findall(r'<text x="([\d.]+)"[^>]*>([^<]*)<', draw_rounds(results, rows))}
    assert places["round"] < places["1"] - 12, "it ends where the axis begins"
    (width,) = re.findall(r'viewBox="0 0 (\d+)', draw_rounds(results, rows))
    assert places["best layer L17 (of 12)"] + 22 * 6 < float(width)
    ends = re.findall(r'<text x="([\d.]+)"[^>]*>vs ', draw_differences(results, rows, "found recipe"))
    assert min(map(float, ends)) > len("vs best layer L17 (of 12)") * 6


@pytest.mark.parametrize("unit", [1e-5, 1e6])
def test_scores_of_any_size_have_their_digits_and_room_for_them(unit: float) -> None:
    results = make_results(rounds=0)
    methods = [dataclasses.replace(m, objective=tuple(unit * x for x in m.objective)) for m in results.methods]
    rows = read_rows(dataclasses.replace(results, methods=methods))
    svg = draw_rounds(results, rows)
    marks = re.findall(r'<text x="([\d.]+)" y="[\d.]+" text-anchor="end">([^<]*)<', svg)
    assert len(marks) > 2
    assert all(float(x) > 6.5 * len(text) for x, text in marks)
    means = [number(row.objective.mean, decimals([row.objective.se])) for row in rows]
    assert len(set(means)) == len(means)


def test_numbers_in_words() -> None:
    assert decimals([0.013, 0.004]) == 3
    assert decimals([0.0057]) == 3
    assert decimals([12.0, math.nan]) == 0
    assert decimals([0.0, math.nan]) == 3
    assert (number(-0.0001, 2), number(-1.5, 1), number(math.nan, 2)) == ("0.00", "\N{MINUS SIGN}1.5", "\N{EN DASH}")
    assert (signed(0.25, 2), signed(-0.25, 2)) == ("+0.25", "\N{MINUS SIGN}0.25")
    assert (signed(0.0, 2), signed(-0.001, 2), signed(math.inf, 2)) == ("0.00", "0.00", "\N{EN DASH}")
    assert [p_text(p) for p in (0.0004, 0.0123, 0.2, math.nan)] == ["p < 0.001", "p = 0.012", "p = 0.20", "no p-value"]


def test_an_objective_has_a_short_name() -> None:
    terms = [{"name": "style", "args": {"style": "flat"}}, {"name": "/a/b/mine.py:f", "weight": 0.5, "args": {}}]
    assert objective_name(terms) == "style:flat + 0.5 \N{MULTIPLICATION SIGN} f"
    assert objective_name([{"name": "clip", "args": {"model": "org/PickScore_v1"}}]) == "clip:PickScore_v1"
    assert objective_name([{"name": "pack.age:Colour"}]) == "Colour"
