"""A reward's key changes when its scores may, and not otherwise."""

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

from pagopt.errors import RewardError
from pagopt.reward import FunctionReward, Reward, load_reward


def redness(images: Sequence[Image.Image], prompts: Sequence[str]) -> list[float]:
    return [image.getpixel((0, 0))[0] / 255 for image in images]


def scaled(by: float, images: Sequence[Image.Image], prompts: Sequence[str]) -> list[float]:
    return [by * one for one in redness(images, prompts)]


@dataclasses.dataclass
class Scaled(Reward):
    """Redness, scaled.

    More words.
    """

    by: float
    names: Sequence[str] = ("a",)

    def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> torch.Tensor:
        return self.by * torch.tensor(redness(images, prompts))


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

    class Slots(Object):
        __slots__ = ("by",)

    def default(by: int) -> Callable[..., Any]:
        def reward(images: Sequence[Image.Image], prompts: Sequence[str], by: int = by) -> list[int]:
            return [by for _ in images]

        return reward

    def keyword(by: int) -> Callable[..., Any]:
        return lambda images, prompts, *, by=by: [by for _ in images]

    def recursive(by: int) -> Callable[..., Any]:
        def power(n: int) -> int:
            return by * power(n - 1) if n else 1

        return lambda images, prompts: [power(3) for _ in images]

    ways: list[Callable[[int], Any]] = [
        make,
        Object,
        lambda by: Object(by).method,
        lambda by: functools.partial(redness, by=by),
        lambda by: functools.partial(make(by), b=1),
        Slots,
        default,
        keyword,
        recursive,
        lambda by: torch.no_grad()(make(by)),
    ]
    for way in ways:
        keys = [FunctionReward(way(by), "mine").key() for by in (1, 1, 2)]
        assert keys[0] == keys[1] != keys[2]
    with pytest.raises(RewardError, match="carries is a object, so its scores cannot be told"):
        FunctionReward(make(object())).key()
    assert FunctionReward(make(object()), arguments={"by": "this"}).key()


def test_files_that_arguments_name_are_in_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether given or a default, alone or in a list; of a folder the files in it."""
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(
        "def gain(images, prompts, table='t.json', more=()): return [len(table)] * len(images)\n"
        "class Gain:\n"
        "    def __init__(self, table): self.table = table\n"
        "    def __call__(self, images, prompts): return [len(self.table)] * len(images)\n"
    )
    Path("folder").mkdir()

    def keys() -> list[str]:
        given = [{}, {"table": "t.json"}, {"table": "none.json", "more": [["t.json"]]}, {"table": "folder"}]
        loaded = [load_reward("mine.py:gain", **args) for args in given]
        loaded += [load_reward("mine.py:Gain", table="t.json"), FunctionReward(functools.partial(redness, by="t.json"))]
        return [reward.key() for reward in (*loaded, load_reward("mine.py:gain", table="none.json"))]

    seen = [keys()]
    for text in ("1", "2"):
        for folder in (".", "folder"):
            Path(folder, "t.json").write_text(text)
        seen.append(keys())
        assert keys() == seen[-1]
    *changing, fixed = zip(*seen, strict=True)
    assert [len(set(one)) for one in changing] == [3] * 6
    assert len(set(fixed)) == 1


def test_the_file_that_was_named_is_in_the_key(tmp_path: Path) -> None:
    """Also where what scores comes from elsewhere."""
    path, keys = tmp_path / "mine.py", []
    for by in (1, 1, 2):
        path.write_text(f"import functools, {__name__} as other\nmine = functools.partial(other.scaled, {by})\n")
        keys.append(load_reward(f"{path}:mine").key())
    assert keys[0] == keys[1] != keys[2]


def test_a_file_in_the_home_folder_is_in_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    keys = []
    for text in ("1", "2"):
        (tmp_path / "t.json").write_text(text)
        keys.append(FunctionReward(redness, arguments={"table": "~/t.json", "user": "~no_such_user"}).key())
    assert keys[0] != keys[1]


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
