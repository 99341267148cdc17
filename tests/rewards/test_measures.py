"""colorfulness, sharpness and brightness against values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image, ImageFilter

from pagopt.errors import RewardError
from pagopt_rewards.brightness import Brightness
from pagopt_rewards.colorfulness import Colorfulness
from pagopt_rewards.sharpness import Sharpness


def plain(colour: tuple[int, int, int] | str, size: tuple[int, int] = (8, 6)) -> Image.Image:
    return Image.new("RGB", size, colour)


@pytest.mark.parametrize(
    ("colour", "expected"),
    [("black", 0), ("white", 1), ((255, 0, 0), 0.2126), ((0, 255, 0), 0.7152), ((0, 0, 255), 0.0722), ((51,) * 3, 0.2)],
)
def test_brightness(colour: tuple[int, int, int], expected: float) -> None:
    assert Brightness()([plain(colour)], [""]).item() == pytest.approx(expected, abs=1e-6)


def test_colorfulness_of_grey_is_zero_and_of_red_is_known() -> None:
    scores = Colorfulness()([plain((90, 90, 90)), plain("red")], ["", ""])
    # rg = 255, yb = 127.5 everywhere: no spread, 0.3 of the length of the mean
    assert scores.tolist() == pytest.approx([0, 0.3 * np.hypot(255, 127.5)], abs=1e-4)


def test_colorfulness_of_two_halves() -> None:
    image = plain("red")
    image.paste((0, 255, 0), (0, 0, 4, 6))
    # rg = +-255 (mean 0, deviation 255), yb = 127.5 everywhere
    assert Colorfulness()([image], [""]).item() == pytest.approx(255 + 0.3 * 127.5, abs=1e-3)


def test_sharpness_of_one_dot() -> None:
    image = plain("black", (5, 5))
    image.putpixel((2, 2), (255, 255, 255))
    inside = np.array([[0, 255, 0], [255, -4 * 255, 255], [0, 255, 0]], dtype=float)
    assert Sharpness()([image], [""]).item() == pytest.approx(inside.var(), rel=1e-6)


def test_sharpness_of_a_slope_is_zero_and_blur_lowers_it() -> None:
    slope = Image.fromarray(np.repeat(np.arange(0, 60, 2, dtype=np.uint8)[None, :, None], 3, 2).repeat(20, 0))
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 30, 3), dtype=np.uint8))
    blurred = noise.filter(ImageFilter.GaussianBlur(1))
    scores = Sharpness()([slope, noise, blurred], ["", "", ""])
    assert scores[0].item() == pytest.approx(0, abs=1e-9)
    assert scores[1] > 10 * scores[2] > 0


def test_an_image_without_inside_is_named() -> None:
    with pytest.raises(RewardError, match=r"image 2 of 2.*9 x 2 pixels") as caught:
        Sharpness()([plain("red"), plain("red", (9, 2))], ["a", "b"])
    assert caught.value.index == 1
    assert caught.value.prompt == "b"


@given(hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, min_side=3, max_side=9).map(lambda s: (*s, 3))))
def test_ranges(pixels: np.ndarray) -> None:
    image = Image.fromarray(pixels)
    assert 0 <= Brightness()([image], [""]).item() <= 1
    assert 0 <= Colorfulness()([image], [""]).item() < 300
    assert Sharpness()([image], [""]).item() >= 0


@given(st.integers(0, 255))
def test_grey_pictures_have_neither_colour_nor_detail(level: int) -> None:
    image = Image.new("L", (5, 5), level)
    assert Colorfulness()([image], [""]).item() == 0
    assert Sharpness()([image], [""]).item() == pytest.approx(0, abs=1e-9)
