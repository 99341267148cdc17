"""What every shipped reward has to keep, whatever it measures."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from PIL import Image

from pagopt.reward import Reward, load_reward
from pagopt_rewards.towers import absent

PROMPTS = ["flat, red apple", "ink, cat", "a glossy rocket", "flat, cat", "ink, red apple", "glossy, cat", "flat, cat"]
SHIPPED = ["brightness", "clip", "colorfulness", "judge", "sharpness", "style"]
CLASSES = {name: f"pagopt_rewards.{name}:{name.capitalize()}" for name in SHIPPED}


@pytest.fixture(scope="module", params=SHIPPED)
def reward(request: pytest.FixtureRequest, tiny_clip: str) -> Reward:
    if request.param == "judge" and absent():
        pytest.skip(absent())
    args: dict[str, Any] = {"model": tiny_clip} if request.param in {"clip", "style"} else {}
    return load_reward(CLASSES[request.param], **args)


def test_one_finite_float32_an_image_and_not_all_equal(reward: Reward, pictures: list[Image.Image]) -> None:
    scores = reward(pictures, PROMPTS)
    assert scores.dtype == torch.float32
    assert scores.shape == (7,)
    assert scores.isfinite().all()
    assert scores.unique().numel() == 7


def test_neither_batch_size_nor_order_changes_a_score(reward: Reward, pictures: list[Image.Image]) -> None:
    whole = reward(pictures, PROMPTS)
    alone = torch.cat([reward([image], [prompt]) for image, prompt in zip(pictures, PROMPTS, strict=True)])
    torch.testing.assert_close(alone, whole, atol=1e-4, rtol=1e-5)
    order = list(range(7))
    random.Random(1).shuffle(order)
    mixed = reward([pictures[i] for i in order], [PROMPTS[i] for i in order])
    torch.testing.assert_close(mixed, whole[order], atol=1e-4, rtol=1e-5)


def test_the_same_again(reward: Reward, pictures: list[Image.Image]) -> None:
    assert torch.equal(reward(pictures, PROMPTS), reward(pictures, PROMPTS))


def test_precision_of_the_surroundings_does_not_matter(reward: Reward, pictures: list[Image.Image]) -> None:
    plain = reward(pictures, PROMPTS)
    before = torch.get_default_dtype()
    try:
        torch.set_default_dtype(torch.float64)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(reward(pictures, PROMPTS), plain)
            assert torch.is_autocast_enabled("cpu")
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(before)


def test_pictures_are_left_as_they_were(reward: Reward, pictures: list[Image.Image]) -> None:
    before = [picture.tobytes() for picture in pictures]
    reward(pictures, PROMPTS)
    assert [picture.tobytes() for picture in pictures] == before


def test_key_is_stable_and_names_the_reward(reward: Reward) -> None:
    again = load_reward(reward.name, **reward.describe()["arguments"])
    assert again.key() == reward.key()
    assert reward.key().startswith(reward.name)
