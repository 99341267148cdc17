"""style: its numbers in both ways of writing it, and what it refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from towers_apart import Towers

from pagopt.errors import RewardError, UnknownName
from pagopt.reward import Objective, RewardSpec, load_reward
from pagopt_rewards.style import Style


def cosines(folder: str, images: list[Image.Image], texts: list[str]) -> list[list[float]]:
    towers = Towers(folder)
    read = towers.texts(texts)
    return [[float(image @ text) for text in read] for image in towers.images(images, projected=True)]


def test_it_is_the_distance_from_the_other_styles(tiny_clip: str, pictures: list[Image.Image]) -> None:
    rows = cosines(tiny_clip, pictures, ["flat", "glossy", "ink"])
    fixed = Style("glossy", model=tiny_clip)(pictures, [""] * 7)
    expected = [100 * (glossy - (flat + ink) / 2) for flat, glossy, ink in rows]
    torch.testing.assert_close(fixed, torch.tensor(expected), atol=1e-4, rtol=1e-5)
    own = Style(model=tiny_clip)(pictures[:3], ["flat, ink pot", "Ink, flat shoe", "an inky glossy cat"])
    expected = [100 * (rows[i][k] - (sum(rows[i]) - rows[i][k]) / 2) for i, k in enumerate((0, 2, 1))]
    torch.testing.assert_close(own, torch.tensor(expected), atol=1e-4, rtol=1e-5)


def test_free_texts_are_averaged_on_each_side(tiny_clip: str, pictures: list[Image.Image]) -> None:
    texts = ["flat paper cut", "layered paper", "photo", "red render", "blurry", "letters"]
    rows = cosines(tiny_clip, pictures, texts)
    reward = Style(texts[:2], against=texts[2:4], avoid=texts[4:], avoid_weight=0.3, model=tiny_clip)
    expected = [100 * ((a + b) / 2 - (c + d) / 2 - 0.3 * (e + f) / 2) for a, b, c, d, e, f in rows]
    scores = reward(pictures, ["flat, cat"] * 7)
    torch.testing.assert_close(scores, torch.tensor(expected), atol=1e-4, rtol=1e-5)
    assert torch.equal(scores, reward(pictures, [""] * 7))  # no prompt has a part in it
    plain = Style("flat paper cut", against="photo", model=tiny_clip)(pictures, [""] * 7)
    expected = [100 * (row[0] - row[2]) for row in rows]
    torch.testing.assert_close(plain, torch.tensor(expected), atol=1e-4, rtol=1e-5)


def test_what_is_avoided_counts_beside_listed_styles_too(tiny_clip: str, pictures: list[Image.Image]) -> None:
    prompts = ["flat, cat", "ink, cat", "glossy, cat", "flat, cat", "ink, cat", "glossy, cat", "flat, cat"]
    blurry = torch.tensor([row[0] for row in cosines(tiny_clip, pictures, ["blurry"])])
    difference = Style(model=tiny_clip)(pictures, prompts) - Style(model=tiny_clip, avoid="blurry")(pictures, prompts)
    torch.testing.assert_close(difference, 50 * blurry, atol=1e-4, rtol=1e-5)


def test_listed_and_contrasted_styles_agree(tiny_clip: str, pictures: list[Image.Image]) -> None:
    listed = Style("ink", ["ink", "flat", "glossy"], tiny_clip)(pictures, [""] * 7)
    contrasted = Style("ink", against=["flat", "glossy"], model=tiny_clip)(pictures, [""] * 7)
    torch.testing.assert_close(listed, contrasted, atol=1e-5, rtol=1e-5)


def test_each_text_is_read_once(tiny_clip: str, pictures: list[Image.Image]) -> None:
    reward, seen = Style(["ink", "flat"], against=["photo", "render"], avoid="blurry", model=tiny_clip), []
    reward.encoder.model.text_model.register_forward_hook(
        lambda module, args, given, output: seen.append(len(given["input_ids"])), with_kwargs=True
    )
    for part in (pictures[:4], pictures[4:], pictures):
        reward(part, ["flat, cat"] * len(part))
    assert sum(seen) == 5


def test_a_prompt_without_a_style_is_named(tiny_clip: str, pictures: list[Image.Image]) -> None:
    with pytest.raises(RewardError, match=r"'an inky cat' names no style.*flat, glossy, ink") as caught:
        Style(model=tiny_clip)(pictures[:2], ["flat, cat", "an inky cat"])
    assert (caught.value.reward, caught.value.index, caught.value.prompt) == ("style", 1, "an inky cat")


def test_styles_are_checked(tiny_clip: str, tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match=r"unknown style 'glosy'.*Did you mean 'glossy'.*`against`"):
        Style("glosy", model=tiny_clip)
    with pytest.raises(RewardError, match="two or more"):
        Style(styles=["flat"], model=tiny_clip)
    with pytest.raises(RewardError, match="two or more"):
        Style(styles="flat", model=tiny_clip)
    for styles in ({"flat": "flat paper cut", "ink": "ink drawing"}, [1, 2], ["", "flat"], ["flat", "flat"]):
        with pytest.raises(RewardError, match="`styles` is a text or a list of different texts, none of them empty"):
            Style(styles=styles, model=tiny_clip)  # type: ignore[arg-type]
    bare = shutil.copytree(tiny_clip, tmp_path / "a" / "bare")
    (bare / "styles.json").unlink()
    with pytest.raises(RewardError, match="`styles` must list"):
        Style(model=str(bare))
    assert Style("photo", ["photo", "3d render"], str(bare)).styles == ["photo", "3d render"]
    assert Style("photo", against="3d render", model=str(bare)).styles == []
    (tmp_path / "a" / "styles.json").write_text(json.dumps({"styles": ["b", "c"]}))
    assert Style(model=str(bare)).styles == ["b", "c"]
    (bare / "styles.json").write_text("[]")
    with pytest.raises(RewardError, match="damaged"):
        Style(model=str(bare))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"against": "photo"}, "`against` needs a `style`"),
        ({"style": "ink", "against": "photo", "styles": ["ink", "photo"]}, "`against` or `styles`, not both"),
        ({"style": ["ink", "flat"]}, "need `against`"),
        ({"style": ["ink", "flat"], "against": ["photo", "flat"]}, "'flat' is both in `style` and in `against`"),
        ({"style": "ink", "avoid": ["ink"]}, "'ink' is both in `style` and in `avoid`"),
        ({"style": "ink", "against": []}, "`against` is a text or a list of different texts"),
        ({"style": "ink", "against": ["photo", "photo"]}, "`against` is a text or a list of different texts"),
        ({"style": "ink", "avoid": " "}, "`avoid` is a text or a list"),
        ({"style": "ink", "avoid": {"blurry": 1}}, "`avoid` is a text or a list"),
        ({"style": "ink", "avoid": "blurry", "avoid_weight": 0}, "avoid_weight is a finite number above 0, not 0"),
        ({"style": "ink", "avoid": "blurry", "avoid_weight": float("nan")}, "avoid_weight .* not nan"),
    ],
)
def test_texts_that_make_no_contrast_are_refused(tiny_clip: str, arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(RewardError, match=said):
        Style(model=tiny_clip, **arguments)


def test_texts_are_part_of_the_key(tiny_clip: str) -> None:
    def key(**arguments: Any) -> str:
        return Objective([RewardSpec("style", args={"model": tiny_clip, **arguments})]).rewards["style"].key()

    keys = [
        key(),
        key(style="ink"),
        key(style="ink", against="photo"),
        key(style="ink", against=["photo", "render"]),
        key(style="ink", against="photo", avoid="blurry"),
        key(style="ink", against="photo", avoid="blurry", avoid_weight=0.4),
    ]
    assert len(set(keys)) == len(keys)
    assert key(style="ink", against="photo") == keys[2]


def test_the_embedded_scorer_needs_no_argument(pictures: list[Image.Image]) -> None:
    if Style.missing():
        pytest.skip(Style.missing())
    listed = load_reward("style")(pictures[:2], ["flat, cat", "flat, cat"])
    told = load_reward("style", style="flat", against=["glossy", "ink", "cartoon", "monotone"])(pictures[:2], ["", ""])
    torch.testing.assert_close(listed, told, atol=1e-4, rtol=1e-5)
