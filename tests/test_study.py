"""Studies: what they mean, and what they refuse."""

from __future__ import annotations

import shlex
from typing import Any

import numpy as np
import pytest
import yaml

from pagopt.cli.search import parse, parser, requested
from pagopt.errors import PagoptError, StudyError, UnknownName
from pagopt.recipe import Recipe
from pagopt.render import Task
from pagopt.reward import RewardSpec
from pagopt.study import Study, available_studies, find_study

SHIPPED = [
    "flat",
    "flux_golden_hour",
    "glossy",
    "ink",
    "sd35_large_golden_hour",
    "sd35_medium_golden_hour",
    "sd3_golden_hour",
    "sd3_quality",
    "sd3_style_clip",
    "sd3_style_harmonic",
    "unconditional",
    "vivid",
]


def study(**changes: Any) -> Study:
    return Study(**{"prompts": ["red apple", "house"], "reward": "colorfulness", **changes})


def test_tasks_put_the_style_first_and_count_the_seeds() -> None:
    made = study(style="flat", held_out_prompts=["cat"])
    assert made.tasks() == [Task("flat, red apple", 0), Task("flat, house", 1)]
    assert made.held_out_tasks() == [Task("flat, cat", 1000)]
    assert study(seeds=[7, 7]).tasks() == [Task("red apple", 7), Task("house", 7)]


def test_the_recipe_has_everything_but_the_heads() -> None:
    made = study(strength=0.5, scale=2.0, cfg=1.5, interval=(0.1, 0.9))
    assert made.recipe() == Recipe((), strength=0.5, scale=2.0, cfg=1.5, interval=(0.1, 0.9))


def test_seeds_become_plain_data() -> None:
    made = study(seeds=np.arange(2), held_out_seeds=None)
    assert made.to_dict()["seeds"] == [0, 1]
    assert yaml.safe_dump(made.to_dict())


def test_one_name_is_one_reward() -> None:
    assert study().specs == [RewardSpec("colorfulness")]
    assert study(reward=[RewardSpec("clip", 2.0)]).specs == [RewardSpec("clip", 2.0)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompts": []}, "prompts is empty"),
        ({"prompts": ["red apple", " "]}, "' ' is no prompt"),
        ({"reward": []}, "reward is empty"),
        ({"seeds": [1]}, "one seed for each of the 2 prompts, not 1"),
        ({"seeds": [1, -1]}, "each of seeds must not be negative"),
        ({"seeds": [1, 2.0]}, "each of seeds must be a whole number"),
        ({"strength": 1.5}, "strength must be a number between 0 and 1"),
        ({"scale": -1.0}, "scale must be a number at least 0"),
        ({"interval": (0.5, 0.5)}, "is empty"),
        ({"interval": (0.51, 0.55), "steps": 4}, "holds none of the 4 sampling steps"),
        ({"cfg_scales": [1.0]}, "cfg_scales must be above 1"),
        ({"held_out_prompts": ["red apple"], "held_out_seeds": [0]}, "held-out tasks must be new"),
    ],
)
def test_refuses(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(PagoptError, match=message):
        study(**changes)


def test_the_shipped_studies_are_found_and_documented() -> None:
    assert list(available_studies()) == SHIPPED
    for name, path in available_studies().items():
        text = path.read_text(encoding="utf-8")
        assert f"pagopt search {name}" in text.partition("\nmodel" if name.startswith("sd3") else "\nstyle")[0]


@pytest.mark.parametrize("name", SHIPPED)
def test_the_shipped_studies_are_valid(name: str) -> None:
    data = yaml.safe_load(find_study(name).read_text(encoding="utf-8"))
    if isinstance(data["reward"], list):
        data["reward"] = [RewardSpec(**spec) for spec in data["reward"]]
    data["watch"] = [RewardSpec(**spec) for spec in data.get("watch", [])]
    made = Study(**data)
    assert len(made.held_out_tasks()) >= 12
    seen, held_out = ({task.prompt for task in tasks} for tasks in (made.tasks(), made.held_out_tasks()))
    assert (seen & held_out) == ({""} if name == "unconditional" else set())


def test_the_paper_protocols_have_the_papers_numbers() -> None:
    """paper.md's table: M, R, k, w, u, steps and the number of images of the search."""
    quality = yaml.safe_load(find_study("sd3_quality").read_text(encoding="utf-8"))
    assert len(quality["prompts"]) == len(quality["seeds"]) == 20
    assert (quality["rounds"], quality["heads_per_round"], quality["strength"], quality["scale"]) == (1, 24, 0.25, 3.0)
    assert len(quality["prompts"]) * 576 == 11_520
    style = yaml.safe_load(find_study("sd3_golden_hour").read_text(encoding="utf-8"))
    assert (style["rounds"], style["heads_per_round"], style["strength"], style["scale"]) == (5, 3, 1.0, 3.0)
    assert len(style["prompts"]) * sum(576 - 3 * r for r in range(5)) == 14_250
    assert quality["steps"] == style["steps"] == 20
    flux = yaml.safe_load(find_study("flux_golden_hour").read_text(encoding="utf-8"))
    assert (flux["rounds"], flux["heads_per_round"], flux["scale"], flux["steps"]) == (5, 3, 8.0, 15)
    assert flux["prompts"] == style["prompts"]
    assert (flux["height"], flux["width"]) == (512, 512)
    assert len(flux["prompts"]) * sum(57 * 24 - 3 * r for r in range(5)) == 34_050


def test_an_empty_prompt_draws_without_one() -> None:
    made = study(prompts=["", ""], held_out_prompts=[""])
    assert [task.prompt for task in made.tasks()] == ["", ""]


def test_an_unknown_study_names_the_nearest() -> None:
    with pytest.raises(UnknownName, match=r"Did you mean 'glossy'\? Known: flat, flux_golden_hour, glossy"):
        find_study("glosy")
    with pytest.raises(StudyError, match=r"no study file mine\.yaml"):
        find_study("mine.yaml")


@pytest.mark.parametrize(
    ("words", "same"),
    [
        ("--reward [clip,sharpness] --watch brightness", "[{name: clip}, {name: sharpness}]"),
        ("--reward '[{name: clip}, sharpness]' --watch '[brightness]'", "[{name: clip}, {name: sharpness}]"),
        ("--reward '[{name: clip}, {name: sharpness}]' --watch '[{name: brightness}]'", "[clip, sharpness]"),
    ],
)
def test_rewards_are_names_or_mappings(words: str, same: str) -> None:
    def read(text: str) -> Study:
        return requested(*parse(["flat", *shlex.split(text)], parser(), find_study)).study

    study = read(words)
    assert [spec.name for spec in study.specs] == ["clip", "sharpness"]
    assert study.watched == [RewardSpec("brightness")]
    assert study.to_dict() == read(f"--reward '{same}' --watch '[{{name: brightness}}]'").to_dict()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("[{nam: clip}]", "unknown key of a reward: 'nam'. Did you mean 'name'"),
        ("{nam: clip}", "unknown key of a reward: 'nam'"),
        ("[{name: clip, wight: 2}]", "unknown key of a reward: 'wight'. Did you mean 'weight'"),
        ("[{name: clip, weight: two}]", "weight of reward 'clip' is 'two'"),
        ("{args: {model: emoji}}", "a reward needs a name"),
        ("{name: clip", "is no reward's name, and no list of rewards: each is"),
        ("[3]", "a int object is no name of a reward"),
    ],
)
@pytest.mark.parametrize("option", ["reward", "watch"])
def test_what_is_neither_is_said(option: str, words: str, said: str) -> None:
    with pytest.raises(PagoptError, match=said):
        Study(**{"prompts": ["cat"], "reward": "clip", option: words})
