"""Diversity as an objective and as a constraint: against a plain reference, and through a whole tuning."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pagopt.errors import RewardError, StudyError
from pagopt.evaluate import Evaluator, make_trainer
from pagopt.models import load_pipeline
from pagopt.recipe import Recipe
from pagopt.render import Renderer, Task
from pagopt.reward import RewardSpec, load_reward
from pagopt.store import Store
from pagopt.tuning import Tuning, tune
from pagopt.tuning.diversity import DIVERSITY, Diversity, shares
from tests.tune.conftest import TRAINER

Make = Callable[..., Tuning]
CPU = torch.device("cpu")
TWICE: dict[str, Any] = {
    "prompts": ["red apple", "house", "cat"] * 2,
    "held_out_prompts": ["key", "moon", "key", "moon"],
    "cfg_scales": [],
}
SEEN = "tests.tune.features:Seen"


def pairs(features: np.ndarray[Any, Any]) -> float:
    """The mean over all pairs, one after another."""
    distances = [
        1 - float(a @ b) / float(np.sqrt(a @ a) * np.sqrt(b @ b)) for a, b in itertools.combinations(features, 2)
    ]
    return sum(distances) / len(distances)


def test_shares_of_a_prompt_have_the_mean_distance_of_its_pairs() -> None:
    noise = np.random.default_rng(0)
    features = noise.normal(size=(9, 5)) * noise.uniform(0.1, 10, (9, 1))
    groups = ["a", "b", "a", "c", "b", "a", "c", "a", "b"]
    found = shares(features, groups)
    for group in "abc":
        own = np.array([other == group for other in groups])
        assert found[own].mean() == pytest.approx(pairs(features[own]), abs=1e-12)
    alone = 1 - np.mean(
        [features[0] @ f / np.linalg.norm(features[0]) / np.linalg.norm(f) for f in features[[2, 5, 7]]]
    )
    assert found[0] == pytest.approx(alone)


def test_shares_lie_between_same_and_opposite() -> None:
    assert shares(np.array([[1.0, 2.0], [2.0, 4.0]]), "aa") == pytest.approx([0, 0], abs=1e-12)
    assert shares(np.array([[1.0, 2.0], [-1.0, -2.0]]), "aa") == pytest.approx([2, 2])
    assert shares(np.array([[0.0, 0.0], [1.0, 0.0]]), "aa") == pytest.approx([1, 1])
    with pytest.raises(ValueError, match="'b' has a single picture"):
        shares(np.ones((3, 2)), "aab")


def test_it_is_the_second_of_two_objectives(make: Make, tmp_path: Path) -> None:
    """Its value for each trial, against features of the pictures in the store and all their pairs."""
    spec = RewardSpec(DIVERSITY, args={"reward": SEEN})
    tuning = make(study=TWICE, objectives=[spec], rungs=None, trials=6, at_once=3, sampler="random", sampler_options={})
    tuned = tune(tuning, "tiny", tmp_path / "run", trainer=TRAINER)
    assert [(goal.name, goal.higher) for goal in tuned.goals] == [("objective", True), (DIVERSITY, True)]
    tasks, reward = tuning.study.tasks(), load_reward(SEEN)
    assert [task.prompt for task in tasks[::3]] == ["red apple"] * 2
    store = Store(tmp_path / "run" / "store")
    renderer = Renderer(load_pipeline(tuning.study.model), tuning.study.steps)
    evaluator = Evaluator(renderer, {}, store, make_trainer(**TRAINER))
    different = set()
    for row in tuned.trials:
        assert row.state == "complete", row.cause
        values = list(row.scores[DIVERSITY].values())
        assert row.values[1] == pytest.approx(float(np.mean(values)))
        assert values[:3] == pytest.approx(values[3:]), "of two pictures each is as far from the other"
        (keys,) = evaluator.keys([Recipe.from_dict(row.recipe)], tasks)
        seen = reward.features([store.get_image(key) for key in keys]).double().numpy()  # type: ignore[attr-defined]
        assert row.values[1] == pytest.approx(np.mean([pairs(seen[place::3]) for place in range(3)]), abs=1e-9)
        different.add(round(row.values[1], 6))
    assert len(different) > 3, "or this says nothing"
    for one in tuned.methods:
        features = reward.features([store.get_image(key) for key in one.method.images])  # type: ignore[attr-defined]
        own = one.method.rewards[DIVERSITY]
        for place in range(2):  # key and moon, in turns
            assert own[place] == pytest.approx(pairs(features[place::2].double().numpy()), abs=1e-9)
    store.close()


def test_it_can_be_a_constraint(make: Make, tmp_path: Path) -> None:
    """With pruning, too: what was stopped early has no diversity."""
    limit = RewardSpec(DIVERSITY, args={"reward": SEEN}, at_least="baseline")
    tuning = make(study=TWICE, constraints=[limit], trials=8, at_once=2)
    tuned = tune(tuning, "tiny", tmp_path / "run", trainer=TRAINER)
    complete = [row for row in tuned.trials if row.state == "complete"]
    (name,) = complete[0].limits
    assert name.startswith("diversity at least")
    base = np.mean(list(complete[0].scores[DIVERSITY].values()))
    assert complete[0].label == "no guidance"
    assert complete[0].limits[name] == pytest.approx(0, abs=1e-12)
    for row in complete:
        assert row.limits[name] == pytest.approx(base - np.mean(list(row.scores[DIVERSITY].values())))
    assert {row.is_feasible for row in complete} == {True, False}, "or this says nothing"
    assert tuned.trial(tuned.best[0]).is_feasible
    for row in tuned.trials:
        assert (DIVERSITY in row.scores) == (row.state == "complete")


def test_features_that_fail(make: Make, tmp_path: Path) -> None:
    """On unguided pictures they end the tuning; on a trial's, the trial, and the others go on."""

    def tuning(failing: int) -> Tuning:
        spec = RewardSpec(DIVERSITY, args={"reward": SEEN, "args": {"failing": failing}})
        return make(study=TWICE, objectives=[spec], rungs=None, trials=5, sampler="random", sampler_options={})

    with pytest.raises(RewardError, match="failed: ValueError: call 1"):
        tune(tuning(1), "tiny", tmp_path / "first", trainer=TRAINER)
    tuned = tune(tuning(3), "tiny", tmp_path / "third", trainer=TRAINER)
    (bad,) = [row for row in tuned.trials if row.state != "complete"]
    assert (bad.state, bad.values) == ("fail", ())
    assert "ValueError: call 3" in bad.cause


def test_what_it_is_measured_in(tmp_path: Path) -> None:
    seen, plain = load_reward(SEEN), load_reward("brightness")
    with Store(tmp_path / "store") as store:
        made = Diversity(RewardSpec(DIVERSITY), {"a": plain, "b": seen}, ["b"], store, CPU)
        assert made.extractor.reward is seen
        with pytest.raises(StudyError, match=r"none of the rewards brightness has any: name one that has"):
            Diversity(RewardSpec(DIVERSITY), {"brightness": plain}, [], store, CPU)
        with pytest.raises(RewardError, match="has no features"):
            Diversity(RewardSpec(DIVERSITY, args={"reward": "brightness"}), {}, [], store, CPU)
        tasks = [Task("x", seed) for seed in range(3)]
        keys = [store.key({"number": number}) for number in range(3)]
        for number, key in enumerate(keys):
            shade = Image.new("RGB", (8, 8), (80 * number, 0, 255 - 80 * number))
            store.put_images([(key, shade, {"number": number})])
        found = made(keys, tasks)
        features = seen.features([store.get_image(key) for key in keys]).double().numpy()  # type: ignore[attr-defined]
        assert found.mean() == pytest.approx(pairs(features), abs=1e-9)
        assert made(keys[:2], tasks[:2]).mean() == pytest.approx(pairs(features[:2]), abs=1e-9), "what it knows already"


def test_it_needs_two_seeds_of_every_prompt(make: Make) -> None:
    with pytest.raises(StudyError, match=r"'red apple' is drawn once: name each of prompts at least twice"):
        make(objectives=[DIVERSITY])
    held_out = {**TWICE, "held_out_prompts": ["key", "key", "moon"]}
    with pytest.raises(StudyError, match=r"'moon' is drawn once: name each of held_out_prompts at least twice"):
        make(study=held_out, constraints=[RewardSpec(DIVERSITY, at_least=0.1)])
    with pytest.raises(StudyError, match="no argument 'rewards'"):
        make(study=TWICE, objectives=[RewardSpec(DIVERSITY, args={"rewards": "clip"})])
    with pytest.raises(StudyError, match="measured in one way"):
        make(study=TWICE, objectives=[DIVERSITY, RewardSpec(DIVERSITY, -1.0)])
    with pytest.raises(StudyError, match="needs either at_least or at_most"):
        make(study=TWICE, constraints=[RewardSpec(DIVERSITY)])
