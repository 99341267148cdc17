"""Each combination of rewards against its definition written out, and what all of them have in common."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pagopt.combine import COMBINATIONS, Scores, Term, fronts
from pagopt.combine.lexicographic import standard_error
from pagopt.errors import RewardError, UnknownName
from pagopt.reward import Objective, RewardSpec, check_terms
from pagopt.study import Study

A, B, C = "pagopt_rewards.brightness:Brightness", "pagopt_rewards.sharpness:Sharpness", "colorfulness"
Tables = dict[str, NDArray[np.float64]]


@cache
def objective(combine: str) -> Objective:
    """Three rewards, with limits and tolerances in units of the unguided images."""
    fields: dict[str, dict[str, object]] = {
        "thresholds": {"at_least": "baseline - 0.5 sd"},
        "lexicographic": {"tolerance": "0.5 sd"},
    }
    b = RewardSpec(B, **fields.get(combine, {}))  # type: ignore[arg-type]
    a = RewardSpec(A, tolerance="1 se" if combine == "lexicographic" else None)
    return Objective([a, b, RewardSpec(C)], combine)


def draw(seed: int, recipes: int = 7, tasks: int = 4, whole: bool = False) -> tuple[Tables, Tables]:
    """Scores and unguided scores; small whole numbers, and so ties, if asked for."""
    noise = np.random.default_rng(seed)
    labels = objective("sum").labels
    scale = dict(zip(labels, (1.0, 30.0, 0.1), strict=True))
    if whole:
        tables = {label: noise.integers(-2, 3, (recipes, tasks)).astype(float) for label in labels}
    else:
        tables = {label: scale[label] * noise.normal(0.3, 1, (recipes, tasks)) for label in labels}
    return tables, {label: scale[label] * noise.normal(0, 1, 6) for label in labels}


def z(tables: Tables, baseline: Tables, label: str, recipe: int, task: int) -> float:
    return float((tables[label][recipe][task] - np.mean(baseline[label])) / np.std(baseline[label], ddof=1))


seeds = st.integers(0, 10**6)
quick = settings(max_examples=40, deadline=None)


@quick
@given(seed=seeds, weights=st.tuples(*[st.sampled_from([0.5, 1.0, 3.0])] * 3))
def test_harmonic_is_the_harmonic_mean_of_exp_z(seed: int, weights: tuple[float, float, float]) -> None:
    tables, baseline = draw(seed)
    made = Objective([RewardSpec(name, weight) for name, weight in zip((A, B, C), weights, strict=True)], "harmonic")
    values = made.combine(tables, baseline)
    for recipe in range(7):
        for task in range(4):
            scores = [z(tables, baseline, label, recipe, task) for label in made.labels]
            mean = sum(weights) / sum(w / math.exp(s) for w, s in zip(weights, scores, strict=True))
            assert values[recipe, task] == pytest.approx(math.log(mean))
            low, high = min(scores), float(np.average(scores, weights=weights))
            assert low - 1e-9 <= values[recipe, task] <= high + 1e-9
    assert made.order(tables, baseline).tolist() == sorted(range(7), key=lambda i: -values[i].mean())


def test_harmonic_tells_apart_what_is_far_from_the_unguided_images() -> None:
    made = Objective([A, B], "harmonic")
    baseline = {"Brightness": [-1.0, 0.0, 1.0], "Sharpness": [-1.0, 0.0, 1.0]}
    values = made.combine({"Brightness": [[20.0, 21.0, -800]], "Sharpness": [[20.0, 22.0, 800]]}, baseline)
    np.testing.assert_allclose(values[0, [0, 2]], [20, -800 + math.log(2)])
    assert 21 < values[0, 1] < 21.5


@quick
@given(seed=seeds, low=st.floats(-1, 1), width=st.floats(0, 1.5), whole=st.booleans())
def test_thresholds_filter_then_sort(seed: int, low: float, width: float, whole: bool) -> None:
    tables, baseline = draw(seed, whole=whole)
    high = float(baseline[C].mean()) + width
    made = Objective(
        [RewardSpec(A, -1.0), RewardSpec(B, at_least=f"baseline {'+-'[low < 0]} {abs(low):.3f} sd"),
         RewardSpec(C, at_most=high, at_least="baseline")], "thresholds"
    )  # fmt: skip
    a, b, c = made.labels
    sd = {label: np.std(baseline[label], ddof=1) for label in made.labels}
    least_b = np.mean(baseline[b]) + round(low, 3) * sd[b]
    misses = []
    for recipe in range(7):
        mean_b, mean_c = np.mean(tables[b][recipe]), np.mean(tables[c][recipe])
        miss = max(0, least_b - mean_b) / sd[b] + max(0, mean_c - high) / sd[c]
        misses.append(miss + max(0, np.mean(baseline[c]) - mean_c) / sd[c])
    passing = sorted((i for i in range(7) if misses[i] == 0), key=lambda i: np.mean(tables[a][i]))
    failing = sorted((i for i in range(7) if misses[i] > 0), key=lambda i: (round(misses[i], 9), np.mean(tables[a][i])))
    assert made.order(tables, baseline).tolist() == passing + failing
    assert np.array_equal(made.combine(tables, baseline), -tables[a])
    assert [limit.text.split(" (")[0].rsplit(" ", 1)[0] for limit in made.limits(baseline)] == [
        f"{b} at least", f"{c} at least", f"{c} at most"
    ]  # fmt: skip


def test_a_threshold_is_met_by_what_reaches_it_exactly() -> None:
    """Also where sums round: the unguided images meet the threshold "baseline"."""
    noise = np.random.default_rng(0).normal(0.1, 0.3, 37)
    made = Objective([A, RewardSpec(B, at_least="baseline", at_most="baseline")], "thresholds")
    table = np.stack([noise + 1e-6, noise, noise - 1e-6])
    order = made.order({"Brightness": -table, "Sharpness": table}, {"Brightness": noise, "Sharpness": noise})
    assert order[0] == 1


def test_one_threshold_needs_no_scale() -> None:
    """A number in the reward's own unit serves where the unguided images all have one score, and for a single task."""
    made = Objective([A, RewardSpec(B, at_least=0.5)], "thresholds")
    tables = {"Brightness": [[3.0], [2.0], [1.0]], "Sharpness": [[0.2], [0.5], [0.4]]}
    assert made.order(tables, {"Brightness": [0.0], "Sharpness": [0.0]}).tolist() == [1, 2, 0]


def lexicographic(columns: Sequence[Sequence[float]], slacks: Sequence[float]) -> list[int]:
    """Again and again: who is left after each reward has sent away those too far below its best?"""
    left, order = list(range(len(columns[0]))), []
    while left:
        tied = left
        for column, slack in zip(columns, slacks, strict=False):
            best = max(column[i] for i in tied)
            tied = [i for i in tied if column[i] >= best - slack]
        order.append(max(tied, key=lambda i: (columns[-1][i], *(column[i] for column in columns), -i)))
        left = [i for i in left if i != order[-1]]
    return order


@quick
@given(seed=seeds, first=st.sampled_from([0, 0.5, "0.7 sd", "1.5 se"]), second=st.sampled_from([None, 3, "0.2 sd"]))
def test_lexicographic_asks_one_reward_after_the_other(seed: int, first: float | str, second: float | str) -> None:
    tables, baseline = draw(seed, whole=seed % 2 == 0)
    made = Objective(
        [RewardSpec(A, tolerance=first), RewardSpec(B, -1.0, tolerance=second), RewardSpec(C)], "lexicographic"
    )
    a, b, _ = made.labels
    units = {
        0: 0.0, 0.5: 0.5, 3: 3.0, None: 0.0, "0.7 sd": 0.7 * np.std(baseline[a], ddof=1),
        "0.2 sd": 0.2 * np.std(baseline[b], ddof=1), "1.5 se": 1.5 * standard_error(tables[a]),
    }  # fmt: skip
    columns = [[sign * row.mean() for row in tables[x]] for x, sign in zip(made.labels, (1, -1, 1), strict=True)]
    assert made.order(tables, baseline).tolist() == lexicographic(columns, [units[first], units[second]])
    assert np.array_equal(made.combine(tables, baseline), tables[a])


@quick
@given(seed=seeds)
def test_the_standard_error_is_that_of_the_paired_difference(seed: int) -> None:
    tables, _ = draw(seed, recipes=2, tasks=5)
    table = next(iter(tables.values()))
    assert standard_error(table) == pytest.approx(np.std(table[0] - table[1], ddof=1) / np.sqrt(5))
    # What is common to a task, or to a recipe, is no noise.
    moved = table + np.arange(5.0) + np.array([[100.0], [0.0]])
    assert standard_error(moved) == pytest.approx(standard_error(table))
    assert standard_error(table[:1]) == 0


def test_a_few_spoilt_recipes_do_not_widen_the_standard_error() -> None:
    noise = np.random.default_rng(0)
    table = noise.normal(size=(400, 20))
    clean = standard_error(table)
    assert clean == pytest.approx(math.sqrt(2 / 20), rel=0.1)
    table[:40] *= 50
    assert standard_error(table) < 1.2 * clean + 50 * math.sqrt(2 / 20) * 0.1


def dominated(points: NDArray[np.float64], i: int, left: list[int]) -> bool:
    return any(
        all(points[j][k] >= points[i][k] for k in range(points.shape[1]))
        and any(points[j][k] > points[i][k] for k in range(points.shape[1]))
        for j in left
    )


@quick
@given(seed=seeds, n=st.integers(0, 12), k=st.integers(1, 4))
def test_fronts_peel_off_what_nothing_dominates(seed: int, n: int, k: int) -> None:
    points = np.random.default_rng(seed).integers(0, 4, (n, k)).astype(float)
    number, left, expected = 0, list(range(n)), [-1] * n
    while left:
        front = [i for i in left if not dominated(points, i, left)]
        for i in front:
            expected[i] = number
        left = [i for i in left if i not in front]
        number += 1
    assert fronts(points).tolist() == expected


@quick
@given(seed=seeds)
def test_pareto_goes_front_by_front_and_inside_by_the_sum(seed: int) -> None:
    tables, baseline = draw(seed, recipes=9)
    made = Objective([RewardSpec(A), RewardSpec(B, -2.0), RewardSpec(C)], "pareto")
    total = Objective([RewardSpec(A), RewardSpec(B, -2.0), RewardSpec(C)])
    sums = total.combine(tables, baseline).mean(axis=1)
    means = [sign * tables[x].mean(axis=1) for x, sign in zip(made.labels, (1, -1, 1), strict=True)]
    front = fronts(np.stack(means, axis=1))
    order = made.order(tables, baseline).tolist()
    assert order == sorted(range(9), key=lambda i: (front[i], -sums[i]))
    assert order[0] == total.order(tables, baseline)[0], "the best by the sum lies on the first front"
    assert made.front(tables).tolist() == [i for i in range(9) if front[i] == 0]
    assert made.combination.fronts(Scores(made.terms, tables)).tolist() == front.tolist()  # type: ignore[attr-defined]


@pytest.mark.parametrize("combine", COMBINATIONS)
@quick
@given(seed=seeds)
def test_the_order_of_the_recipes_does_not_matter(combine: str, seed: int) -> None:
    tables, baseline = draw(seed)
    made = objective(combine)
    permutation = np.random.default_rng(seed).permutation(7)
    shuffled = {label: table[permutation] for label, table in tables.items()}
    assert permutation[made.order(shuffled, baseline)].tolist() == made.order(tables, baseline).tolist()


@pytest.mark.parametrize("combine", COMBINATIONS)
@quick
@given(seed=seeds, factor=st.floats(0.01, 100), offset=st.floats(-100, 100))
def test_the_unit_of_a_reward_does_not_matter(combine: str, seed: int, factor: float, offset: float) -> None:
    """With limits and tolerances that are measured against the unguided images, or in standard errors."""
    tables, baseline = draw(seed)
    made = objective(combine)
    order = made.order(tables, baseline)
    for label in made.labels:
        scores, unguided = dict(tables), dict(baseline)
        scores[label], unguided[label] = factor * tables[label] + offset, factor * baseline[label] + offset
        assert made.order(scores, unguided).tolist() == order.tolist()


@pytest.mark.parametrize("combine", COMBINATIONS)
@quick
@given(seed=seeds, first=st.integers(0, 6), second=st.integers(0, 6), gain=st.floats(0.01, 2))
def test_what_is_better_by_every_reward_on_every_task_comes_first(
    combine: str, seed: int, first: int, second: int, gain: float
) -> None:
    if first == second:
        return
    tables, baseline = draw(seed, whole=True)
    for table in tables.values():
        table[first] = table[second] + gain
    order = objective(combine).order(tables, baseline).tolist()
    assert order.index(first) < order.index(second)


@pytest.mark.parametrize("combine", COMBINATIONS)
def test_a_ranking_has_the_numbers_beside_the_order(combine: str) -> None:
    tables, baseline = draw(0, recipes=40)
    made = objective(combine)
    ranking = made.rank(tables, baseline)
    assert sorted(ranking.order) == list(range(40))
    assert np.array_equal(ranking.values, made.combine(tables, baseline))
    assert ranking.parts.keys() == tables.keys()
    assert all(np.array_equal(ranking.parts[label], tables[label]) for label in tables)
    by_mean = np.argsort(-ranking.values.mean(axis=1), kind="stable").tolist()
    assert (ranking.additive, made.additive) == (combine in {"sum", "harmonic"},) * 2
    assert (ranking.order.tolist() == by_mean) == ranking.additive, "the drawn numbers tell the two orders apart"


def test_one_reward_has_no_parts() -> None:
    ranking = Objective([A]).rank({"Brightness": [[1.0], [2.0]]})
    assert (ranking.order.tolist(), ranking.parts, ranking.additive) == ([1, 0], {}, True)


@pytest.mark.parametrize("combine", COMBINATIONS)
def test_numbers_that_are_not_finite_are_refused(combine: str) -> None:
    tables, baseline = draw(0)
    made = objective(combine)
    for bad in (math.nan, math.inf):
        for label in made.labels:
            broken = {**tables, label: np.where(np.arange(4) == 2, bad, tables[label])}
            for method in (made.rank, made.combine, made.order):
                with pytest.raises(RewardError, match="for the images are not all finite"):
                    method(broken, baseline)
    with pytest.raises(RewardError, match="finite numbers of shape"):
        fronts(np.array([[1.0, math.nan]]))


a, b = RewardSpec(A), RewardSpec(B)
REFUSED = [
    ("sum", [a, RewardSpec(B, at_least=1)], "at_least of reward 'Sharpness' means nothing in the combination 'sum'"),
    ("sum", [RewardSpec(B, at_most=1)], "write `combine: thresholds`, or leave at_most out"),
    ("pareto", [RewardSpec(A, tolerance=1), b], "tolerance of reward 'Brightness' .* `combine: lexicographic`"),
    ("lexicographic", [RewardSpec(A, at_least=1), b], "at_least .* `combine: thresholds`"),
    ("harmonic", [a], "`combine: harmonic` needs at least two rewards, and there is only 'Brightness'"),
    ("lexicographic", [a], "`combine: lexicographic` needs at least two rewards"),
    ("thresholds", [RewardSpec(A, at_least=1)], "`combine: thresholds` needs at least two rewards"),
    ("pareto", [a], "`combine: pareto` needs at least two rewards"),
    ("harmonic", [a, RewardSpec(B, -0.5)], "no negative weights, and that of 'Sharpness' is -0.5: use a reward of"),
    ("thresholds", [a, b], "needs at_least .* on at least one of the rewards"),
    ("thresholds", [RewardSpec(A, at_least=1), RewardSpec(B, at_most=1)], "needs a reward to rank by"),
    ("thresholds", [a, RewardSpec(B, -1, at_least=1)], "a condition has no weight: leave it out, and write at_most"),
    ("thresholds", [a, RewardSpec(B, at_least=2, at_most=1)], "can meet both at_least 2 and at_most 1 of reward 'Shar"),
    ("thresholds", [a, RewardSpec(B, at_least="baseline", at_most="baseline - 1 sd")], "can meet both at_least basel"),
    ("lexicographic", [RewardSpec(A, 0.5), b], "the weight 0.5 of 'Brightness' would do nothing"),
    ("lexicographic", [a, RewardSpec(B, tolerance=1)], "nothing comes after 'Sharpness', the last reward"),
]  # fmt: skip


@pytest.mark.parametrize(("combine", "specs", "says"), REFUSED)
def test_what_cannot_be_combined_is_refused_before_anything_is_drawn(
    combine: str, specs: list[RewardSpec], says: str
) -> None:
    with pytest.raises(RewardError, match=says):
        check_terms(specs, combine)
    with pytest.raises(RewardError, match=says):
        Objective(specs, combine)
    with pytest.raises(RewardError, match=says):
        Study(prompts=["cat"], reward=specs, combine=combine)


def test_unknown_combinations_and_rewards_are_named() -> None:
    for make in (lambda: Objective([A, B], "harmonik"), lambda: Study(["cat"], [a, b], "harmonik")):
        with pytest.raises(UnknownName, match=r"'harmonik'. Did you mean 'harmonic'.* sum, harmonic, thresholds, lexi"):
            make()
    with pytest.raises(UnknownName, match="unknown reward 'clipp'"):
        Objective([a, RewardSpec("clipp", at_least=20)], "thresholds")
    with pytest.raises(RewardError, match="at_least of reward 'colorfulness' means nothing"):
        Study(["cat"], "clip", watch=[RewardSpec("colorfulness", at_least=3)])


@pytest.mark.parametrize("value", ["basline", "baseline -", "baseline - 1", "1 sd", "20 %", "", True, math.nan, [1]])
def test_limits_that_mean_nothing_are_refused(value: object) -> None:
    with pytest.raises(RewardError, match=r"at_least of reward 'clip' is .*: write a finite number .* \"baseline\""):
        RewardSpec("clip", at_least=value)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", ["1", "1 sds", "-1 sd", -0.1, "sd", False, math.inf])
def test_tolerances_that_mean_nothing_are_refused(value: object) -> None:
    with pytest.raises(RewardError, match=r"the tolerance of reward 'clip' is .*: write a number from 0 .* \"1 se\""):
        RewardSpec("clip", tolerance=value)  # type: ignore[arg-type]


def test_limits_that_nothing_can_meet_are_refused() -> None:
    made = Objective([A, RewardSpec(B, at_least="baseline + 1 sd", at_most=2)], "thresholds")
    tables, low = {"Brightness": [[1.0]], "Sharpness": [[1.0]]}, {"Sharpness": [0.0, 1.0]}
    assert made.order(tables, low).tolist() == [0]
    with pytest.raises(RewardError, match=r"both Sharpness at least 4.0\d+ .* and Sharpness at most 2"):
        made.order(tables, {"Sharpness": [1.0, 3.5]})
    assert len(made.limits(low, {"Sharpness": 5.0})) == 2, "on held-out tasks it is only missed"


def test_limits_of_other_tasks_have_their_mean_and_the_searchs_spread() -> None:
    spec = RewardSpec(B, at_least="baseline -.5sd", at_most="baseline + 2. sd")
    made = Objective([A, spec, RewardSpec(C, at_most=60)], "thresholds")
    search = {label: np.array([0.0, 2.0, 4.0]) for label in made.labels}
    others = dict.fromkeys(made.labels, 10.0)
    assert [limit.value for limit in made.limits(search)] == [1, 6, 60]
    assert [limit.value for limit in made.limits(search, others)] == [9, 14, 60]
    least, most, number = made.limits(search)
    assert (least.miss(0.5), least.miss(1), most.miss(7), most.miss(6)) == (0.5, 0, 1, 0)
    assert least.text.endswith("at least 1 (baseline - .5 sd)")
    assert number.text == "colorfulness at most 60"


def test_a_tolerance_in_standard_errors_needs_two_tasks() -> None:
    made = Objective([RewardSpec(A, tolerance="1 se"), B], "lexicographic")
    with pytest.raises(RewardError, match="needs at least 2 tasks, and there are 1"):
        made.order({"Brightness": [[1.0]], "Sharpness": [[1.0]]})


def test_a_term_says_which_way_is_better() -> None:
    assert (Term("x").sign, Term("x", -0.2).sign) == (1, -1)
