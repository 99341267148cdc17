"""Guards against reward hacking: measures by hand, synthetic hacks that must be pointed out, gains that must not."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageFilter
from synthetic import compare, make_results, painter

from pagopt.looks import MEASURES, TWIN, Looks, distances, looks_table, measure
from pagopt.report.guards import Guard, Notice, describe, notice, read_guards
from pagopt.results import Results

TASKS = 16
Change = Callable[[Image.Image, int], Image.Image]


def study(change: Change, tasks: int = TASKS, gain: float = 0.09, label: str = "style") -> Results:
    """A search whose found recipe draws what it draws without guidance, changed; ``label`` is what it optimised."""
    results = make_results(tasks=tasks, gain=gain, prompts=[f"thing {i}" for i in range(tasks)])
    plain = [painter()(f"0-{task}") for task in range(tasks)]
    found = [change(picture, task) for task, picture in enumerate(plain)]
    tables = [*[looks_table([measure(p) for p in plain])] * 3, looks_table([measure(p) for p in found])]
    methods = [dataclasses.replace(m, looks=table) for m, table in zip(results.methods, tables, strict=True)]
    objective = [{"label": label, "name": label, "weight": 1.0, "args": {}}]
    return dataclasses.replace(results, methods=methods, objective=objective)


def told(results: Results) -> tuple[dict[str, Guard], Notice]:
    guards = read_guards(results)
    return {guard.measure: guard for guard in guards}, notice(results, guards)


def louder(picture: Image.Image, task: int) -> Image.Image:
    return ImageEnhance.Contrast(ImageEnhance.Color(picture).enhance(2.5)).enhance(1.5)


def noisier(picture: Image.Image, task: int) -> Image.Image:
    grain = np.random.default_rng(1000 + task).normal(0, 40, (64, 64, 3))
    return Image.fromarray(np.clip(np.asarray(picture) + grain, 0, 255).astype(np.uint8))


def collapsed(picture: Image.Image, task: int) -> Image.Image:
    return painter()("0-0")


def half_collapsed(picture: Image.Image, task: int) -> Image.Image:
    return painter()("0-0") if task % 2 else picture


def honest(picture: Image.Image, task: int) -> Image.Image:
    """Other pictures of much the same look: mirrored, and a little more colourful."""
    mirrored = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return ImageEnhance.Color(mirrored).enhance(1.1)


@pytest.mark.parametrize(
    ("hack", "says"),
    [
        (louder, {"saturation": "saturation rose by", "contrast": "contrast rose by"}),
        (noisier, {"sharpness": "sharpness rose by"}),
        (collapsed, {"variety": "variety fell by 100% (the pictures have become alike)", "twins": "100% of the"}),
        (half_collapsed, {"variety": "variety fell by", "twins": "56% of the pictures are near copies"}),
        (lambda p, task: p.filter(ImageFilter.GaussianBlur(3)), {"sharpness": "sharpness fell by"}),
        (lambda p, task: ImageEnhance.Brightness(p).enhance(0.6), {"brightness": "brightness fell by 40%"}),
    ],
)
def test_hacks_are_pointed_out(hack: Change, says: dict[str, str]) -> None:
    guards, seen = told(study(hack))
    assert seen.kind == "jump"
    assert seen.text.startswith("The gain comes with a change of look, from no guidance to the found recipe: ")
    for name, text in says.items():
        assert guards[name].jumped
        assert text in seen.text


def test_an_honest_gain_raises_no_alarm() -> None:
    guards, seen = told(study(honest))
    assert not any(guard.jumped for guard in guards.values())
    assert seen == Notice("calm", "")
    assert guards["saturation"].change.mean > 2 * guards["saturation"].change.se, "a sure change, but a small one"


def test_a_large_change_that_may_be_chance_raises_no_alarm() -> None:
    """One picture of sixteen becomes grey noise: the mean moves far, but not beyond two standard errors."""
    results = study(lambda p, task: noisier(noisier(p, 1), 2) if task == 3 else p)
    guards, seen = told(results)
    assert seen.kind == "calm"
    strong = dataclasses.replace(results.methods[-1], looks={**results.methods[0].looks})
    strong.looks["sharpness"] = (9.0, *strong.looks["sharpness"][1:])
    guards, seen = told(dataclasses.replace(results, methods=[*results.methods[:-1], strong]))
    assert guards["sharpness"].share > 1
    assert not guards["sharpness"].jumped


def test_without_a_gain_it_is_not_called_one() -> None:
    results = study(louder, gain=-0.06)
    assert results.tests[0].difference < 0
    assert told(results)[1].text.startswith("The look changed, from no guidance to the found recipe: ")


def colourful(weight: float = 1.0, change: Change = louder) -> Results:
    """A search whose objective goes with the saturation, up to a little noise."""
    results = study(change, label="colorfulness")
    noise = np.random.default_rng(5)
    methods = []
    for method in results.methods:
        scores = tuple(300 * s + float(noise.normal(0, 2)) for s in method.looks["saturation"])
        objective = tuple(weight * s for s in scores)
        methods.append(dataclasses.replace(method, objective=objective, rewards={"colorfulness": scores}))
    return dataclasses.replace(
        results,
        methods=methods,
        tests=[compare(methods[-1], other) for other in methods[:-1]],
        objective=[{"label": "colorfulness", "name": "colorfulness", "weight": weight, "args": {}}],
    )


def test_what_was_asked_for_is_said_and_no_alarm() -> None:
    results = colourful(change=lambda p, task: ImageEnhance.Color(p).enhance(1.5))
    guards, seen = told(results)
    assert guards["saturation"].jumped
    assert guards["saturation"].asked == "colorfulness"
    assert seen.kind == "asked"
    assert "that is what colorfulness measures (over the unguided pictures they go together, r = 0.9" in seen.text
    assert "Look" not in seen.text


def test_side_effects_of_what_was_asked_for_are_an_alarm() -> None:
    _, seen = told(colourful())
    assert seen.kind == "jump"
    before, after = seen.text.split("Saturation rose by")
    assert "contrast rose by" in before
    assert ", too, but that is what colorfulness measures" in after


def test_the_wrong_direction_was_not_asked_for() -> None:
    guards, seen = told(colourful(weight=-1.0))
    assert guards["saturation"].asked == ""
    assert "saturation rose by" in seen.text
    assert seen.kind == "jump"


def test_few_pictures_prove_no_kinship() -> None:
    results = colourful()
    few = [
        dataclasses.replace(
            m,
            objective=m.objective[:5],
            rewards={k: v[:5] for k, v in m.rewards.items()},
            looks={k: v[:5] for k, v in m.looks.items()},
        )
        for m in results.methods
    ]
    guards, _ = told(dataclasses.replace(results, methods=few, held_out_tasks=results.held_out_tasks[:5]))
    assert all(guard.asked == "" for guard in guards.values())


def test_pictures_of_one_prompt_are_not_independent() -> None:
    results = study(lambda p, task: honest(p, task) if task % 2 else louder(p, task))
    assert told(results)[0]["saturation"].jumped
    two = [(("dog", "tree")[i % 2], i) for i in range(TASKS)]
    guards, seen = told(dataclasses.replace(results, held_out_tasks=two))
    assert guards["saturation"].change.se == pytest.approx(guards["saturation"].change.mean, rel=0.5)
    assert not guards["saturation"].jumped, "one of two prompts shows nothing"
    assert seen.kind == "calm"
    uneven = [("dog" if i < 12 else "tree", i) for i in range(TASKS)]
    guard = told(dataclasses.replace(results, held_out_tasks=uneven))[0]["saturation"]
    values = results.methods[0].looks["saturation"]
    assert guard.means[0] == pytest.approx((np.mean(values[:12]) + np.mean(values[12:])) / 2)


def test_the_tasks_to_look_at_are_those_that_changed_most() -> None:
    guards, _ = told(study(lambda p, task: louder(p, task) if task in {2, 5, 7, 11} else honest(p, task)))
    assert set(guards["saturation"].most) == {2, 5, 7, 11}


def test_colour_out_of_nothing_is_a_jump() -> None:
    results = study(louder)
    grey = dataclasses.replace(results.methods[0], looks={**results.methods[0].looks, "saturation": (0.0,) * TASKS})
    _, seen = told(dataclasses.replace(results, methods=[grey, *results.methods[1:]]))
    assert "saturation rose from 0" in seen.text


def test_evidence_is_json_also_for_one_task() -> None:
    for tasks in (1, TASKS):
        results = study(louder, tasks=tasks)
        data = json.loads(json.dumps(describe(results, read_guards(results)), allow_nan=False))
        assert data["measures"]["saturation"]["jumped"] is True
        assert ("variety" in data["measures"]) == (tasks > 1)
        assert data["notice"] == told(results)[1].text
    assert describe(results, []) == {}


def test_results_of_the_first_versions_have_no_guards() -> None:
    assert read_guards(make_results(tasks=4)) == []
    assert notice(make_results(tasks=4), []) == Notice("calm", "")


def test_looks_by_hand() -> None:
    red = measure(Image.new("RGB", (9, 7), "red"))
    assert (red.brightness, red.saturation) == pytest.approx((0.2126, 1.0), abs=1e-6)
    assert (red.contrast, red.sharpness) == pytest.approx((0, 0), abs=1e-6)
    assert red.thumbnail == bytes([255, 0, 0]) * 64
    halves = Image.new("RGB", (16, 16), "black")
    halves.paste("white", (8, 0, 16, 16))
    half = measure(halves)
    # The Laplacian is 1 in column 7 and -1 in column 8, 0 elsewhere.
    assert (half.brightness, half.saturation, half.contrast) == pytest.approx((0.5, 0, 0.5), abs=1e-6)
    assert half.sharpness == pytest.approx((2 / 16) ** 0.5, abs=1e-6)


def test_looks_are_those_of_a_slow_reference() -> None:
    """Pixel by pixel, in double precision. If this had to change, raise VERSION in pagopt/looks.py."""
    pixels = np.random.default_rng(3).integers(0, 256, (13, 11, 3))
    rows, columns = pixels.shape[:2]
    luma = [[sum(w * c / 255 for w, c in zip((0.2126, 0.7152, 0.0722), p, strict=True)) for p in row] for row in pixels]

    def at(y: int, x: int) -> float:
        return luma[min(max(y, 0), rows - 1)][min(max(x, 0), columns - 1)]

    places = [(y, x) for y in range(rows) for x in range(columns)]
    laplacian = [at(y - 1, x) + at(y + 1, x) + at(y, x - 1) + at(y, x + 1) - 4 * at(y, x) for y, x in places]
    spread = [(max(pixels[y, x]) - min(pixels[y, x])) / 255 for y, x in places]
    seen = measure(Image.fromarray(pixels.astype(np.uint8)))
    expected = (np.mean(luma), np.mean(spread), np.std(luma), np.std(laplacian))
    assert dataclasses.astuple(seen)[:4] == pytest.approx(expected, abs=1e-6)


def test_large_pictures_are_measured_reduced_and_left_alone() -> None:
    large = painter(1024)("1-1")
    before = large.tobytes()
    big, small = measure(large), measure(large.resize((512, 512), Image.Resampling.BOX))
    assert dataclasses.astuple(big)[:4] == pytest.approx(dataclasses.astuple(small)[:4], rel=0.02)
    assert (large.size, large.tobytes()) == ((1024, 1024), before)


def test_looks_survive_json() -> None:
    seen = measure(painter()("2-3"))
    assert Looks.from_dict(json.loads(json.dumps(seen.to_dict()))) == seen


def test_distances_are_those_of_a_slow_reference() -> None:
    pictures = [painter()(f"{i % 3}-{i}") for i in range(6)]
    small = [np.asarray(p.resize((8, 8), Image.Resampling.BOX), dtype=np.float64) / 255 for p in pictures]
    expected = [[np.sqrt(((a - b) ** 2).mean()) for b in small] for a in small]
    found = distances([measure(p) for p in pictures])
    np.testing.assert_allclose(found, expected, atol=1e-7)
    ends = distances([measure(Image.new("RGB", (8, 8), colour)) for colour in ("black", "white")])
    np.testing.assert_allclose(ends, [[0, 1], [1, 0]], atol=1e-12)


def test_variety_and_twins_of_a_set() -> None:
    pictures = [painter()(f"0-{i}") for i in range(5)]
    twin = ImageEnhance.Brightness(pictures[1]).enhance(1 - TWIN / 4)
    looks = [measure(p) for p in (*pictures, twin)]
    table = looks_table(looks)
    assert tuple(table) == MEASURES
    assert table["twins"] == (0, 1, 0, 0, 0, 1)
    gaps = distances(looks)
    pairs = [gaps[i, j] for i in range(6) for j in range(i)]
    assert np.mean(table["variety"]) == pytest.approx(np.mean(pairs))
    assert "variety" not in looks_table(looks[:1])


def test_the_standard_error_of_variety_is_right() -> None:
    """Against the spread over 300 sets drawn anew; the plain error of a mean would be half of it."""
    noise = np.random.default_rng(7)
    means, errors = [], []
    for _ in range(300):
        levels = noise.integers(0, 256, (30, 2, 3), dtype=np.uint8)  # few degrees of freedom: distances vary
        looks = [Looks(0, 0, 0, 0, np.repeat(p, 32, axis=0).tobytes()) for p in levels]
        own = np.array(looks_table(looks)["variety"])
        means.append(own.mean())
        errors.append(2 * own.std(ddof=1) / np.sqrt(len(own)))
    assert np.mean(errors) == pytest.approx(np.std(means, ddof=1), rel=0.2)
