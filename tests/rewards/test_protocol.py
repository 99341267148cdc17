"""What goes into a reward, what comes out, and what is refused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pagopt.errors import RewardError
from pagopt.reward import FunctionReward

RED, BLUE = Image.new("RGB", (4, 4), "red"), Image.new("RGB", (4, 4), "blue")


def redness(images: Sequence[Image.Image], prompts: Sequence[str]) -> list[float]:
    return [image.getpixel((0, 0))[0] / 255 for image in images]


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
        (torch.zeros(2, device="meta"), "returned"),
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


APPLE = RuntimeError("MPS backend out of memory (MPS allocated: 17.94 GB, other allocations: 144.00 MB)")


@pytest.mark.parametrize("full", [torch.OutOfMemoryError("CUDA out of memory."), APPLE])
@pytest.mark.parametrize("room", [1, 2, 3, 5])
def test_a_batch_that_does_not_fit_is_scored_in_parts(room: int, full: RuntimeError) -> None:
    """What a GPU raises whose memory is full."""
    sizes: list[int] = []

    def brightness(images: Sequence[Image.Image], prompts: Sequence[str]) -> list[float]:
        sizes.append(len(images))
        if len(images) > room:
            raise full
        if "bad" in prompts:
            raise ValueError("bad")
        return [float(image.getpixel((0, 0))[0]) for image in images]

    reward = FunctionReward(brightness, "brightness")
    images = [Image.new("RGB", (2, 2), (shade, 0, 0)) for shade in range(7)]
    assert reward(images, list("abcdefg")).tolist() == [float(shade) for shade in range(7)]
    assert sum(size for size in sizes if size <= room) == 7
    prompts = ["a", "b", "c", "d", "e", "bad", "g"]
    with pytest.raises(RewardError, match="prompt 'bad': ValueError: bad") as caught:
        reward(images, prompts)
    assert (caught.value.index, caught.value.prompt) == (5, "bad")


def test_one_picture_that_does_not_fit_is_a_failure() -> None:
    def full(images: Sequence[Image.Image], prompts: Sequence[str]) -> list[float]:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    with pytest.raises(RewardError, match=r"failed on image 1 of 1, prompt 'a': OutOfMemoryError: CUDA out of memory"):
        FunctionReward(full, "full")([Image.new("RGB", (2, 2))] * 2, ["a", "b"])


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
    keyed = Image.new("RGB", (2, 2), (0, 0, 9))  # as PNG files without an alpha channel say what is transparent
    keyed.info["transparency"] = (0, 0, 9)
    images = [clear, Image.new("L", (2, 2), 7), Image.new("LA", (2, 2), (9, 255)), palette, keyed, RED]
    FunctionReward(look)(tuple(images), ("a",) * 6)
    assert [image.mode for image in seen[0]] == ["RGB"] * 6
    white = (255,) * 3
    assert [image.getpixel((0, 0)) for image in seen[0]] == [white, (7,) * 3, (9,) * 3, white, white, (255, 0, 0)]
    assert seen[0][5] is RED
    assert seen[1:] == [["a"] * 6, False]


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
