"""The parts of exam and sheet that need no model."""

import numpy as np
import pytest
import torch
from PIL import Image

from tools.emoji.evaluate import choose, measure, recognise, to_images
from tools.emoji.sheet import mark, spread, stack


class Colours:
    """An instrument that knows three colours and whether a picture is bright."""

    def images(self, images):
        rows = [[channel / 255 for channel in image.getpixel((0, 0))] for image in images]
        return torch.nn.functional.normalize(torch.tensor(rows), dim=-1)

    def texts(self, texts):
        known = {"red": [1.0, 0, 0], "green": [0, 1.0, 0], "blue": [0, 0, 1.0], "pale": [1.0, 1.0, 1.0]}
        return torch.nn.functional.normalize(torch.tensor([known[text] for text in texts]), dim=-1)


def test_rank_1_counts_the_right_answers():
    images = [Image.new("RGB", (8, 8), colour) for colour in ("red", "green", "blue", "blue")]
    seen = recognise(Colours(), images, [(0, 0), (0, 1), (0, 2), (0, 0)], ["red", "pale"], ["red", "green", "blue"])
    assert seen.count == 4
    assert seen.concept == pytest.approx(3 / 4)
    assert seen.style == pytest.approx(1 / 4)  # only the red picture is nearer to "red" than to "pale"


def test_pairs_are_chosen_once_and_by_seed():
    pairs = [(0, n) for n in range(20)]
    chosen = choose(pairs, 7, seed=3)
    assert len(set(chosen)) == 7
    assert choose(pairs, 7, seed=3) == chosen != choose(pairs, 7, seed=4)
    assert sorted(choose(pairs, 50, seed=3)) == pairs


def test_pictures_survive_the_way_to_images():
    images = to_images(torch.tensor([-1.0, 0.0, 3.0])[:, None, None, None].expand(3, 3, 4, 4))
    assert [image.getpixel((1, 1))[0] for image in images] == [0, 128, 255]


def test_a_method_nearer_to_the_artwork_has_a_smaller_distance(capsys):
    generator = np.random.default_rng(0)
    real = generator.normal(size=(60, 4))
    near, far = real + 0.1 * generator.normal(size=real.shape), real + 3
    rows = [measure("near", real, near, None, 50, 0), measure("far", real, far, near, 50, 0)]
    assert rows[0]["frechet"]["value"] < rows[1]["frechet"]["value"]
    assert rows[1]["difference"]["low"] > 0
    assert rows[0]["coverage"] > rows[1]["coverage"]
    assert capsys.readouterr().out.count("\n") == 2


def test_concepts_are_spread_over_the_list():
    assert spread("abcdefghij", 5) == [0, 2, 4, 6, 8]
    assert spread("abcdefghij", 5, first=3) == [3, 5, 7, 9, 1]


def test_held_out_pictures_carry_a_mark_and_stay_as_they_were():
    picture = Image.new("RGB", (64, 64), "white")
    assert mark(picture).getpixel((58, 4)) != (255, 255, 255)
    assert picture.getpixel((58, 4)) == (255, 255, 255)


def test_blocks_are_stacked_under_their_titles():
    blocks = [("no guidance", Image.new("RGB", (50, 20), "red")), ("CFG", Image.new("RGB", (80, 30), "blue"))]
    image = stack(blocks)
    assert image.width == 80
    assert image.height > 50
    assert image.getpixel((5, image.height - 5)) == (0, 0, 255)
