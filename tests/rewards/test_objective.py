"""One reward or several: weights, scales and labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pagopt.atlas import Atlas
from pagopt.errors import RewardError
from pagopt.reward import Objective, RewardSpec, as_reward, rewards_by_label, specs_of
from pagopt.study import Study
from pagopt_rewards.brightness import Brightness

BRIGHT, SHARP = "pagopt_rewards.brightness:Brightness", "pagopt_rewards.sharpness:Sharpness"


@pytest.fixture
def mine(tmp_path: Path) -> str:
    (tmp_path / "mine.py").write_text("def warm(images, prompts, by=1, how='a'):\n    return [by] * len(images)\n")
    return f"{tmp_path / 'mine.py'}:warm"


def test_one_reward_counts_as_it_is() -> None:
    table = np.array([[1.0, 2.0], [3.0, 4.0]])
    assert np.array_equal(Objective([BRIGHT]).combine({"Brightness": table}), table)
    assert np.array_equal(Objective([RewardSpec(BRIGHT, -2.0)]).combine({"Brightness": table}), -2 * table)


def test_several_are_measured_against_the_unguided_images() -> None:
    objective = Objective([RewardSpec(BRIGHT, 2.0), RewardSpec(SHARP, -0.5)])
    scores = {"Brightness": [[0.5, 0.7], [0.1, 0.2]], "Sharpness": [[100.0, 300.0], [200.0, 200.0]]}
    baseline = {"Brightness": [0.2, 0.4], "Sharpness": [100.0, 200.0]}
    bright, sharp = 0.2 / np.sqrt(2), 100 / np.sqrt(2)
    expected = [
        [2 * 0.2 / bright - 0.5 * -50 / sharp, 2 * 0.4 / bright - 0.5 * 150 / sharp],
        [2 * -0.2 / bright - 0.5 * 50 / sharp, 2 * -0.1 / bright - 0.5 * 50 / sharp],
    ]
    np.testing.assert_allclose(objective.combine(scores, baseline), expected)
    assert objective.scales(baseline)["Sharpness"] == pytest.approx((150, sharp))


@given(
    st.lists(st.lists(st.floats(-1e3, 1e3), min_size=4, max_size=4), min_size=2, max_size=5),
    st.floats(0.1, 100),
    st.floats(-100, 100),
)
def test_the_unit_of_a_reward_does_not_matter(rows: list[list[float]], factor: float, offset: float) -> None:
    objective = Objective([Brightness(), SHARP])
    table, baseline = np.array(rows), np.array([1.0, 2.0, 4.0, 8.0])
    one = objective.combine(
        {"brightness": table, "Sharpness": table[::-1]}, {"brightness": baseline, "Sharpness": baseline}
    )
    other = objective.combine(
        {"brightness": table * factor + offset, "Sharpness": table[::-1]},
        {"brightness": baseline * factor + offset, "Sharpness": baseline},
    )
    np.testing.assert_allclose(one, other, atol=1e-6, rtol=1e-6)


def test_labels_are_short_and_distinct(mine: str) -> None:
    assert Objective([mine, BRIGHT]).labels == ("warm", "Brightness")
    assert Objective([RewardSpec(mine, 1, {"by": 2}), RewardSpec(mine)]).labels == (f"{mine}(by=2)", mine)
    assert Objective([RewardSpec(mine, 1, {"by": 2, "how": "b"}), mine]).labels[0] == f'{mine}(by=2, how="b")'
    assert Objective([BRIGHT, BRIGHT]).labels == (BRIGHT, f"{BRIGHT}#2")
    assert Objective([Brightness()]).labels == ("brightness",)
    both = Objective([RewardSpec(mine, 2, {"by": 2}), mine])
    assert [reward.describe()["arguments"]["by"] for reward in both.rewards.values()] == [2, 1]
    assert both.describe()[0] == {"label": f"{mine}(by=2)", "name": mine, "weight": 2.0, "args": {"by": 2}}
    assert list(both.weights.values()) == [2.0, 1.0]


@pytest.mark.parametrize("weight", [0, 0.0, float("nan"), float("inf")])
def test_weights_are_checked(weight: float) -> None:
    with pytest.raises(RewardError, match=r"weight of reward 'clip' is .* other than 0"):
        RewardSpec("clip", weight)


@pytest.mark.parametrize("args", [{1: 2}, ["by", 2], None])
def test_args_are_names_with_values(args: object) -> None:
    with pytest.raises(RewardError, match=r"the args of reward 'clip' are .*, not names with values"):
        RewardSpec("clip", 1.0, args)  # type: ignore[arg-type]


def test_an_objective_needs_a_reward() -> None:
    for terms in ([], "clip", {"name": "clip"}):
        with pytest.raises(RewardError, match="a list of at least one reward"):
            Objective(terms)
    with pytest.raises(RewardError, match="needs a name"):
        RewardSpec("")


def redness(images: Sequence[Image.Image], prompts: Sequence[str]) -> list[float]:
    return [float(np.asarray(image)[..., 0].mean()) for image in images]


class Greenness:
    def __call__(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> list[float]:
        return [float(np.asarray(image)[..., 1].mean()) for image in images]


def test_what_is_already_made_needs_no_file() -> None:
    red = [Image.new("RGB", (4, 4), (9, 4, 0))]
    objective = Objective([redness, Greenness(), Brightness(), BRIGHT, RewardSpec(SHARP, 2.0)])
    assert objective.labels == ("redness", "Greenness", "brightness", "Brightness", "Sharpness")
    assert [reward(red, [""]).item() for reward in objective.rewards.values()][:2] == [9.0, 4.0]
    for single in (redness, Greenness(), Brightness(), RewardSpec(BRIGHT)):
        assert len(Objective(single).rewards) == 1
    reward = Brightness()
    assert as_reward(reward) is reward is Objective(reward).rewards["brightness"]
    assert rewards_by_label(objective) is objective.rewards
    assert rewards_by_label({"mine": redness})["mine"](red, [""]).item() == 9.0


def test_a_closure_is_known_by_what_it_carries() -> None:
    def by(factor: float) -> Callable[..., list[float]]:
        return lambda images, prompts: [factor for _ in images]

    first, second, again = (as_reward(by(factor)).key() for factor in (1.0, 2.0, 1.0))
    assert first == again != second


@pytest.mark.parametrize(
    ("thing", "says"),
    [
        (Greenness, r"'Greenness' is a class; a reward is an object of it: Greenness\(\.\.\.\)"),
        (Brightness, r"'Brightness' is a class"),
        (lambda images: [0.0], r"too many positional arguments.*takes images and prompts first"),
        (3, "'int' is an object of type int; a reward is a function, a class or a Reward"),
    ],
)
def test_what_is_no_reward_says_why(thing: object, says: str) -> None:
    with pytest.raises(RewardError, match=says):
        Objective([thing])
    with pytest.raises(RewardError, match=says):
        rewards_by_label({"x": thing})


def test_names_and_lists_are_no_rewards_by_label() -> None:
    with pytest.raises(RewardError, match=r"'clip' is a name; load_reward\('clip'\) makes the reward"):
        rewards_by_label({"x": "clip"})
    with pytest.raises(RewardError, match="rewards is a list: give an Objective, or rewards by label"):
        rewards_by_label([Brightness()])  # type: ignore[arg-type]


def test_plain_data_takes_no_objects() -> None:
    assert specs_of("clip") == specs_of(["clip"]) == specs_of(RewardSpec("clip")) == [RewardSpec("clip")]
    says = r'a (brightness|Brightness|redness) object is no name of a reward.*"path/to/file\.py:name"'
    makers: list[Callable[[], object]] = [
        lambda: Study(prompts=["a", "b"], reward=Brightness()),  # type: ignore[arg-type]
        lambda: Study(prompts=["a", "b"], reward=[Brightness(), "colorfulness"]),  # type: ignore[list-item]
        lambda: Study(prompts=["a", "b"], reward="clip", watch=[redness]),  # type: ignore[list-item]
        lambda: Atlas(rewards=[Brightness()]),  # type: ignore[list-item]
    ]
    for make in makers:
        with pytest.raises(RewardError, match=says):
            make()


def test_what_cannot_be_combined_says_why() -> None:
    objective = Objective([BRIGHT, SHARP])
    good = {"Brightness": np.ones((2, 3)), "Sharpness": np.ones((2, 3))}
    base = {"Brightness": np.arange(3.0), "Sharpness": np.arange(3.0)}
    for scores, baseline, says in [
        ({"Brightness": good["Brightness"]}, base, "no scores of reward 'Sharpness' for the images"),
        (good, None, "no scores of reward 'Brightness' for the unguided images"),
        ({**good, "Sharpness": np.ones((3, 3))}, base, r"differ in shape: \[\(2, 3\), \(3, 3\)\]"),
        ({**good, "Sharpness": np.ones(3)}, base, r"shape \(3,\), not 2 axes"),
        ({**good, "Sharpness": [[1], [1, 2]]}, base, "'Sharpness' for the images are no table of numbers"),
        ({**good, "Sharpness": np.full((2, 3), np.nan)}, base, "'Sharpness' for the images are not all finite"),
        (good, {**base, "Sharpness": np.full(3, 0.1)}, "all 3 unguided images the score 0.1, so it has no scale"),
        (good, {**base, "Sharpness": np.float32([0.1, 0.1, np.nextafter(np.float32(0.1), 1)])}, "has no scale"),
        (good, {**base, "Brightness": [1.0]}, "Use at least 2 prompts or seeds"),
    ]:
        with pytest.raises(RewardError, match=says):
            objective.combine(scores, baseline)
