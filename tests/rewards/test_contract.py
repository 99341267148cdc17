"""Every shipped reward keeps the contract that authors of rewards test theirs with."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from published import save_hps, save_improved
from tiny_imagereward import save_tiny_imagereward

from pagopt.reward import Reward, load_reward
from pagopt.testing import RewardContract, example_pictures
from pagopt_rewards.towers import absent

STYLES = ("flat, red apple", "ink, cat", "a glossy rocket", "flat, cat", "ink, red apple", "flat, cat")


@dataclass(frozen=True)
class Line:
    """How a shipped reward is tested.

    Attributes:
        arguments: With tiny weights; "$clip" stands for a path of the fixture ``paths``.
        others: Further arguments, each of which must give another key.
        counts: The method that encodes texts, whose calls are counted.
        prompts: That make sense to it.
        tolerance: Of scores that should be equal.
    """

    arguments: Mapping[str, Any] = field(default_factory=dict)
    others: tuple[Mapping[str, Any], ...] = ()
    counts: str = ""
    prompts: tuple[str, ...] = RewardContract.prompts
    tolerance: float = 1e-5


# A new reward is one line here.
SHIPPED = {
    "aesthetic": Line({"model": "$clip", "weights": "$improved"}, ({"weights": "$improved2"},)),
    "brightness": Line(),
    "classifier": Line({"model": "$clip", "style": "flat"}, ({"style": "ink"}, {"model": "$clip2"})),
    "clip": Line({"model": "$clip"}, ({"model": "$clip2"},), "encoder.network.read"),
    "colorfulness": Line(),
    "contrast": Line({"model": "$clip"}, ({"pairs": [["Flat.", "Glossy."]]}, {"model": "$clip2"})),
    "hps": Line({"weights": "$hps"}, ({"version": "2.0", "weights": "$hps2"},), "encoder.network.read"),
    "imagereward": Line({"weights": "$imagereward"}, ({"weights": "$imagereward2"},), "tokenize"),
    "judge": Line(counts="towers.texts"),
    "pickscore": Line({"weights": "$clip"}, ({"weights": "$clip2"},), "encoder.network.read"),
    "reference": Line(
        {"examples": "$pictures", "model": "$clip"},
        ({"examples": "$pictures2"}, {"model": "$clip2"}, {"projected": True}, {"against": "$pictures2"}),
        tolerance=1e-4,  # cosines, right to 1e-7, in units of the examples' spread, 0.003 with this tiny model
    ),
    "sharpness": Line(),
    "style": Line({"model": "$clip"}, ({"style": "flat"}, {"style": "ink"}, {"model": "$clip2"}), prompts=STYLES),
}
ELSEWHERE = {"hpsv2", "hpsv3", "image-reward"}  # need an environment of their own: tests/isolated
CHECKS = sorted(name for name in dir(RewardContract) if name.startswith("test_"))


class Shipped(RewardContract):
    """Loads by the installed name, puts paths in, and counts what is encoded."""

    line: Line
    paths: Mapping[str, str]

    def make(self, **changes: Any) -> Reward:
        arguments = {**self.line.arguments, **changes}
        reward = load_reward(self.reward, **{name: self.paths.get(str(v), v) for name, v in arguments.items()})
        if self.line.counts:
            *outer, name = self.line.counts.split(".")
            owner = functools.reduce(getattr, outer, reward)
            encode, total = getattr(owner, name), [0]

            def counted(texts: str | list[str]) -> Any:
                total[0] += 1 if isinstance(texts, str) else len(texts)
                return encode(texts)

            setattr(owner, name, counted)
            reward.encodings = total  # type: ignore[attr-defined]
        return reward

    def encoded(self, reward: Reward) -> int | None:
        return reward.encodings[0] if self.line.counts else None  # type: ignore[attr-defined,no-any-return]


@pytest.fixture(scope="session")
def paths(tiny_clip: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Tiny random checkpoints in the published formats, and folders of pictures."""
    from tiny_clip import save_tiny_clip

    folder = tmp_path_factory.mktemp("shipped")
    for name, seed in (("pictures", 0), ("pictures2", 1)):
        (folder / name).mkdir()
        for at, picture in enumerate(example_pictures(5, [(40, 40), (60, 30)], seed)):
            picture.save(folder / name / f"{at}.png")
    for name in ("improved", "improved2", "hps", "hps2", "imagereward", "imagereward2"):
        (folder / name).mkdir()
    save_improved(folder / "improved", 16)
    save_improved(folder / "improved2", 16, seed=1)
    save_hps(folder / "hps")
    save_hps(folder / "hps2", "2.0", seed=1)
    save_tiny_imagereward(folder / "imagereward")
    save_tiny_imagereward(folder / "imagereward2", seed=1)
    save_tiny_clip(folder / "clip2", seed=1)
    return {"$clip": tiny_clip, **{f"${path.name}": str(path) for path in folder.iterdir()}}


@pytest.fixture(scope="session")
def contracts(paths: dict[str, str]) -> dict[str, RewardContract]:
    """One object for each reward, so that each is made once for all checks that need no new one."""
    found = {}
    for name, line in SHIPPED.items():
        settings = {"reward": name, "line": line, "other_arguments": line.others, "prompts": line.prompts}
        settings["tolerance"] = line.tolerance
        found[name] = type(f"Test{name}", (Shipped,), {**settings, "paths": paths})()
    return found


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("name", SHIPPED)
def test_the_contract(name: str, check: str, contracts: dict[str, RewardContract]) -> None:
    if name == "judge" and absent():
        pytest.skip(absent())
    getattr(contracts[name], check)()


def test_every_shipped_reward_has_a_line() -> None:
    points = entry_points(group="pagopt.rewards")
    assert {p.name for p in points if p.value.startswith("pagopt_rewards.")} == {*SHIPPED, *ELSEWHERE}


@pytest.mark.parametrize("name", SHIPPED)
def test_what_describe_says_makes_the_same_reward_again(name: str, contracts: dict[str, Any]) -> None:
    if name == "judge" and absent():
        pytest.skip(absent())
    reward = contracts[name].kept()
    again = load_reward(name, **reward.describe()["arguments"])
    assert again.key() == reward.key()
    assert reward.key().startswith(name)


@pytest.mark.parametrize("name", SHIPPED)
def test_the_same_weights_in_another_place_have_the_same_identity(
    name: str, contracts: dict[str, Any], tmp_path: Path
) -> None:
    """A moved checkpoint is no other checkpoint: what identity() says must not hold its path."""
    if not any(str(value).startswith("$") for value in SHIPPED[name].arguments.values()):
        pytest.skip("without files")
    identity = str(contracts[name].kept().identity())
    assert all(path not in identity for path in contracts[name].paths.values())


def test_seven_different_pictures_get_seven_different_scores(contracts: dict[str, Any]) -> None:
    noise = np.random.default_rng(0)
    images = [Image.fromarray(noise.integers(0, 256, (40, 40, 3), dtype=np.uint8)) for _ in range(7)]
    for name, contract in contracts.items():
        if name == "judge" and absent():
            continue
        scores = contract.kept()(images, [contract.prompts[0]] * 7)
        assert scores.unique().numel() == 7, name
