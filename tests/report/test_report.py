"""The page as a file: well-formed, complete, safe, honest in its wording, small, and without the network."""

from __future__ import annotations

import base64
import dataclasses
import html
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from synthetic import make_results, painter

import pagopt.report
from pagopt.looks import MEASURES
from pagopt.recipe import Recipe
from pagopt.report import write_report
from pagopt.report.story import unseen
from pagopt.results import Results
from tests.report.elements import Elements


class Page(Elements):
    """Collects what the tests ask for."""

    def __init__(self, text: str) -> None:
        self.text: list[str] = []
        self.h1 = ""
        self.pictures: list[dict[str, str]] = []  # of "Before and after"; the guards show some again
        super().__init__(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        super().handle_starttag(tag, attrs)
        if tag == "img" and not any(a.get("id") == "guards" for a in self.all("h2")):
            self.pictures.append(self.elements[-1][1])

    def handle_data(self, data: str) -> None:
        data = data.replace("\N{NO-BREAK SPACE}", " ")
        if "script" not in self.open and "style" not in self.open:
            self.text.append(data)
        if self.open and self.open[-1] == "h1":
            self.h1 += data


def render(results: Results, folder: Path, size: int = 64) -> tuple[str, Page]:
    path = folder / "report.html"
    write_report(results, painter(size), path)
    text = path.read_text(encoding="utf-8")
    return text, Page(text)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Page]:
    return render(make_results(), tmp_path_factory.mktemp("report"))


def test_every_held_out_task_is_shown_under_every_method(written: tuple[str, Page]) -> None:
    _, page = written
    results = make_results()
    shown = [attributes["alt"] for attributes in page.pictures]
    expected = [
        f"{method.name}: {prompt}, seed {seed}" for prompt, seed in results.held_out_tasks for method in results.methods
    ]
    assert shown == expected


def test_pictures_are_the_ones_of_the_store(written: tuple[str, Page]) -> None:
    _, page = written
    source = page.all("img")[5]["src"]  # second task, second method
    picture = Image.open(io.BytesIO(base64.b64decode(source.partition("base64,")[2])))
    assert picture.convert("RGB").tobytes() == painter()("1-1").tobytes()


def test_sections_come_in_the_order_of_importance(written: tuple[str, Page]) -> None:
    _, page = written
    names = [attributes["aria-labelledby"] for attributes in page.all("section")]
    assert names == ["pictures", "comparison", "heads", "rounds", "guards", "recipe", "reproduce"]
    identifiers = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(identifiers) == len(set(identifiers))
    assert set(names) <= set(identifiers)


def test_the_command_that_repeats_it_is_for_any_study(written: tuple[str, Page]) -> None:
    assert "pagopt search config.yaml --out again" in written[0]


def test_how_new_held_out_tasks_are_is_one_phrase() -> None:
    searched = [("cat", 0), ("dog", 0)]
    assert unseen(searched, [("bus", 1), ("key", 1)], "the search") == "2 prompts and seeds that the search never saw"
    some = unseen(searched, [("cat", 1), ("key", 1)], "the search")
    assert some == "2 prompts and seeds that the search never saw (but 1 of these prompts with other seeds)"
    assert unseen(searched, [("cat", 1)], "the search") == "1 new seed of prompts that the search saw"


def test_the_recipe_can_be_copied(written: tuple[str, Page]) -> None:
    text, _ = written
    blocks = [html.unescape(block) for block in re.findall(r"<pre[^>]*><code>(.*?)</code></pre>", text, re.DOTALL)]
    (block,) = [block for block in blocks if block.startswith("{")]
    assert Recipe.from_dict(json.loads(block)) == make_results().recipe
    compile(blocks[0], "snippet", "exec")


def test_nothing_is_loaded_from_anywhere(written: tuple[str, Page]) -> None:
    text, page = written
    for _, attributes in page.elements:
        for key in ("src", "href", "action", "data", "poster", "srcset"):
            assert attributes.get(key, "data:").startswith(("data:", "#"))
    assert "http" not in re.sub(r"http-equiv", "", text)
    assert not re.search(r"url\(|@import|fetch\(|XMLHttpRequest|import\(", text)
    policy = next(a["content"] for a in page.all("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'")


def test_what_a_user_wrote_cannot_become_markup(tmp_path: Path) -> None:
    evil = '<script>alert("1")</script> & "quoted" \'too\''
    results = make_results(tasks=4, prompts=[evil])
    methods = [dataclasses.replace(results.methods[0], name="<b>none</b>"), *results.methods[1:]]
    tests = [dataclasses.replace(results.tests[0], against="<b>none</b>"), *results.tests[1:]]
    objective = [{"label": "x", "name": "mine.py:<i>mine", "weight": 1.0, "args": {}}]
    results = dataclasses.replace(
        results, study="</title><img src=x>", model="<model>", methods=methods, tests=tests, objective=objective
    )
    text, page = render(results, tmp_path)
    assert len(page.all("script")) == 1
    assert not page.all("b") or all("alert" not in str(a) for a in page.all("b"))
    assert len(page.pictures) == 16
    assert "<i>mine" not in text
    assert "<model>" not in text
    assert "<b>none" not in text
    assert f"flat, {evil}" in page.all("figcaption")[0]["title"]


def test_screen_readers_find_their_way(written: tuple[str, Page]) -> None:
    _, page = written
    assert page.all("html")[0]["lang"] == "en"
    assert all(attributes["alt"] for attributes in page.all("img"))
    assert all(attributes["scope"] in {"col", "row"} for attributes in page.all("th"))
    assert all(a["role"] == "img" and len(a["aria-label"]) > 20 for a in page.all("svg"))


def test_the_palest_words_can_be_read_on_both_papers() -> None:
    """WCAG 2.2 asks for a contrast of 4.5 of text as small as this."""
    css = (Path(pagopt.report.__file__).parent / "report.css").read_text(encoding="utf-8")

    def channels(name: str) -> list[np.ndarray]:
        return [
            np.array([int(c[i : i + 2], 16) for i in (0, 2, 4)]) for c in re.findall(rf"--{name}: #(\w{{6}});", css)
        ]

    def luminance(colour: np.ndarray) -> float:
        share = colour / 255
        linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
        return float(linear @ (0.2126, 0.7152, 0.0722))

    opacity = min(map(float, re.findall(r"^(?:\.seed|thead small) .*opacity: ([\d.]+)", css, re.M)))
    for paper, soft in zip(channels("paper"), channels("soft"), strict=True):
        low, high = sorted([luminance(paper), luminance(opacity * soft + (1 - opacity) * paper)])
        assert (high + 0.05) / (low + 0.05) >= 4.5


def test_marks_on_cells_of_any_colour_have_an_edge() -> None:
    css = (Path(pagopt.report.__file__).parent / "report.css").read_text(encoding="utf-8")
    for mark in ("dot", "rank"):
        (rule,) = re.findall(rf"^svg \.{mark} {{(.*)}}", css, re.M)
        assert {"stroke: var(--paper)", "paint-order: stroke"} <= set(re.split("; *", rule.strip()))


def test_a_gain_is_told_with_its_numbers(written: tuple[str, Page]) -> None:
    _, page = written
    assert page.h1.startswith("Perturbing 6 heads (")
    assert "raises the style:flat score from 0.2" in page.h1
    assert "on 24 prompts and seeds that the search never saw (paired test, p < 0.001)." in page.h1


def test_no_gain_is_told_plainly(tmp_path: Path) -> None:
    _, page = render(make_results(gain=-0.06, tasks=9), tmp_path)
    assert page.h1.startswith("No gain: perturbing 6 heads")
    assert "does not raise the style:flat score" in page.h1
    assert "behind CFG 2.0 by" in " ".join(page.text)


def test_a_spoilt_look_is_said_on_top(tmp_path: Path) -> None:
    _, page = render(make_results(tasks=9), tmp_path)  # the painter raises the saturation from method to method
    text = " ".join(page.text)
    assert "saturation rose by" in text[: text.index("Before and after")]
    again = [attributes for attributes in page.all("img") if attributes not in page.pictures]
    alts = [attributes["alt"] for attributes in again if "saturation" in attributes["alt"]]
    assert len(alts) == 8, "the four tasks that changed most, without guidance and with the recipe"
    for before, after in zip(alts[::2], alts[1::2], strict=True):
        assert before.startswith("no guidance: ")
        assert after.startswith("HeadHunter: ")
        assert float(before.split()[-1]) < float(after.split()[-1])
    assert {attributes["src"] for attributes in again} <= {attributes["src"] for attributes in page.pictures}


def test_what_did_not_move_has_no_sign_and_twins_are_counted_in_points(tmp_path: Path) -> None:
    results = make_results(tasks=9)
    looks = {**dict.fromkeys(MEASURES, (0.5,) * 9), "twins": (0.0,) * 8 + (1.0,)}
    methods = [dataclasses.replace(method, looks=looks) for method in results.methods]
    methods[-1] = dataclasses.replace(methods[-1], looks={**looks, "twins": (1.0,) * 9})
    text, _ = render(dataclasses.replace(results, methods=methods), tmp_path)
    assert ">+89 points<" in text
    assert text.count(">0 %<") == len(MEASURES) - 1


def test_one_of_each_is_one(tmp_path: Path) -> None:
    results = make_results(layers=1, heads=1, rounds=1, per_round=1, tasks=1)
    tests = [dataclasses.replace(test, se=0.0, p_value=1.0) for test in results.tests]  # as a search writes them
    _, page = render(dataclasses.replace(results, tests=tests, search_tasks=results.search_tasks[:1]), tmp_path)
    text = " ".join(" ".join(page.text).split())
    assert "which may well be chance (a single task is no test)." in page.h1
    assert "\N{PLUS-MINUS SIGN} 0.000" not in text, "the error of a single task is not known"
    assert "1 layer of 1" in text
    assert "1 round, 1 task " in text
    assert "The only one of the held-out tasks. Every column" in text


def test_chance_is_called_chance(tmp_path: Path) -> None:
    results = make_results(tasks=9)
    weak = [dataclasses.replace(test, p_value=0.21, difference=0.004) for test in results.tests]
    _, page = render(dataclasses.replace(results, tests=weak), tmp_path)
    assert page.h1.startswith("No clear gain")
    assert "chance (paired test, p = 0.21)" in page.h1
    assert "Against CFG 2.0 nothing is decided" in " ".join(page.text)


def test_tasks_that_the_search_saw_are_admitted(tmp_path: Path) -> None:
    results = make_results(tasks=9)
    seen = dataclasses.replace(results, search_tasks=results.held_out_tasks[:3])
    _, page = render(seen, tmp_path)
    assert "never saw" not in page.h1
    assert "3 of these 9 tasks were search tasks too" in " ".join(page.text)


def test_a_search_without_held_out_tasks_admits_it(tmp_path: Path) -> None:
    results = make_results(tasks=5)
    _, page = render(dataclasses.replace(results, search_tasks=results.held_out_tasks), tmp_path)
    text = " ".join(" ".join(page.text).split())
    assert "never saw" not in text
    assert "All 5 search tasks (none were held out)" in text


def test_a_large_search_with_large_pictures_stays_small(tmp_path: Path) -> None:
    results = make_results(layers=24, heads=24, rounds=5, per_round=3, tasks=3, attn2=13)
    text, page = render(results, tmp_path, size=320)
    assert len(text) < 3_000_000
    cells = [a for a in page.all("rect") if re.fullmatch(r"z|[np]\d+", a.get("class", ""))]
    assert len(cells) > 5 * (24 * 24 + 13 * 24) - 60
    assert max(int(a["width"]) for a in page.all("img")) == 320  # the layout knows the true size


def test_more_tasks_than_fit_are_counted_not_hidden(tmp_path: Path) -> None:
    _, page = render(make_results(tasks=30), tmp_path)
    assert len(page.pictures) == 24 * 4
    assert "The first 24 of 30 held-out tasks" in " ".join(" ".join(page.text).split())


@pytest.mark.parametrize("change", ["no rounds", "no tests", "one task", "no heads", "zero scores"])
def test_thin_results_still_give_a_page(tmp_path: Path, change: str) -> None:
    results = make_results(tasks=1 if change == "one task" else 3)
    if change == "no rounds":
        results = dataclasses.replace(results, rounds=[])
    elif change == "no tests":
        results = dataclasses.replace(results, tests=[])
    elif change == "no heads":
        plain = dataclasses.replace(results.methods[-1], recipe=results.methods[0].recipe)
        results = dataclasses.replace(results, methods=[*results.methods[:-1], plain])
    else:
        zeros = (0.0,) * len(results.held_out_tasks)
        flat = [dataclasses.replace(m, objective=zeros, rewards={"style": zeros}) for m in results.methods]
        tests = [dataclasses.replace(t, difference=0.0, se=0.0, p_value=float("nan"), wins=0.0) for t in results.tests]
        results = dataclasses.replace(results, methods=flat, tests=tests)
    text, page = render(results, tmp_path)
    assert page.h1
    assert ">nan" not in text
    assert "nan " not in " ".join(page.text)


def test_the_same_results_give_the_same_page(tmp_path: Path, written: tuple[str, Page]) -> None:
    text, _ = render(make_results(), tmp_path)
    assert text == written[0]
