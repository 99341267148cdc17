"""reference: its numbers, what belongs to its key, and the pictures that it refuses."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from towers_apart import Towers

from pagopt.errors import RewardError
from pagopt.models import load_pipeline
from pagopt.reward import load_reward
from pagopt_rewards.examples import read_examples
from pagopt_rewards.reference import Reference, leave_one_out


def noise(count: int, seed: int = 5, size: int = 40) -> list[Image.Image]:
    draw = np.random.default_rng(seed)
    return [Image.fromarray(draw.integers(0, 256, (size, size, 3), dtype=np.uint8)) for _ in range(count)]


def mosaics(count: int, seed: int, low: int = 0, high: int = 255) -> list[Image.Image]:
    """Coloured squares, between two values."""
    draw, found = np.random.default_rng(seed), []
    for _ in range(count):
        squares = draw.integers(low, high + 1, (int(draw.integers(3, 9)),) * 2 + (3,), dtype=np.uint8)
        found.append(Image.fromarray(squares).resize((40, 40), Image.Resampling.NEAREST))
    return found


def motley() -> list[Image.Image]:
    """Five pictures that differ much, dark and light ones."""
    return [*mosaics(2, 0, high=90), *mosaics(2, 1, low=165), *mosaics(1, 2)]


def save(images: list[Image.Image], folder: Path, suffix: str = "png") -> str:
    folder.mkdir(parents=True, exist_ok=True)
    for number, image in enumerate(images):
        image.save(folder / f"{number}.{suffix}")
    return str(folder)


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save(motley(), tmp_path_factory.mktemp("examples"))


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save(noise(4), tmp_path_factory.mktemp("others"))


def by_hand(
    folder: str, images: list[Image.Image], shown: list[Image.Image], away: list[Image.Image], projected: bool
) -> list[float]:
    """The formula of the docstring, pair by pair."""
    towers = Towers(folder)
    seen, own, other = (towers.images(some, projected) for some in (images, shown, away))

    def nearness(vector: torch.Tensor, to: list[torch.Tensor]) -> float:
        apart = sum(float(vector @ each) for each in other) / len(other) if other else 0.0
        return sum(float(vector @ each) for each in to) / len(to) - apart

    left_out = [nearness(vector, own[:i] + own[i + 1 :]) for i, vector in enumerate(own)]
    mean = sum(left_out) / len(left_out)
    deviation = math.sqrt(sum((value - mean) ** 2 for value in left_out) / (len(left_out) - 1))
    return [(nearness(vector, own) - mean) / deviation for vector in seen]


@pytest.mark.parametrize("projected", [False, True])
@pytest.mark.parametrize("told", [False, True])
def test_it_is_the_nearness_in_deviations_of_the_examples(
    tiny_clip: str, pictures: list[Image.Image], examples: str, others: str, told: bool, projected: bool
) -> None:
    reward = Reference(examples, others if told else None, tiny_clip, projected)
    away = read_examples(others, "against").images if told else []
    expected = by_hand(tiny_clip, pictures, read_examples(examples, "examples").images, away, projected)
    torch.testing.assert_close(reward(pictures, ["a"] * 7), torch.tensor(expected), atol=1e-3, rtol=1e-4)


def test_what_0_and_minus_1_mean(tiny_clip: str, examples: str) -> None:
    """Of examples that were left out, the mean score is 0, and their standard deviation 1."""
    reward = Reference(examples, model=tiny_clip)
    seen = read_examples(examples, "examples").features(reward.encoder, projected=False)
    scores = (leave_one_out(seen.double()) - reward.mean) / reward.deviation
    assert float(scores.mean()) == pytest.approx(0, abs=1e-3)
    assert float(scores.std()) == pytest.approx(1, abs=1e-3)


def test_neither_batch_size_nor_order_changes_a_score(tiny_clip: str, examples: str) -> None:
    reward, images = Reference(examples, model=tiny_clip), mosaics(32, 9)
    whole = reward(images, [""] * 32)
    for size in (1, 7):
        parts = torch.cat([reward(images[i : i + size], [""] * len(images[i : i + size])) for i in range(0, 32, size)])
        torch.testing.assert_close(parts, whole, atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(reward(images[::-1], [""] * 32), whole.flip(0), atol=1e-4, rtol=1e-5)


def test_a_list_of_files_is_as_good_as_their_folder(tiny_clip: str, examples: str) -> None:
    files = [str(path) for path in sorted(Path(examples).iterdir(), reverse=True)]
    images = noise(3, 8)
    listed, folder = Reference(files, model=tiny_clip), Reference(examples, model=tiny_clip)
    torch.testing.assert_close(listed(images, [""] * 3), folder(images, [""] * 3), atol=1e-4, rtol=1e-5)
    assert listed.identity() == folder.identity()


def test_identity_is_that_of_the_pixels(tiny_clip: str, examples: str, others: str, tmp_path: Path) -> None:
    before = Reference(examples, model=tiny_clip).identity()
    moved = Path(save(motley()[::-1], tmp_path / "moved", "bmp"))  # another folder, order and file format
    assert Reference(str(moved), model=tiny_clip).identity() == before
    assert Reference(examples, others, tiny_clip).identity() != before
    image = motley()[0]
    image.putpixel((3, 3), (0, 0, 0))
    image.save(moved / "4.bmp")
    assert Reference(str(moved), model=tiny_clip).identity() != before
    key = load_reward("reference", examples=str(moved), model=tiny_clip).key()
    noise(1, 77)[0].save(moved / "4.bmp")
    assert load_reward("reference", examples=str(moved), model=tiny_clip).key() != key


def test_pictures_are_read_as_people_see_them(tmp_path: Path) -> None:
    grey = Image.new("L", (8, 6), 100)
    clear = Image.new("RGBA", (8, 6), (0, 0, 0, 0))
    turned = Image.new("RGB", (8, 6), "red")
    turned.putpixel((0, 0), (0, 0, 255))
    for name, image in (("a.png", grey), ("b.PNG", clear)):
        image.save(tmp_path / name)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    turned.save(tmp_path / "c.png", exif=exif)
    for name in ("notes.txt", "styles.json", ".hidden.png"):
        (tmp_path / name).write_bytes(b"no picture")
    (tmp_path / "more.png").mkdir()
    read = read_examples(str(tmp_path), "examples")
    assert [path.name for path in read.files] == ["a.png", "b.PNG", "c.png"]
    assert [image.mode for image in read.images] == ["RGB"] * 3
    assert read.images[0].getpixel((0, 0)) == (100, 100, 100)
    assert read.images[1].getpixel((0, 0)) == (255, 255, 255)
    assert read.images[2].size == (6, 8)


def test_a_picture_that_cannot_be_read_is_named(examples: str, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(examples, tmp_path / "cut"))
    whole = (folder / "3.png").read_bytes()
    for name, content in (("3.png", whole[: len(whole) // 2]), ("vector.svg", b"<svg/>"), ("phone.HEIC", b"\0" * 50)):
        (folder / name).write_bytes(content)
        with pytest.raises(RewardError, match=rf"`examples`: cannot read .*{name} as a picture.*or take it out"):
            Reference(str(folder))
        if name != "3.png":
            (folder / name).unlink()
        else:
            (folder / name).write_bytes(whole)
    Image.new("I;16", (8, 8)).save(folder / "deep.png")
    with pytest.raises(RewardError, match=r"deep\.png has mode 'I(;16)?'.*8 bits"):
        Reference(str(folder))
    (folder / "deep.png").unlink()
    noise(1)[0].save(folder / "film.gif", save_all=True, append_images=noise(2, 1))
    with pytest.raises(RewardError, match=r"film\.gif holds 3 pictures"):
        Reference(str(folder))


def test_the_number_of_pictures_is_checked(examples: str, tmp_path: Path) -> None:
    two, many = save(noise(2), tmp_path / "two"), save(noise(21, size=4), tmp_path / "many")
    cases: list[tuple[Any, str]] = [
        (two, r"`examples` takes 3 to 20 pictures, and the folder .*two holds 2"),
        (many, r"and the folder .*many holds 21"),
        ([f"{examples}/0.png"], r"and the list holds 1"),
        (str(tmp_path / "nowhere"), r"nowhere is not there"),
        (f"{examples}/0.png", r"0\.png is a file"),
        ([f"{examples}/{name}.png" for name in (0, 1, "x")], r"cannot read .*x\.png.*FileNotFoundError"),
        (7, r"a folder of pictures or a list of files, not 7"),
        (["a.png", 3], r"a folder of pictures or a list of files, not \["),
    ]
    for given, said in cases:
        with pytest.raises(RewardError, match=said):
            Reference(given)
    with pytest.raises(RewardError, match=r"`against` takes 3 to 100 pictures, and the folder .*two holds 2"):
        Reference(examples, two)


def test_pictures_without_a_difference_are_refused(tiny_clip: str, examples: str, tmp_path: Path) -> None:
    same = save([noise(1)[0]] * 3, tmp_path / "same")
    with pytest.raises(RewardError, match=r"0\.png and .*1\.png are the same picture"):
        Reference(same, model=tiny_clip)
    blank = save([Image.new("RGB", (size, size), "white") for size in (40, 50, 60)], tmp_path / "blank")
    with pytest.raises(RewardError, match="3 pictures of `examples` have no spread"):
        Reference(blank, model=tiny_clip)
    with pytest.raises(RewardError, match="5 of the pictures are both in"):
        Reference(examples, str(shutil.copytree(examples, tmp_path / "copy")), tiny_clip)


def test_it_knows_a_style_that_the_embedded_model_draws(tmp_path: Path) -> None:
    if Reference.missing():
        pytest.skip(Reference.missing())
    pipeline = load_pipeline("emoji")
    pipeline.set_progress_bar_config(disable=True)
    shown = ["red apple", "rocket", "house", "cat face"]
    asked = ["sunflower", "bus", "tulip", "key", "dog face", "umbrella", "strawberry", "guitar"]
    prompts = [f"ink, {name}" for name in shown] + [f"{style}, {name}" for style in ("ink", "flat") for name in asked]
    draws = [torch.Generator().manual_seed(seed) for seed in range(len(prompts))]
    drawn = pipeline(prompts, num_inference_steps=8, guidance_scale=2.0, generator=draws).images
    scores = load_reward("reference", examples=save(drawn[:4], tmp_path / "ink"))(drawn[4:], prompts[4:])
    ink, flat = scores.view(2, len(asked))
    assert (ink[:, None] > flat).float().mean() >= 0.95
    assert flat.mean() < -1 < ink.mean()
