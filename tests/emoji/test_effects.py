"""The pure parts of the measurement of heads: choice of tasks, correction, effects, and what is drawn."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from scipy import stats

from pagopt.errors import StudyError
from pagopt.heads import Head
from tools.emoji.headmap import EffectMap, PictureMap, draw_effects, draw_pictures
from tools.emoji.heads import choose_tasks, counts, effect_map, effects_of, holm, table

NAMES = [f"thing {number}" for number in range(12)]


def test_tasks_take_styles_in_turn_and_every_name_once():
    absent = {(0, name) for name in range(8)} | {(1, 9)}
    tasks = choose_tasks(["flat", "ink"], NAMES, absent, 8, seed=3)
    styles, names = zip(*(task.prompt.split(", ") for task in tasks), strict=True)
    assert styles == ("flat", "ink") * 4
    assert len(set(names)) == 8
    pairs = {(["flat", "ink"].index(s), NAMES.index(n)) for s, n in zip(styles, names, strict=True)}
    assert not pairs & absent
    assert [task.seed for task in tasks] == [30_000 + number for number in range(8)]
    assert choose_tasks(["flat", "ink"], NAMES, absent, 8, seed=3) == tasks
    assert choose_tasks(["flat", "ink"], NAMES, absent, 8, seed=4) != tasks


def test_too_many_and_too_few_tasks_are_errors():
    with pytest.raises(StudyError, match="only 12 of 13 tasks"):
        choose_tasks(["flat"], NAMES, set(), 13, seed=0)
    with pytest.raises(StudyError, match="at least 2 tasks, not 1"):
        choose_tasks(["flat"], NAMES, set(), 1, seed=0)


def test_holm_by_hand():
    # Sorted 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1 is 0.02, 0.03, 0.06, 0.04; none may be below the one before.
    p = np.array([[0.01, 0.04], [0.03, 0.005]])
    assert holm(p).tolist() == [[pytest.approx(0.03), pytest.approx(0.06)], [pytest.approx(0.06), pytest.approx(0.02)]]
    assert holm(np.array([0.9, 0.8])).tolist() == [1.0, 1.0]


@pytest.fixture(scope="module")
def effects():
    """Head L1.H0 raises "style", L0.H1 lowers "light", and L0.H0 changes nothing at all."""
    generator = np.random.default_rng(0)
    scores = {reward: generator.normal(size=(4, 20)) for reward in ("style", "light")}
    heads = [Head(0, 0), Head(0, 1), Head(1, 0)]
    for rows in scores.values():
        rows[1:] = rows[0] + 0.1 * generator.normal(size=(3, 20))
        rows[1] = rows[0]
    scores["style"][3] += 2
    scores["light"][2] -= 1
    return scores, heads, effects_of(scores, heads)


def test_effects_are_paired_differences(effects):
    scores, heads, found = effects
    assert [list(row) for row in found.values()] == [heads, heads]
    effect = found["style"][Head(1, 0)]
    test = stats.ttest_rel(scores["style"][3], scores["style"][0])
    assert effect.mean == pytest.approx(2, abs=0.1)
    assert effect.mean / effect.se == pytest.approx(test.statistic)
    assert effect.p <= 6 * test.pvalue
    assert effect.certain
    assert found["light"][Head(0, 1)].mean == pytest.approx(-1, abs=0.1)
    nothing = found["style"][Head(0, 0)]
    assert (nothing.mean, nothing.se, nothing.p) == (0, 0, 1)


def test_counts_and_table(effects):
    _, _, found = effects
    assert counts(found) == {"any": 2, "style": 1, "light": 1}
    lines = table(found).splitlines()
    assert len(lines) == 1 + 3 + 1
    assert lines[0].split() == ["head", "style", "light"]
    assert [line.count("*") for line in lines[1:4]] == [0, 1, 1]
    assert lines[-1].startswith("2 of 3 heads have a significant effect")


def test_effects_lie_in_their_places(effects):
    _, _, found = effects
    item = effect_map("style", found["style"], 2, 2)
    assert np.isnan(item.mean).tolist() == [[False, False], [False, True]]
    assert item.certain.tolist() == [[False, False], [True, False]]


def test_heat_maps_show_sign_and_significance():
    mean = np.array([[1.0, -1.0, np.nan], [0.0, 1.0, 0.0]])
    certain = np.array([[True, False, False], [False, False, False]])
    one = draw_effects([EffectMap("style", mean, certain)], "significant")
    two = draw_effects([EffectMap("style", mean, certain)] * 2, "significant")
    assert one.height == two.height
    assert two.width - one.width == one.width - 28
    left, top, cell = 28 + 46, 28 + 44 + 30, 50

    def colour(row, column, at):
        red, green, blue = one.getpixel((left + column * cell + at, top + row * cell + at))
        return red, green, blue

    assert colour(0, 0, cell // 2) != colour(0, 0, cell // 5) == colour(1, 1, cell // 2)  # the dot
    assert colour(1, 1, 25)[0] > colour(1, 1, 25)[2] + 100  # orange up
    assert colour(0, 1, 25)[2] > colour(0, 1, 25)[1] + 50  # purple down
    assert colour(0, 2, 25) == (255, 255, 255)
    flat = draw_effects([EffectMap("nothing", np.zeros((2, 3)), np.zeros((2, 3), dtype=bool))], "significant")
    assert flat.size == one.size


def test_picture_maps_have_a_place_for_every_head():
    picture = Image.new("RGB", (64, 64), "red")
    item = PictureMap("flat, red apple", picture, {Head(0, 0): picture, Head(7, 5): picture})
    one, two = draw_pictures([item], 8, 6), draw_pictures([item, item], 8, 6)
    assert one.mode == "RGB"
    assert one.size == (28 + 192 + 46 + 8 + 6 * 104 - 8 + 28, 28 + 44 + 30 + 8 * 104 - 8 + 28)
    assert two.height == one.height
    assert two.width == 2 * one.width
    grid = 28 + 192 + 46 + 8, 28 + 44 + 30
    red, white = (255, 0, 0), (255, 255, 255)
    for row, column, want in ((0, 0, red), (7, 5, red), (3, 3, white)):
        assert one.getpixel((grid[0] + column * 104 + 48, grid[1] + row * 104 + 48)) == want
