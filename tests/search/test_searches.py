"""What all searches promise: the images they announce, the same answer again, and a trace that can be shown."""

from __future__ import annotations

import csv
import dataclasses
import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from pagopt.heads import Head
from pagopt.recipe import Recipe
from pagopt.report import write_report
from pagopt.report.scoremap import draw_map
from pagopt.results import load_results
from pagopt.search import HeadHunter, Racing, Search
from pagopt.search.candidates import selection
from pagopt.search.layers import LayerSweep
from pagopt.search.lookahead import Lookahead
from pagopt.search.random_subsets import RandomSubsets
from pagopt.search.refinement import Refinement
from pagopt.summary import scores_table
from tests.report.synthetic import make_results, painter
from tests.search.landscape import World

ROOT = Path(__file__).parent.parent.parent
SEARCHES: dict[str, Search] = {
    "headhunter": HeadHunter(2, 2),
    "racing": Racing(2, 2, share=0.6),
    "layers": LayerSweep(2),
    "random": RandomSubsets(5, 20),
    "regression": RandomSubsets(5, 20, regress=True),
    "lookahead": Lookahead(2, 5),
    "refined": Refinement(HeadHunter(2, 2), share=1.0, errors=0.5),
    "refined race": Refinement(Racing(2, 2, share=0.6), share=1.0, errors=0.5),
    "refined layers": Refinement(LayerSweep(2), share=0.5),
}


def world() -> World:
    return World(3, heads=24, tasks=6, pair=1.0)


@pytest.mark.parametrize("name", SEARCHES)
def test_draws_no_more_than_it_says_and_nothing_twice(name: str) -> None:
    for seed in range(4):
        place = World(seed, heads=24, tasks=6, pair=1.0)
        recipe, trace = SEARCHES[name].run(place, place.pool, Recipe(), 6)
        assert 0 < len(place.drawn) <= SEARCHES[name].images(24, 6)
        assert len(set(place.drawn)) == len(place.drawn)
        assert trace[-1].score.mean == pytest.approx(place([recipe]).mean())
        assert trace[-1].score.se == pytest.approx(place([recipe]).std(ddof=1) / np.sqrt(6))


@pytest.mark.parametrize("name", SEARCHES)
def test_the_order_of_the_pool_does_not_matter(name: str) -> None:
    found = []
    for order in (slice(None), slice(None, None, -1), np.random.default_rng(0).permutation(24)):
        place = world()
        pool = [place.pool[i] for i in np.arange(24)[order]]
        found.append(SEARCHES[name].run(place, [*pool, pool[0]], Recipe(), 6))
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("name", SEARCHES)
def test_a_trace_says_what_was_selected_after_every_round(name: str) -> None:
    """So that a search which is stopped can be taken at its last round."""
    for seed in range(4):
        place = World(seed, heads=24, tasks=6, pair=1.0)
        recipe, trace = SEARCHES[name].run(place, place.pool, Recipe(), 6)
        assert selection(trace[-1]) == recipe.heads
        for done, then in pairwise(trace):
            assert tuple(Head.parse(word) for word in then.base) in (selection(done), ())
        for done in trace:
            assert done.score.mean == pytest.approx(place([Recipe(heads=selection(done))]).mean())


@pytest.mark.parametrize("name", SEARCHES)
def test_the_report_shows_the_trace(name: str, tmp_path: Path) -> None:
    place = world()
    recipe, trace = SEARCHES[name].run(place, place.pool, Recipe(), 6)
    made = make_results(layers=4, heads=6, tasks=4)
    methods = [*made.methods[:-1], dataclasses.replace(made.methods[-1], recipe=recipe.to_dict())]
    results = dataclasses.replace(made, rounds=trace, methods=methods)
    results.save(tmp_path / "results.json")
    assert load_results(tmp_path / "results.json").rounds == trace
    rows = list(csv.DictReader(scores_table(results).splitlines()))
    for done in trace:
        mine = {row["method"]: row for row in rows if row["phase"] == f"round {done.number}"}
        assert list(mine) == list(done.scores)
        chosen = {row["method"] for row in mine.values() if row["chosen"] == "1"}
        assert chosen == set(done.chosen)
        svg = draw_map(done, (place.task.mean(), "no guidance"), 1.0, 4, 6)
        assert svg.count("<title>") >= 24
        assert svg.count('class="ring"') == len({h for item in done.chosen for h in heads_of(item)})
    write_report(results, painter(), tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    for done in trace:
        assert f"Chosen: {', '.join(done.chosen) or 'nothing'}." in text
        assert done.note.split(",")[0].replace("'", "&#39;") in text


def heads_of(name: str) -> list[Head]:
    return [head for word in name.replace("without", "").replace(" for ", " ").split() for head in Recipe(word).heads]


def test_the_page_runs_and_shows_a_change_that_helps(capsys: pytest.CaptureFixture[str]) -> None:
    page = ROOT / "docs" / "searches.md"
    (code,) = re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    exec(compile(code, str(page), "exec", dont_inherit=True), {})
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("round 2: without L")
    assert "Taken: without L" in lines[1]


def test_the_page_says_what_searches_cost() -> None:
    """The table's numbers, for 48 heads in 8 layers."""
    text = (ROOT / "docs" / "searches.md").read_text(encoding="utf-8")
    pool = World(0).pool
    for call, recipes in (
        ("headhunter.HeadHunter(3, 3)", HeadHunter(3, 3).images(48, 1)),
        ("racing.Racing(3, 3)", Racing(3, 3).images(48, 16) // 16),
        ("layers.LayerSweep()", LayerSweep().images(pool, 1)),
        ("random_subsets.RandomSubsets(9, 128)", RandomSubsets(9, 128).images(48, 1)),
        ("lookahead.Lookahead(3)", Lookahead(3).images(48, 1)),
        ("refinement.Refinement(HeadHunter(3, 3))", Refinement(HeadHunter(3, 3)).images(48, 2) // 2),
    ):
        (row,) = (line for line in text.splitlines() if line.startswith(f"| `{call}`"))
        assert re.findall(r"\d+", row.split("|")[3]) == [str(recipes)], row
