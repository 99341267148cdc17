"""A whole small search with each combination of rewards: from the YAML file to the report."""

from __future__ import annotations

import csv
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from pagopt.cli import main
from pagopt.combine import Limit
from pagopt.experiment import run_study
from pagopt.recipe import load_recipe
from pagopt.report import write_report
from pagopt.report.reading import read_rows
from pagopt.results import Results, load_results
from pagopt.reward import Objective, RewardSpec
from pagopt.store import Store
from pagopt.study import Study
from pagopt.summary import held_out_means, missed, passing, scores_table, thresholds

TRAINER = {"accelerator": "cpu"}
COLOR, BRIGHT, SHARP = "colorfulness", "brightness", "sharpness"
REWARDS = {
    "sum": [{"name": COLOR}, {"name": BRIGHT, "weight": -0.5}],
    "harmonic": [{"name": COLOR}, {"name": BRIGHT, "weight": 2.0}],
    "thresholds": [{"name": COLOR}, {"name": BRIGHT, "at_least": "baseline - 0.5 sd"}, {"name": SHARP, "at_most": 9e9}],
    "lexicographic": [{"name": COLOR, "tolerance": "2 se"}, {"name": BRIGHT, "weight": -1.0}],
    "pareto": [{"name": COLOR}, {"name": BRIGHT}],
}


class Runs:
    """One finished search a combination, made when it is first asked for."""

    def __init__(self, model: Path, folder: Path) -> None:
        self.model, self.folder = model, folder

    def study(self, combine: str) -> Study:
        return Study(
            model=str(self.model), reward=[RewardSpec(**term) for term in REWARDS[combine]], combine=combine,  # type: ignore[arg-type]
            prompts=["red apple", "house", "key"], held_out_prompts=["cat", "tree"], steps=2, rounds=1,
            heads_per_round=2, compare_layers=False, cfg_scales=[2.0],
        )  # fmt: skip

    def __call__(self, combine: str) -> tuple[Results, Path]:
        out = self.folder / combine
        return run_study(self.study(combine), "tiny", out, trainer=TRAINER), out


@pytest.fixture(scope="module")
def runs(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return Runs(tiny_model, tmp_path_factory.mktemp("runs"))


@pytest.mark.parametrize("combine", REWARDS)
def test_a_search_with_each_combination_reports_its_parts(runs: Runs, combine: str) -> None:
    results, out = runs(combine)
    assert load_results(out / "results.json") == results
    assert results.combine == combine
    labels = [term["name"] for term in REWARDS[combine]]
    (done,) = results.rounds
    assert list(done.parts) == list(done.score_parts) == labels
    assert list(done.chosen) == done.ranked()[:2]

    # The order, again, from what was written down; means are all that these orders look at.
    made = Objective([RewardSpec(**term) for term in REWARDS[combine]], combine)  # type: ignore[arg-type]
    means = {label: np.array([[s.mean] for s in done.parts[label].values()]) for label in labels}
    if combine in {"thresholds", "pareto"}:
        front = [list(done.scores)[i] for i in made.front(means)]
        met = passing(results, done)
        if combine == "pareto":
            assert done.ranked()[: len(front)] == sorted(front, key=done.ranked().index)
        else:
            assert done.ranked()[: len(met)] == sorted(met, key=lambda h: -done.parts[COLOR][h].mean)
    for method in results.methods:
        assert set(labels) <= set(method.rewards)
    if combine in {"thresholds", "lexicographic"}:
        assert results.methods[-1].objective == results.methods[-1].rewards[COLOR]

    rows = list(csv.DictReader((out / "scores.csv").read_text().splitlines()))
    assert {row["reward"] for row in rows if row["phase"] == "round 1"} == {"objective", *labels}
    for label in labels:
        shown = {
            row["method"]: float(row["score"]) for row in rows if row["phase"] == "round 1" and row["reward"] == label
        }
        assert shown == {head: pytest.approx(s.mean, rel=1e-4) for head, s in done.parts[label].items()}
    page = (out / "report.html").read_text(encoding="utf-8")
    name = {
        "sum": "colorfulness + -0.5 × brightness",
        "harmonic": "harmonic mean of colorfulness and 2 × brightness",
        "thresholds": "colorfulness where brightness at least baseline - 0.5 sd and sharpness at most 9e+09",
        "lexicographic": "colorfulness (tolerance 2 se), then -1 × brightness",
        "pareto": "Pareto order of colorfulness and brightness",
    }[combine]
    assert f"<dt>Objective</dt><dd>{name}</dd>" in page
    assert re.search(r"Against base</th><th[^>]*>colorfulness</th><th[^>]*>brightness", page)
    assert ("Passes</th>" in page) == (combine == "thresholds")
    _, provenance = load_recipe(out / "recipe.json")
    assert provenance is not None
    assert provenance.evidence.get("combine", "sum") == combine
    assert ("thresholds" in provenance.evidence) == (combine == "thresholds")


def test_who_meets_the_thresholds_is_said(runs: Runs) -> None:
    results, out = runs("thresholds")
    (done,) = results.rounds
    least, most = results.limits
    assert (least.reward, least.kind, least.rule) == (BRIGHT, "at_least", "baseline - 0.5 sd")
    assert results.held_out_limits[0].value != least.value, "the held-out tasks have an unguided mean of their own"
    assert results.held_out_limits[1] == most
    none, *_, found = results.methods
    prompts = results.held_out_prompts
    assert not missed(results.held_out_limits, held_out_means(none, prompts)), "no guidance is not worse than itself"
    rows = list(csv.DictReader((out / "scores.csv").read_text().splitlines()))
    for head, score in done.parts[BRIGHT].items():
        (row,) = [r for r in rows if (r["method"], r["reward"], r["phase"]) == (head, BRIGHT, "round 1")]
        assert row["passes"] == str(int(score.mean >= least.value))
    held_out = {row["passes"] for row in rows if row["method"] == found.name and row["reward"] == "objective"}
    assert held_out == {str(int(not missed(results.held_out_limits, held_out_means(found, prompts))))}


def test_a_prompt_with_several_seeds_counts_once(runs: Runs) -> None:
    """In the verdict as in the table beside it."""
    results, _ = runs("thresholds")
    found = replace(results.methods[-1], objective=(0.0,) * 4, rewards={BRIGHT: (20.0, 20.0, 20.0, 30.0)})
    tasks = [("dog", 0), ("dog", 1), ("dog", 2), ("tree", 3)]
    limits = [Limit(BRIGHT, "at_least", "24", 24.0)]
    results = replace(results, methods=[found], held_out_tasks=tasks, held_out_limits=limits)
    (row,) = read_rows(results)
    assert held_out_means(found, results.held_out_prompts) == {BRIGHT: row.rewards[BRIGHT].mean} == {BRIGHT: 25.0}
    assert "On the held-out tasks the found recipe meets the thresholds" in " ".join(thresholds(results).sentences)


def test_thresholds_that_nobody_meets_are_said_at_the_end(
    study: Study, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """From a YAML file, on the command line."""
    rewards = [{"name": COLOR}, {"name": BRIGHT, "at_least": 1.5}]
    data = {
        "model": study.model, "prompts": study.prompts, "held_out_prompts": study.held_out_prompts, "steps": 2,
        "reward": rewards, "combine": "thresholds", "rounds": 1, "heads_per_round": 1, "compare_layers": False,
        "cfg_scales": [],
    }  # fmt: skip
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(data), encoding="utf-8")
    words = ["search", str(tmp_path / "tiny.yaml"), "--out", str(tmp_path / "run"), "--trainer.accelerator", "cpu"]
    assert main(words) == 0
    text = " ".join(capsys.readouterr().out.split())
    results = load_results(tmp_path / "run" / "results.json")
    (done,) = results.rounds
    brightest = max(done.parts[BRIGHT], key=lambda head: done.parts[BRIGHT][head].mean)
    assert done.chosen == (brightest,), "the nearest to the threshold"
    gap = 1.5 - done.parts[BRIGHT][brightest].mean
    assert (
        f"In round 1 none of 6 heads met the thresholds; the nearest, {brightest}, missed brightness at least 1.5 by "
        f"{gap:.3g}." in text
    )
    assert "On the held-out tasks the found recipe misses brightness at least 1.5 by" in text
    assert "0 of 6" in text
    assert "objective: colorfulness where brightness at least 1.5" in text
    assert "missed" in text
    verdict = thresholds(results)
    assert not verdict.met
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert all(sentence in page for sentence in verdict.sentences)


def test_the_command_line_refuses_in_one_line(
    study_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pair = "[{name: colorfulness}, {name: brightness, at_least: baseline}]"
    for words, message in (
        (["--combine", "harmonik"], "unknown combination 'harmonik'. Did you mean 'harmonic'?"),
        (["--combine", "lexicographic"], "`combine: lexicographic` needs at least two rewards"),
        (["--reward", pair], "write `combine: thresholds`, or leave at_least out"),
    ):
        out = ["--out", str(tmp_path / "run"), "--trainer.accelerator", "cpu"]
        assert main(["search", str(study_file), *words, *out]) == 2
        assert message in " ".join(capsys.readouterr().err.split())
        assert not (tmp_path / "run").exists()


def test_what_an_earlier_version_left_is_read(runs: Runs, tmp_path: Path) -> None:
    """Its folder belongs to the same study, and its results have no parts."""
    results, out = runs("sum")
    shutil.copytree(out, tmp_path / "run", ignore=shutil.ignore_patterns("store"))
    config = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert "combine" not in config
    assert config["reward"] == [{"args": {}, "weight": 1.0, **term} for term in REWARDS["sum"]]
    path = tmp_path / "run" / "results.json"
    data = json.loads(path.read_text())
    for key in ("combine", "limits", "held_out_limits"):
        del data[key]
    for done in data["rounds"]:
        for key in ("parts", "score_parts", "order"):
            del done[key]
    path.write_text(json.dumps(data))
    old = run_study(runs.study("sum"), "tiny", tmp_path / "run", trainer=TRAINER)
    assert old.methods == results.methods
    assert (old.combine, old.limits, old.rounds[0].parts) == ("sum", [], {})
    assert old.rounds[0].ranked() == results.rounds[0].ranked()
    assert thresholds(old).sentences == ()


def test_a_search_that_keeps_no_parts_still_gives_a_report(runs: Runs) -> None:
    """A race has no means of single rewards for heads that it dropped early."""
    results, out = runs("thresholds")
    bare = replace(results, rounds=[replace(done, parts={}) for done in results.rounds])
    assert passing(bare, bare.rounds[0]) is None
    assert thresholds(bare) == thresholds(results)
    rows = list(csv.DictReader(scores_table(bare).splitlines()))
    assert {row["passes"] for row in rows if row["phase"] == "round 1"} == {""}
    store = Store(out / "store")
    write_report(bare, store.get_image, out / "bare.html")
    store.close()
    assert "Passes</th>" not in (out / "bare.html").read_text(encoding="utf-8")
