"""Paired differences against slow references, and what a picture costs against a count of the blocks that ran."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from pagopt.comparison.compute import block_evaluations, pictures_for
from pagopt.comparison.statistics import difference, mean_interval
from pagopt.errors import PagoptError
from pagopt.models import load_pipeline
from pagopt.paired import group_means, holm, p_values, paired_p, standard_error
from pagopt.recipe import Recipe
from pagopt.render import Job, Renderer, Task


def slow_interval(values: list[float], groups: list[str], repeats: int, seed: int) -> tuple[float, float]:
    """Draw prompts with replacement, put all their tasks together, take the mean; then quantiles at expanded levels."""
    names = list(dict.fromkeys(groups))
    generator = np.random.default_rng(seed)
    means = []
    for _ in range(repeats):
        drawn = [names[i] for i in generator.integers(len(names), size=len(names))]
        tasks = [v for name in drawn for v, group in zip(values, groups, strict=True) if group == name]
        means.append(sum(tasks) / len(tasks))
    n = len(names)
    tail = stats.norm.cdf(-math.sqrt(n / (n - 1)) * stats.t.ppf(0.975, n - 1))
    return float(np.quantile(means, tail)), float(np.quantile(means, 1 - tail))


def test_intervals_are_those_of_a_slow_bootstrap_over_prompts() -> None:
    values = [1.0, 2.5, -0.5, 4.0, 3.0, 3.5, 0.0, 1.5, 2.0, -1.0, 0.5, 6.0]
    groups = list("aabbccddeeff")
    found = mean_interval(values, groups, repeats=500, seed=3)
    low, high = slow_interval(values, groups, repeats=500, seed=3)
    assert found.value == pytest.approx(np.mean(values))
    assert (found.low, found.high) == pytest.approx((low, high))
    # The order of the tasks is that of the rows, not of the prompts.
    mixed = [values[i] for i in (*range(0, 12, 2), *range(1, 12, 2))]
    again = mean_interval(mixed, list("abcdefabcdef"), repeats=500, seed=3)
    assert (again.low, again.high) == pytest.approx((low, high))


def test_intervals_of_many_prompts_are_drawn_in_parts_that_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    values, groups = np.random.default_rng(0).normal(size=50), [str(i) for i in range(50)]
    whole = mean_interval(values, groups, repeats=300)
    monkeypatch.setattr("pagopt.comparison.statistics.CELLS", 50 * 7)
    assert mean_interval(values, groups, repeats=300) == whole


def test_intervals_cover_the_truth_for_few_prompts_and_for_alike_pictures() -> None:
    generator = np.random.default_rng(1)
    groups, covered, naive = [str(i) for i in range(6) for _ in range(4)], 0, 0
    for _ in range(600):
        # Skewed prompts (mean 1) and little noise of the seeds within them.
        values = np.repeat(generator.gamma(4.0, 0.25, size=6), 4) + 0.1 * generator.normal(size=24)
        found = mean_interval(values, groups, repeats=400)
        covered += found.low <= 1 <= found.high
        alone = mean_interval(values, range(24), repeats=400)
        naive += alone.low <= 1 <= alone.high
    assert covered / 600 > 0.89
    assert naive / 600 < 0.75, "pictures of a prompt taken for independent promise too much"


def test_a_single_prompt_is_drawn_by_its_tasks() -> None:
    assert group_means([1.0, 3.0, 8.0], "aaa").tolist() == [1.0, 3.0, 8.0]
    assert standard_error([1.0, 3.0, 8.0], "aaa") == pytest.approx(stats.sem([1.0, 3.0, 8.0]))
    assert standard_error([1.0, 3.0, 8.0, 6.0], "aabb") == pytest.approx(stats.sem([2.0, 7.0]))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_is_its_definition(p_values: list[float]) -> None:
    found = holm(p_values)
    for level in (0.001, 0.01, 0.05, 0.2, 0.7):
        rejected = set()
        for number, index in enumerate(sorted(range(len(p_values)), key=lambda i: (p_values[i], i))):
            if p_values[index] * (len(p_values) - number) > level:
                break
            rejected.add(index)
        assert {i for i, p in enumerate(found) if p <= level} == rejected


def test_p_values() -> None:
    gains = [1.0, 2.0, -0.5, 3.0, 0.25, 1.0]
    assert paired_p(gains, range(6)) == pytest.approx(stats.ttest_rel(gains, [0.0] * 6).pvalue)
    means = [1.5, 1.25, 0.625]
    assert paired_p(gains, "aabbcc") == pytest.approx(stats.ttest_1samp(means, 0.0).pvalue)
    # About the exact answer of flipping signs.
    flips = [
        np.mean([s * g for s, g in zip(signs, gains, strict=True)]) for signs in itertools.product((1, -1), repeat=6)
    ]
    exact = np.mean(np.abs(flips) >= abs(np.mean(gains)) - 1e-12)
    assert paired_p(gains, range(6)) == pytest.approx(exact, abs=0.05)
    assert paired_p([0.0] * 5, range(5)) == 1.0
    assert paired_p([0.1 + 0.2] * 5, range(5)) == 2 / 2**5
    # The same, but for rounding.
    rounded = np.array([0.1, 0.3 - 0.2, 0.1, 1.1 - 1.0, 0.1])
    assert paired_p(rounded, range(5)) == paired_p(-rounded, range(5)) == 2 / 2**5


def test_one_sided_p_values_are_of_one_direction() -> None:
    gains = np.array([1.0, 2.0, -0.5, 3.0, 0.25, 1.0])
    two = paired_p(gains, range(6))
    assert paired_p(gains, range(6), "greater") == pytest.approx(two / 2)
    assert paired_p(-gains, range(6), "greater") == pytest.approx(1 - two / 2)
    assert paired_p(gains, range(6), "greater") == stats.ttest_1samp(gains, 0.0, alternative="greater").pvalue
    assert paired_p([1.0] * 20, range(20), "greater") == 2.0**-20
    assert paired_p([-1.0] * 20, range(20), "greater") == paired_p([0.0] * 20, range(20), "greater") == 1.0


def test_rows_are_tested_as_each_alone() -> None:
    samples = np.random.default_rng(0).normal(size=(3, 4, 7))
    samples[1, 2], samples[2, 0] = 0.1, 0.0
    found = p_values(samples)
    assert found.tolist() == [[paired_p(row, range(7)) for row in rows] for rows in samples]


def test_prompts_with_several_seeds_are_not_shown_better_by_chance() -> None:
    """At 5 % under no difference: prompts of their own mean, 8 seeds each, some with fewer."""
    generator = np.random.default_rng(2)
    groups = np.repeat(np.arange(8), [8, 8, 8, 8, 8, 8, 4, 1])
    found, alone = [], []
    for _ in range(1000):
        gains = generator.normal(size=8)[groups] + generator.normal(size=groups.size)
        found.append(paired_p(gains, groups.tolist(), "greater"))
        alone.append(paired_p(gains, range(groups.size), "greater"))
    assert np.mean(np.array(found) < 0.05) == pytest.approx(0.05, abs=0.02)
    assert np.mean(np.array(alone) < 0.05) > 0.15
    # Each prompt counts the same.
    assert group_means([1.0, 3.0, 8.0], "aab").tolist() == [2.0, 8.0]


def test_a_difference_turns_around_where_lower_is_better() -> None:
    up = difference(("a", "b", "r"), [1.0, 2.0, 3.0, 4.0], [0.0, 2.0, 1.0, 5.0], range(4))
    assert (up.mean, up.wins) == (0.5, 0.625)
    assert up.low < 0.5 < up.high
    down = difference(("a", "b", "r"), [1.0, 2.0, 3.0, 4.0], [0.0, 2.0, 1.0, 5.0], range(4), sign=-2.0)
    assert (down.mean, down.wins, down.p_value) == (-0.5, 0.375, up.p_value)


@pytest.mark.parametrize(
    ("values", "groups", "message"),
    [
        ([1.0], "a", "at least 2 tasks"),
        ([1.0, 2.0], "a", "2 values and 1 prompts"),
    ],
)
def test_what_cannot_be_compared_is_refused(values: list[float], groups: str, message: str) -> None:
    with pytest.raises(PagoptError, match=message):
        mean_interval(values, groups)
    with pytest.raises(PagoptError, match="between 0 and 1"):
        mean_interval([1.0, 2.0], "ab", confidence=1.0)


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe(scale=0.0),
        Recipe(scale=0.0, cfg=2.0),
        Recipe("L2.H1"),
        Recipe("L0.H0 L2.H1", strength=[0.0, 0.5]),
        Recipe("L1.H0", cfg=2.0, interval=(0.0, 0.5)),
    ],
    ids=lambda recipe: recipe.key(),
)
def test_the_cost_is_the_number_of_blocks_that_run(recipe: Recipe, tiny_model: Path) -> None:
    renderer = Renderer(load_pipeline(str(tiny_model)), steps=4)
    rows: list[int] = []
    for block in renderer.pipe.transformer.transformer_blocks:
        block.register_forward_hook(lambda _, inputs, output: rows.append(output[1].shape[0]))
    renderer.render([Job(recipe, Task("red apple", 0))])
    assert block_evaluations(recipe, blocks=3, steps=4) == sum(rows)


@given(st.integers(8, 24), st.integers(1, 60))
def test_best_of_n_costs_what_the_recipe_costs(rows: int, tasks: int) -> None:
    compute = rows / 8
    counts = pictures_for(compute, tasks)
    assert len(counts) == tasks
    assert sum(counts) == -(-rows * tasks // 8)
    assert max(counts) - min(counts) <= 1
    assert min(counts) >= 1
    # Evenly: no run of tasks gets more than a picture above its share.
    assert all(sum(counts[:i]) - compute * i < 1 for i in range(tasks))
