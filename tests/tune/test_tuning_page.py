"""The page of a tuning: complete, honest in its wording, without the network, and its numbers are the trials'."""

from __future__ import annotations

import dataclasses
import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from pagopt.cli.tune import show
from pagopt.store import Store
from pagopt.summary import paired_test
from pagopt.tuning import TrialRow, Tuned
from pagopt.tuning.importance import LEAST, importances
from pagopt.tuning.lens import Lens, lenses
from pagopt.tuning.page import CARD, PANELS, as_results, write_page
from tests.report.elements import Elements
from tests.tune.made_up import HELD_OUT, make_tuned, picture


class Page(Elements):
    """The elements, the titles of charts, and the text."""

    def __init__(self, text: str) -> None:
        self.words: list[str] = []
        self.titles: list[str] = []
        super().__init__(text)

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "title" and "svg" in self.open:
            self.titles.append(data)
        elif not {"script", "style"} & set(self.open):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).replace("\N{NO-BREAK SPACE}", " ").split())


def render(tuned: Tuned, folder: Path) -> tuple[str, Page]:
    path = folder / "report.html"
    write_page(tuned, picture, path)
    text = path.read_text(encoding="utf-8")
    return text, Page(text)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Page]:
    return render(make_tuned(misses=True), tmp_path_factory.mktemp("page"))


def test_sections_come_in_the_order_of_importance(written: tuple[str, Page], tmp_path: Path) -> None:
    order = ["pictures", "comparison", "curves", "importance", "trials", "guards", "recipe", "reproduce"]
    assert [a["aria-labelledby"] for a in written[1].all("section")] == order
    _, front = render(make_tuned(goals=2), tmp_path)
    assert [a["aria-labelledby"] for a in front.all("section")] == [order[0], "front", *order[1:]]
    for page in (written[1], front):
        names = [a["id"] for _, a in page.elements if "id" in a]
        assert len(names) == len(set(names))


def test_the_answer_comes_first_and_says_what_it_costs(written: tuple[str, Page]) -> None:
    tuned = make_tuned(misses=True)
    text = written[1].text
    assert "The tuned recipe raises the sharp score from" in text
    assert f"on {len(HELD_OUT)} prompts and seeds that the trials never saw (paired test, p < 0.001)." in text
    number = tuned.best[0]
    assert (
        f"Found by trial {number} of 24; 4 stopped early: strength {tuned.trials[number].parameters['strength']:.3g}"
        in text
    )
    assert "One of its pictures costs 36 block evaluations (24 for no guidance, 24 for the recipe as it was)." in text
    assert "keeps to: calm at least 7.6. The recipe as it was does not." in text


def test_no_gain_is_told_plainly(tmp_path: Path) -> None:
    tuned = make_tuned(gain=0.0)
    plain = tuned.methods[0].method.objective
    worse = dataclasses.replace(tuned.methods[-1].method, objective=tuple(value - 1 for value in plain))
    test = dataclasses.replace(tuned.tests["tuned"][0], difference=-1.0, se=0.1, p_value=1.0)
    tuned = dataclasses.replace(
        tuned,
        methods=[*tuned.methods[:-1], dataclasses.replace(tuned.methods[-1], method=worse)],
        tests={"tuned": [test, *tuned.tests["tuned"][1:]]},
    )
    assert "No gain: the tuned recipe does not raise the sharp score" in render(tuned, tmp_path)[1].text


def test_where_the_recipe_as_it_was_is_the_best_it_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tuned = make_tuned()
    assert not tuned.is_unchanged
    before, last = tuned.methods[-2:]
    same = dataclasses.replace(last, method=dataclasses.replace(before.method, name="tuned"))
    prompts = tuned.held_out_prompts
    tests = [paired_test(same.method, other.method, prompts) for other in (tuned.methods[0], before)]
    tuned = dataclasses.replace(tuned, best=[1], methods=[*tuned.methods[:-1], same], tests={"tuned": tests})
    text, page = render(tuned, tmp_path)
    assert re.search(r"<h1[^>]*>Tuning found nothing better than the recipe as it was\.</h1>", text)
    assert re.search("the recipe as it was (raises|moves|does not raise|to raise) the sharp score", page.text, re.I)
    assert "Against the recipe as it was" not in page.text
    assert "The tuned recipe raises" not in page.text
    assert "(24 for no guidance)" in page.text
    assert [test.against for test in as_results(tuned).tests] == ["no guidance"]
    show(tuned, tmp_path, "nothing")
    said = capsys.readouterr().out
    assert "note: tuning found nothing better than the recipe as it was" in said
    assert "not shown to be better than as it was" not in said


def test_a_constraint_that_no_trial_kept_comes_first(tmp_path: Path) -> None:
    tuned = make_tuned(misses=True)
    rows = [dataclasses.replace(row, limits=dict.fromkeys(row.limits, 0.5 + row.number / 100)) for row in tuned.trials]
    text, page = render(dataclasses.replace(tuned, trials=rows), tmp_path)
    missed = "No trial kept to all constraints; the one shown misses: calm at least 7.6."
    assert re.search(rf"<h1[^>]*>{missed}</h1>", text)
    assert page.text.count(missed) == 1
    assert "The tuned recipe raises the sharp score" in page.text


def test_every_chart_can_be_seen_through_every_reward(written: tuple[str, Page]) -> None:
    _, page = written
    buttons = page.all("button", type="button")
    assert [a["data-lens"] for a in buttons if "data-lens" in a] == ["", "calm"], "sharp is the objective itself"
    parts = page.all("div", **{"class": "through"})
    assert [a["data-lens"] for a in parts] == ["", "calm", "", "calm"], "the map and the curves"
    assert [a["data-lens"] for a in parts if "hidden" not in a] == ["", ""], "without a script, the objective"
    labels = [a["aria-label"] for a in page.all("svg")]
    for name in ("sharp", "calm"):
        assert f"{name} of 24 trials over strength" in labels
        assert any(label.startswith(f"{name} over strength and scale, 24 trials") for label in labels)


def test_dots_say_the_trials_numbers(written: tuple[str, Page]) -> None:
    tuned = make_tuned(misses=True)
    _, page = written
    row = tuned.trials[6]
    assert row.state == "complete"
    words = f"trial 6: strength {row.parameters['strength']:.3g}, scale {row.parameters['scale']:.3g}: "
    assert f"{words}sharp {row.values[0]:.4g}" in page.titles
    assert f"{words}calm {np.mean(list(row.scores['calm'].values())):.4g}" in page.titles
    assert any(title.startswith("trial 4: ") and title.endswith("by the 4 tasks that it saw") for title in page.titles)
    astray = [a for a in page.all("circle") if "astray" in a.get("class", "")]
    missing = [r for r in tuned.trials if any(miss > 0 for miss in r.limits.values())]
    assert len(astray) == 2 * len(missing), "in both maps"


def test_a_pruned_trial_stands_where_its_tasks_put_it() -> None:
    """By hand: the mean of the result, plus the mean difference on the tasks that both saw."""
    tuned = make_tuned()
    row, best = tuned.trials[4], tuned.trial(tuned.best[0])
    gain = np.mean([row.objective[task] - best.objective[task] for task in (3, 7, 1, 0)])
    assert Lens(tuned, "x").level(row) == pytest.approx(best.values[0] + gain)
    assert Lens(tuned, "x").level(row) != pytest.approx(np.mean(list(row.objective.values())), abs=0.5), "easy tasks"
    assert [lens.name for lens in lenses(tuned)] == ["sharp", "calm"]


def test_all_trials_are_in_a_table_that_sorts(written: tuple[str, Page]) -> None:
    text, page = written
    tuned = make_tuned(misses=True)
    table = text[
        text.index('<table class="sortable">') : text.index("</table>", text.index('<table class="sortable">'))
    ]
    lines = table.split("<tr")[2:]
    assert len(lines) == 24
    for row, line in zip(tuned.trials, lines, strict=True):
        keys = re.findall(r'data-sort="([^"]*)"', line)
        assert int(keys[0]) == row.number
        assert float(keys[2]) == row.parameters["strength"]
        assert f'data-trial="{row.number}"' in line, "its picture"
    assert "misses calm at least 7.6" in page.text
    assert "stopped after 4 tasks" in page.text
    assert 'addEventListener("click"' in text


def test_the_front_has_pictures_at_its_points(tmp_path: Path) -> None:
    tuned = make_tuned(goals=2)
    _, page = render(tuned, tmp_path)
    count = len(tuned.best)
    assert count > 3
    picks = page.all("g", **{"class": "pick"})
    assert [int(a["data-pick"]) for a in picks] == list(range(1, count + 1))
    assert len(page.all("image")) == count
    cards = page.all("article", **{"class": "card"})
    assert [int(a["data-place"]) for a in cards] == list(range(1, count + 1))
    shots = [a["alt"] for a in page.all("img") if a.get("alt", "").startswith("front ")]
    assert len([alt for alt in shots if re.match(r"front \d+: ", alt)]) == count * CARD
    assert f"front/{count:02}.json" in page.text
    assert f"{count} recipes to choose from, none beaten in all objectives at once: sharp" in page.text
    assert "block evaluations 36 to 36 (no guidance 24)" in page.text


def test_nothing_is_loaded_from_anywhere(written: tuple[str, Page]) -> None:
    text, page = written
    for _, attributes in page.elements:
        for key in ("src", "href", "data"):
            assert attributes.get(key, "data:").startswith(("data:", "#"))
    assert not re.search(r"url\(|@import|fetch\(|XMLHttpRequest|import\(", text)
    policy = next(a["content"] for a in page.all("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'")
    assert len(page.all("script")) == 1


def test_what_a_user_wrote_cannot_become_markup(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>"
    tuned = make_tuned(extra=evil)
    tuned = dataclasses.replace(
        tuned, tuning=evil, start=evil, held_out_tasks=[(evil, i) for i in range(len(HELD_OUT))]
    )
    text, page = render(tuned, tmp_path)
    assert len(page.all("script")) == 1
    assert "<script>alert" not in text


def test_the_same_tuning_gives_the_same_page(written: tuple[str, Page], tmp_path: Path) -> None:
    assert render(make_tuned(misses=True), tmp_path)[0] == written[0]


@pytest.mark.parametrize("change", ["few", "one task", "no pictures", "fixed scale", "failed"])
def test_thin_tunings_still_give_a_page(change: str, tmp_path: Path) -> None:
    tuned = make_tuned(trials=3 if change == "few" else 9)
    rows = tuned.trials
    if change == "one task":
        rows = [
            dataclasses.replace(row, state="complete", objective={0: 5.0}, scores={"sharp": {0: 5.0}}) for row in rows
        ]
    elif change == "no pictures":
        rows = [dataclasses.replace(row, picture="") for row in rows]
    elif change == "fixed scale":
        rows = [dataclasses.replace(row, parameters={"strength": row.parameters["strength"]}) for row in rows]
        rows = [dataclasses.replace(row, recipe={**row.recipe, "scale": 2.0}) for row in rows]
    elif change == "failed":
        rows = [*rows, TrialRow(9, "fail", "", (), {"strength": 1.0}, {}, 4, {}, {}, cause="no <memory>")]
    text, page = render(dataclasses.replace(tuned, trials=rows), tmp_path)
    assert ">nan" not in text
    assert "nan " not in page.text
    if change == "few":
        assert f"No importances: there are 3 usable trials, and it takes {LEAST} to say something." in page.text
    if change == "fixed scale":
        assert not [a for a in page.all("svg") if "over strength and scale" in a["aria-label"]]
    if change == "failed":
        assert "failed: no <memory>" in page.text
    assert bool(page.all("td", **{"class": "thumb"})) == (change != "no pictures")


def test_many_parameters_get_the_most_important_curves(tmp_path: Path) -> None:
    tuned = make_tuned(trials=20)
    more = np.random.default_rng(1).uniform(size=(20, PANELS + 3))
    rows = [
        dataclasses.replace(
            row, parameters={**{f"strength L{i}.H0": float(v) for i, v in enumerate(line)}, **row.parameters}
        )
        for row, line in zip(tuned.trials, more, strict=True)
    ]
    _, page = render(dataclasses.replace(tuned, trials=rows), tmp_path)
    curves = [a["aria-label"] for a in page.all("svg") if re.match(r"sharp of \d+ trials over ", a["aria-label"])]
    assert len(curves) == PANELS
    assert curves[0].endswith("over strength"), "the hill"
    assert "5 further parameters mattered less" in page.text


def test_names_of_choices_do_not_cover_each_other(tmp_path: Path) -> None:
    names = ["identity", "image_identity", "image_to_image", "uniform", "mean_query", "row_maximum", "temperature"]
    tuned = make_tuned()
    rows = [
        dataclasses.replace(row, parameters={**row.parameters, "target": names[row.number % 7]}) for row in tuned.trials
    ]
    text, _ = render(dataclasses.replace(tuned, trials=rows), tmp_path)
    (panel,) = re.findall(r'<svg [^>]*aria-label="sharp of 24 trials over target".*?</svg>', text)
    found = re.findall(r'<text x="([\d.]+)" y="([\d.]+)" text-anchor="middle">([a-z_]+)<', panel)
    assert {name for _, _, name in found} == set(names)
    for line in {y for _, y, _ in found}:
        row = sorted((float(x), 3 * len(name)) for x, y, name in found if y == line)
        assert all(x + half < other - far for (x, half), (other, far) in pairwise(row))


def test_dots_are_said_to_be_stopped_where_some_were(tmp_path: Path) -> None:
    words = "Trials that were stopped early, hollow in the curves,"
    assert words in render(make_tuned(), tmp_path)[1].text
    assert words not in render(make_tuned(trials=4), tmp_path)[1].text


def test_what_matters_is_found_and_what_does_not_is_called_chance() -> None:
    found = importances(make_tuned(trials=60, extra="target"))
    by_name = {item.name: item for item in found.items}
    assert found.items[0].name == "strength", "the score is a hill in it"
    assert by_name["strength"].value > by_name["strength"].chance
    for name in ("scale", "target"):
        assert by_name[name].value < by_name["strength"].value / 2
    assert "PED-ANOVA over 60 trials: how far the 6 best lie elsewhere than all of them." in found.sentence


def test_importance_minds_constraints_and_several_objectives() -> None:
    best = importances(make_tuned(trials=60, misses=True))
    assert "best that keep to the constraints" in best.sentence
    assert "best by all objectives" in importances(make_tuned(trials=40, goals=2)).sentence
    flat = make_tuned()
    rows = [dataclasses.replace(row, objective=dict.fromkeys(range(12), 1.0), values=(1.0,)) for row in flat.trials]
    assert importances(dataclasses.replace(flat, trials=rows)).sentence == (
        "No importances: all trials have the same value."
    )


def test_a_real_tuning_leaves_its_page(whole: tuple[Tuned, Path]) -> None:
    tuned, out = whole
    page = Page((out / "report.html").read_text(encoding="utf-8"))
    assert all(row.picture for row in tuned.trials)
    assert len(page.all("td", **{"class": "thumb"})) == len(tuned.trials)
    store = Store(out / "store")
    assert all(store.get_image(row.picture).size for row in tuned.trials)
    store.close()
    assert {"no guidance", "as it was"} == set(tuned.references)
    plain = tuned.trials[0]
    assert tuned.references["no guidance"]["colorfulness"] == pytest.approx(plain.values[0], rel=1e-6)
    shown = as_results(tuned)
    assert shown.methods[-1].name == "tuned"
    assert shown.tests == tuned.tests["tuned"]
    assert f"pagopt tune {tuned.tuning}" in page.text
