"""Captions: what is said of a picture, and what is left out."""

from collections import Counter

import torch

from tools.emoji.captions import caption, content, name_of, training_caption


def test_names_read_as_english():
    assert name_of("smiling-face-with-heart-eyes") == "smiling face with heart eyes"


def test_an_empty_part_takes_its_comma_with_it():
    assert caption("flat", "red apple") == "flat, red apple"
    assert caption("flat", "red apple", style_first=False) == "red apple, flat"
    assert caption("", "red apple") == "red apple"
    assert caption("flat", "") == "flat"
    assert caption("", "") == ""


def test_dropout_shares():
    generator = torch.Generator().manual_seed(0)
    count = 4000
    seen = Counter(training_caption("flat", "red apple", generator) for _ in range(count))
    assert set(seen) == {"flat, red apple", "red apple, flat", "red apple", "flat", ""}
    for text in ("red apple", "flat", ""):
        assert abs(seen[text] / count - 0.1) < 0.02
    assert abs(seen["flat, red apple"] / seen["red apple, flat"] - 2) < 0.3


def test_synonyms_come_after_the_name_or_in_its_place():
    generator = torch.Generator().manual_seed(0)
    count = 6000
    seen = Counter(content("taxi", ["cab", "uber"], generator) for _ in range(count))
    assert set(seen) == {"taxi", "cab", "uber", "taxi, cab", "taxi, uber"}
    assert abs(seen["taxi"] / count - 3 / 4) < 0.02
    assert abs((seen["cab"] + seen["uber"]) / count - 1 / 12) < 0.02
    assert content("taxi", [], generator) == "taxi"
