"""contrast: the softmax of CLIP-IQA."""

from __future__ import annotations

import math

import pytest
import torch
from PIL import Image
from transformers import CLIPModel, CLIPTokenizer

from pagopt.errors import RewardError
from pagopt.reward import load_reward
from pagopt_rewards.contrast import Contrast
from pagopt_rewards.encoder import Encoder

PAIRS = [["a good photo", "a bad photo"], ["sharp", "blurry, soft"]]


@torch.no_grad()
def slow(folder: str, images: list[Image.Image], pairs: list[list[str]]) -> list[float]:
    """By transformers' own forward pass, an image and a pair at a time."""
    model, tokenizer = CLIPModel.from_pretrained(folder), CLIPTokenizer.from_pretrained(folder)
    encoder, found = Encoder(folder), []
    for image in images:
        pixels, shares = encoder.network.prepare(image)[None], []
        for pair in pairs:
            tokens = tokenizer(pair, padding=True, return_tensors="pt")
            wanted, unwanted = model(pixel_values=pixels, **tokens).logits_per_image[0].tolist()
            shares.append(1 / (1 + math.exp(unwanted - wanted)))
        found.append(sum(shares) / len(shares))
    return found


@pytest.mark.parametrize("pairs", [PAIRS[:1], PAIRS])
def test_it_is_the_mean_probability_of_the_first_texts(
    pairs: list[list[str]], tiny_clip: str, pictures: list[Image.Image]
) -> None:
    scores = Contrast(pairs, tiny_clip)(pictures, ["x"] * 7)
    expected = torch.tensor(slow(tiny_clip, pictures, pairs))
    torch.testing.assert_close(scores, expected, atol=2e-5, rtol=0)
    assert 0 <= scores.min() < scores.max() <= 1


def test_turned_around_it_is_the_rest(tiny_clip: str, pictures: list[Image.Image]) -> None:
    turned = Contrast([pair[::-1] for pair in PAIRS], tiny_clip)(pictures, [""] * 7)
    torch.testing.assert_close(1 - turned, Contrast(PAIRS, tiny_clip)(pictures, [""] * 7), atol=1e-5, rtol=0)


def test_neither_batch_size_nor_prompts_matter_and_texts_are_read_once(
    tiny_clip: str, pictures: list[Image.Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    reward, seen, images = Contrast(PAIRS, tiny_clip), [], (pictures * 5)[:32]
    read = reward.encoder.network.read
    monkeypatch.setattr(reward.encoder.network, "read", lambda texts: (seen.append(list(texts)), read(texts))[1])
    whole = reward(images, [""] * 32)
    sevens = torch.cat([reward(images[i : i + 7], ["a"] * len(images[i : i + 7])) for i in range(0, 32, 7)])
    alone = torch.cat([reward([image], ["b"]) for image in images])
    torch.testing.assert_close(sevens, whole, atol=1e-5, rtol=0)
    torch.testing.assert_close(alone, whole, atol=1e-5, rtol=0)
    assert seen == [[text for pair in PAIRS for text in pair]]


def test_pairs_are_checked(tiny_clip: str) -> None:
    for pairs, message in (
        ([], "pairs is empty"),
        ("good", "a list of pairs"),
        (["good", "bad"], "a list of pairs"),
        ([["good", "bad", "worse"]], "a list of pairs"),
        ([["good", "good"]], "must differ, and both are 'good'"),
    ):
        with pytest.raises(RewardError, match=message):
            Contrast(pairs, tiny_clip)


def test_arguments_are_plain_and_in_the_key(tiny_clip: str) -> None:
    place = "pagopt_rewards.contrast:Contrast"
    one, two = (load_reward(place, pairs=pairs, model=tiny_clip) for pairs in (PAIRS, PAIRS[:1]))
    assert one.describe()["arguments"]["pairs"] == PAIRS
    assert one.key() != two.key()
    assert load_reward(place, model=tiny_clip).describe()["arguments"]["pairs"] == [["Good photo.", "Bad photo."]]
