"""Rewards by name, file and module, as a user writes them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from pagopt.errors import RewardError, UnknownName
from pagopt.reward import Reward, available_rewards, describe_rewards, load_reward

RED, BLUE = Image.new("RGB", (4, 4), "red"), Image.new("RGB", (4, 4), "blue")
Write = Callable[[str], str]


def test_a_function_in_a_file(write: Write) -> None:
    path = write("def warm(images, prompts, by=2):\n    return [by * image.getpixel((0, 0))[0] for image in images]\n")
    assert load_reward(f"{path}:warm")([RED, BLUE], ["", ""]).tolist() == [510, 0]
    thrice = load_reward(f"{path}:warm", by=3)
    assert thrice([RED], [""]).tolist() == [765]
    assert thrice.name == f"{path}:warm"
    named = write("def f(images, prompts, name): return [len(name)] * len(images)", "named.py")
    assert load_reward(f"{named}:f", name="four")([RED], [""]).item() == 4
    assert thrice.describe()["arguments"] == {"by": 3}


def test_classes_in_a_file(write: Write) -> None:
    path = write("""
from dataclasses import dataclass
from pagopt.reward import Reward

@dataclass(frozen=True)
class Frozen(Reward):
    by: float = 2.0
    def score(self, images, prompts):
        return [self.by for _ in images]

class Callable:
    def __init__(self, by): self.by = by
    def __call__(self, images, prompts): return [self.by for _ in images]
    def move(self, device): self.by += 1

class Abstract(Reward): pass
class Nothing: pass
class Failing(Reward):
    def __init__(self): self.x = {}["key"]
    def score(self, images, prompts): return []

ready = Frozen(7.0)
number = 3
""")
    assert load_reward(f"{path}:Frozen", by=5)([RED], [""]).item() == 5
    assert load_reward(f"{path}:ready")([RED], [""]).item() == 7
    plain = load_reward(f"{path}:Callable", by=4)
    plain.move(torch.device("cpu"))
    assert plain([RED], [""]).item() == 5
    assert plain.describe()["arguments"] == {"by": 4}
    for name, args, says in [
        ("Callable", {}, r"missing a required argument: 'by'. It is Callable\(by\), and got nothing"),
        ("Frozen", {"bye": 1}, r"unexpected keyword argument 'bye'. It is Frozen\(by: .*2.0\).*bye=1"),
        ("Abstract", {}, "must define score"),
        ("Nothing", {}, "no __call__"),
        ("Failing", {}, "could not be made: KeyError: 'key'"),
        ("ready", {"by": 1}, "takes no arguments, got by=1"),
        ("number", {}, "is an object of type int"),
        (
            "Calable",
            {},
            r"mine.py: unknown function or class 'Calable'. Did you mean 'Callable'\? Known: Frozen, Callable",
        ),
    ]:
        with pytest.raises(RewardError, match=says) as caught:
            load_reward(f"{path}:{name}", **args)
        assert caught.value.reward == f"{path}:{name}"


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("import nowhere_to_be_found", "cannot be run: ModuleNotFoundError: No module named 'nowhere_to_be_found'"),
        ("def f(:", "cannot be run: SyntaxError"),
        ("raise SystemExit(3)", "cannot be run: SystemExit: 3"),
        ("def f(images): return []", r"too many positional arguments. It is f\(images\).*images and prompts first"),
        ("def f(images, prompts, by): return []", "missing a required argument: 'by'"),
    ],
)
def test_a_broken_file_says_what_is_wrong(write: Write, source: str, says: str) -> None:
    path = write(source)
    for _ in range(2):  # a module that failed does not linger
        with pytest.raises(RewardError, match=says) as caught:
            load_reward(f"{path}:f")
        assert caught.value.__cause__ is not None


def test_names_that_lead_nowhere(write: Write, tmp_path: Path) -> None:
    with pytest.raises(RewardError, match=r"cannot read .*missing.py: No such file"):
        load_reward(f"{tmp_path}/missing.py:f")
    with pytest.raises(RewardError, match=r"cannot read ~no_such_user/mine.py: No such file"):
        load_reward("~no_such_user/mine.py:f")
    with pytest.raises(RewardError, match=r"load_reward takes the name of a reward, not <class.*take objects"):
        load_reward(Reward)  # type: ignore[arg-type]
    with pytest.raises(RewardError, match=r"cannot read .*: Is a directory"):
        load_reward(f"{tmp_path}/:f")
    with pytest.raises(RewardError, match="is no Python file"):
        load_reward(f"{write('', 'mine.txt')}:f")
    with pytest.raises(RewardError, match=r'which reward of mine\.py\? Write "mine.py:function"'):
        load_reward("mine.py")
    with pytest.raises(RewardError, match="names no reward"):
        load_reward("mine.py:")
    with pytest.raises(RewardError, match=r"No module named 'not_there'.*Is it installed in .*path/to/file.py:name"):
        load_reward("not_there.module:f")
    with pytest.raises(RewardError, match=r"unknown function or class 'Brigthness'. Did you mean 'Brightness'"):
        load_reward("pagopt_rewards.brightness:Brigthness")


def test_compiled_functions_may_not_say_what_they_take() -> None:
    keys = {load_reward("builtins:max", **args).key() for args in ({}, {"default": 1}, {"default": 2})}
    assert len(keys) == 3


def test_two_files_of_one_name_and_a_changed_file(write: Write, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    first = write("def f(images, prompts): return [1] * len(images)")
    second = write("def f(images, prompts): return [2] * len(images)", "other/mine.py")
    rewards = [load_reward(f"{first}:f"), load_reward(f"{second}:f")]
    write("def f(images, prompts): return [3] * len(images)")
    rewards.append(load_reward(f"{first}:f"))
    assert [reward([RED], [""]).item() for reward in rewards] == [1, 2, 3]
    assert len({reward.key() for reward in rewards}) == 3


def test_an_installed_reward(package: Callable[..., None]) -> None:
    source = 'def warm(images, prompts, by=2):\n    """How warm.\n\n    More."""\n    return [by] * len(images)'
    package("warmth", source, warm="warmth:warm", broken="warmth:cold")
    assert load_reward("warm", by=3)([RED], [""]).item() == 3
    assert load_reward("warm").describe()["reward"] == "warm"
    with pytest.raises(UnknownName, match=r"unknown reward 'wram'. Did you mean 'warm'\?.*path/to/file.py:name"):
        load_reward("wram")
    with pytest.raises(RewardError, match=r"installed reward 'broken' of warmth .*cannot be imported: AttributeError"):
        load_reward("broken")
    infos = {info.name: info for info in describe_rewards()}
    assert dataclasses.astuple(infos["warm"]) == ("warm", "How warm.", {"by": "2"}, "", "warmth 1.2")
    assert "AttributeError" in infos["broken"].missing


def test_two_packages_with_one_name(package: Callable[..., None]) -> None:
    package("one_a", "def f(images, prompts): return [1]", warm="one_a:f")
    package("one_b", "def f(images, prompts): return [2]", warm="one_b:f")
    with pytest.raises(RewardError, match=r"two rewards are called 'warm': .*one_[ab]:f and one_[ab]:f"):
        available_rewards()
    assert load_reward("one_b:f")([RED], [""]).item() == 2


def test_shipped_rewards_are_installed() -> None:
    infos = {info.name: info for info in describe_rewards()}
    assert {"brightness", "clip", "colorfulness", "sharpness", "style"} <= infos.keys()
    shown = {"style": "None", "styles": "None", "model": "'emoji'"}
    assert infos["style"].arguments.items() >= shown.items()
    assert all(info.summary for info in infos.values())
    assert not infos["brightness"].missing
