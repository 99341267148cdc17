"""The protocol, loading and objectives, on rewards as a user writes them."""

from __future__ import annotations

import dataclasses
import functools
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pagopt.errors import RewardError, UnknownName
from pagopt.reward import FunctionReward, Reward, available_rewards, describe_rewards, load_reward

RED, BLUE = Image.new("RGB", (4, 4), "red"), Image.new("RGB", (4, 4), "blue")
Write = Callable[[str], str]


def redness(images: Sequence[Image.Image], prompts: Sequence[str]) -> list[float]:
    return [image.getpixel((0, 0))[0] / 255 for image in images]


@dataclasses.dataclass
class Scaled(Reward):
    """Redness, scaled.

    More words.
    """

    by: float
    names: Sequence[str] = ("a",)

    def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> torch.Tensor:
        return self.by * torch.tensor(redness(images, prompts))


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a reward file, return its path."""

    def file(source: str, name: str = "mine.py") -> str:
        (tmp_path / name).write_text(source)
        return str(tmp_path / name)

    return file


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Install a distribution with entry points, as pip would."""

    def install(name: str, source: str, **points: str) -> None:
        site = tmp_path / f"site-{name}"
        info = site / f"{name}-1.2.dist-info"
        info.mkdir(parents=True)
        (site / f"{name}.py").write_text(source)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
        lines = [f"{key} = {value}" for key, value in points.items()]
        (info / "entry_points.txt").write_text("\n".join(["[pagopt.rewards]", *lines, ""]))
        monkeypatch.syspath_prepend(str(site))

    return install


# --- what goes in and what comes out


@pytest.mark.parametrize(
    "returned",
    [
        [1, 0.5],
        (True, 0.5),
        np.array([1, 0.5], dtype=np.float16),
        torch.tensor([1, 0.5], dtype=torch.bfloat16),
        torch.tensor([1, 0.5], requires_grad=True) * 1,
        [torch.tensor(1), np.float64(0.5)],
        [torch.tensor(1.0, requires_grad=True), 0.5],
    ],
    ids=lambda value: f"{type(value).__name__} {getattr(value, 'dtype', '')}",
)
def test_any_sequence_of_numbers_becomes_float32(returned: Any) -> None:
    scores = FunctionReward(lambda images, prompts: returned)([RED, BLUE], ["a", "b"])
    assert scores.dtype == torch.float32
    assert not scores.requires_grad
    assert scores.tolist() == [1, 0.5]


@pytest.mark.parametrize(
    ("returned", "says"),
    [
        ([1.0], "returned 1 scores for 2 images"),
        ([], "returned 0 scores for 2 images"),
        (torch.zeros(2, 1), r"returned shape \(2, 1\) for 2 images"),
        (torch.tensor(1.0), r"returned shape \(\) for 2 images"),
        (None, "returned None. It must return 2"),
        (0.5, "returned 0.5"),
        ("ab", "returned 'ab'"),
        ({0: 1.0, 1: 2.0}, "returned {0"),
        (["1", "2"], r"returned \['1', '2'\]"),
        ([1.0, None], r"returned \[1.0, None\]"),
        ([[1.0], [1.0, 2.0]], "returned"),
        ([1j, 2j], "returned"),
        (torch.zeros(2, dtype=torch.complex64), "returned"),
        ([torch.zeros(2), torch.zeros(2)], "returned"),
    ],
    ids=repr,
)
def test_no_score_is_refused(returned: Any, says: str) -> None:
    with pytest.raises(RewardError, match=says) as caught:
        FunctionReward(lambda images, prompts: returned, "mine")([RED, BLUE], ["a", "b"])
    assert "'mine'" in str(caught.value)
    assert caught.value.reward == "mine"


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), 1e300])
def test_a_score_that_is_not_finite_is_named(bad: float) -> None:
    with pytest.raises(RewardError, match=r"'mine' returned (nan|-?inf) for image 2 of 2, prompt 'b'") as caught:
        FunctionReward(lambda images, prompts: [1.0, bad], "mine")([RED, BLUE], ["a", "b"])
    assert (caught.value.reward, caught.value.index, caught.value.prompt) == ("mine", 1, "b")


def test_an_exception_is_attached_and_the_image_found() -> None:
    def fails_on_blue(images: Sequence[Image.Image], prompts: Sequence[str]) -> list[float]:
        return [1 / image.getpixel((0, 0))[0] for image in images]

    with pytest.raises(
        RewardError, match=r"'fails_on_blue' failed on image 3 of 3, prompt 'c': ZeroDiv.*line"
    ) as caught:
        FunctionReward(fails_on_blue)([RED, RED, BLUE], ["a", "b", "c"])
    assert (caught.value.index, caught.value.prompt) == (2, "c")
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_an_exception_of_the_batch_alone_blames_no_image() -> None:
    def only_one(images: Sequence[Image.Image], prompts: Sequence[str]) -> list[float]:
        (_image,) = images
        return [0.0]

    with pytest.raises(RewardError, match="a batch of 2 images, though on none of them alone") as caught:
        FunctionReward(only_one)([RED, BLUE], ["a", "b"])
    assert caught.value.index is None


def test_interrupting_is_no_failure() -> None:
    def stop(images: Sequence[Image.Image], prompts: Sequence[str]) -> list[float]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        FunctionReward(stop)([RED], ["a"])


def test_a_reward_sees_lists_of_rgb() -> None:
    seen: list[Any] = []

    def look(images: Sequence[Image.Image], prompts: Sequence[str]) -> list[int]:
        seen.extend([images, prompts, torch.is_grad_enabled()])
        return [0] * len(images)

    clear = Image.new("RGBA", (2, 2), (255, 0, 0, 0))
    palette = Image.new("P", (2, 2), 0)
    palette.info["transparency"] = 0
    images = [clear, Image.new("L", (2, 2), 7), Image.new("LA", (2, 2), (9, 255)), palette, RED]
    FunctionReward(look)(tuple(images), ("a",) * 5)
    assert [image.mode for image in seen[0]] == ["RGB"] * 5
    assert [image.getpixel((0, 0)) for image in seen[0]] == [(255,) * 3, (7,) * 3, (9,) * 3, (255,) * 3, (255, 0, 0)]
    assert seen[0][4] is RED
    assert seen[1:] == [["a"] * 5, False]


def test_what_is_no_batch_is_refused() -> None:
    reward = FunctionReward(redness)
    with pytest.raises(ValueError, match="2 images, 1 prompts"):
        reward([RED, BLUE], ["a"])
    with pytest.raises(ValueError, match="0 images"):
        reward([], [])
    with pytest.raises(TypeError, match="a list of images and a list of prompts"):
        reward([RED], "a")
    with pytest.raises(TypeError, match="image 0 is a ndarray"):
        reward([np.zeros((4, 4, 3))], ["a"])  # type: ignore[list-item]
    with pytest.raises(TypeError, match="prompt 0 is a int"):
        reward([RED], [1])  # type: ignore[list-item]
    with pytest.raises(RewardError, match="image 2 has mode 'I;16'") as caught:
        reward([RED, Image.new("I;16", (4, 4))], ["a", "b"])
    assert caught.value.index == 1


# --- loading


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
        ("number", {}, "is a int"),
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
    assert infos["style"].arguments == {"style": "None", "styles": "None", "model": "'emoji'"}
    assert all(info.summary for info in infos.values())
    assert not infos["brightness"].missing


# --- keys


def test_arguments_are_known_however_a_reward_is_made() -> None:
    made = [Scaled(2, names=["a"]), Scaled(by=2), Scaled(2, ("a",)), load_reward(f"{__name__}:Scaled", by=2)]
    assert [reward.describe()["arguments"] for reward in made] == [{"by": 2, "names": ["a"]}] * 4
    assert len({reward.key() for reward in made[:3]}) == 1
    assert Scaled(3).key() != Scaled(2).key()
    assert pickle.loads(pickle.dumps(made[0])).key() == made[0].key()
    with pytest.raises(TypeError, match="by"):
        Scaled()  # type: ignore[call-arg]


def test_a_version_changes_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    before = Scaled(2).key()
    monkeypatch.setattr(Scaled, "version", "2")
    assert Scaled(2).key() != before


def test_what_a_function_carries_is_in_its_key() -> None:
    def make(by: Any) -> Callable[..., list[float]]:
        return lambda images, prompts: [by for _ in images]

    class Object:
        def __init__(self, by: int) -> None:
            self.by = by

        def __call__(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> list[int]:
            return [self.by for _ in images]

        def method(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> list[int]:
            return self(images, prompts)

    ways: list[Callable[[int], Any]] = [
        make,
        Object,
        lambda by: Object(by).method,
        lambda by: functools.partial(redness, by=by),
        lambda by: functools.partial(make(by), b=1),
    ]
    for way in ways:
        keys = [FunctionReward(way(by), "mine").key() for by in (1, 1, 2)]
        assert keys[0] == keys[1] != keys[2]
    with pytest.raises(RewardError, match="carries is a object, so its scores cannot be told"):
        FunctionReward(make(object())).key()
    assert FunctionReward(make(object()), arguments={"by": "this"}).key()


def test_code_typed_in_has_a_key() -> None:
    keys = []
    for number in (1, 1, 2):
        space: dict[str, Any] = {"__name__": "nowhere"}
        exec(f"def f(images, prompts): return [{number}]", space)
        keys.append(FunctionReward(space["f"]).key())
    assert keys[0] == keys[1] != keys[2]


def test_plain_arguments_of_other_kinds_are_written_out() -> None:
    names = [np.int64(3), Path("a/b"), torch.device("cpu"), torch.float32, {"x": (None, 1.5)}]
    expected = [3, str(Path("a/b")), "cpu", "torch.float32", {"x": [None, 1.5]}]
    assert Scaled(1, names).describe()["arguments"]["names"] == expected  # type: ignore[arg-type]
    with pytest.raises(RewardError, match="scaled: 'by' is a Tensor"):
        Scaled(torch.zeros(1)).key()  # type: ignore[arg-type]
