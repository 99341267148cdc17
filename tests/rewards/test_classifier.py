"""classifier: its probabilities by texts and by pictures, and what it refuses."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from test_reference import mosaics, save
from towers_apart import Towers

from pagopt.errors import RewardError, UnknownName
from pagopt.reward import load_reward
from pagopt_rewards.classifier import Classifier, fitted_scale
from pagopt_rewards.examples import read_examples


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    home = tmp_path_factory.mktemp("styles")
    kinds = {"dark": mosaics(4, 0, high=90), "light": mosaics(5, 1, low=165), "plain": mosaics(4, 2)}
    return {name: save(images, home / name) for name, images in kinds.items()}


def log_softmax(logits: list[float]) -> list[float]:
    total = math.log(sum(math.exp(logit - max(logits)) for logit in logits)) + max(logits)
    return [logit - total for logit in logits]


def test_by_texts_it_is_the_clips_own_probability(tiny_clip: str, pictures: list[Image.Image]) -> None:
    towers = Towers(tiny_clip)
    seen, said = towers.images(pictures, projected=True), {"paper": ["flat paper", "layers"], "ink": "ink drawing"}
    paper, layers, ink = towers.texts(["flat paper", "layers", "ink drawing"])
    scale = float(towers.model.logit_scale.detach().exp())
    rows = [
        log_softmax([scale * float(image @ paper + image @ layers) / 2, scale * float(image @ ink)]) for image in seen
    ]
    scores = Classifier("ink", said, model=tiny_clip)(pictures, [""] * 7)
    torch.testing.assert_close(scores, torch.tensor([row[1] for row in rows]), atol=1e-4, rtol=1e-4)
    named = Classifier(styles=said, model=tiny_clip)(pictures[:2], ["a paper cat", "ink, cat"])
    torch.testing.assert_close(named, torch.tensor([rows[0][0], rows[1][1]]), atol=1e-4, rtol=1e-4)


def test_a_list_of_names_is_their_own_text(tiny_clip: str, pictures: list[Image.Image]) -> None:
    listed = Classifier("ink", ["flat", "ink"], model=tiny_clip)(pictures, [""] * 7)
    mapped = Classifier("ink", {"flat": "flat", "ink": "ink"}, model=tiny_clip)(pictures, [""] * 7)
    assert torch.equal(listed, mapped)
    assert Classifier(model=tiny_clip).names == ["flat", "glossy", "ink"]  # of styles.json


def test_probabilities_of_all_styles_add_up_to_1(
    tiny_clip: str, pictures: list[Image.Image], folders: dict[str, str]
) -> None:
    for args in ({}, {"examples": folders}):
        names = Classifier(model=tiny_clip, **args).names
        each = [Classifier(name, model=tiny_clip, **args)(pictures, [""] * 7) for name in names]
        torch.testing.assert_close(torch.stack(each).exp().sum(dim=0), torch.ones(7))
        assert (torch.stack(each) <= 0).all()


def test_by_pictures_the_scale_makes_the_examples_most_likely(
    tiny_clip: str, pictures: list[Image.Image], folders: dict[str, str]
) -> None:
    """Against the formula, pair by pair, and a search through many scales."""
    towers = Towers(tiny_clip)
    classes = [towers.images(read_examples(folder, "x").images, projected=False) for folder in folders.values()]

    def mean_cosine(vector: torch.Tensor, others: list[torch.Tensor]) -> float:
        return sum(float(vector @ other) for other in others) / len(others)

    def surprise(scale: float) -> float:
        total = 0.0
        for own, members in enumerate(classes):
            for i, vector in enumerate(members):
                left = [members[:i] + members[i + 1 :] if k == own else some for k, some in enumerate(classes)]
                logs = log_softmax([scale * mean_cosine(vector, some) for some in left])
                sure, n = (len(members) + 1) / (len(members) + 2), len(classes) - 1
                wanted = [sure if k == own else (1 - sure) / n for k in range(len(classes))]
                total -= sum(w * log for w, log in zip(wanted, logs, strict=True)) / len(members)
        return total

    reward = Classifier("light", examples=folders, model=tiny_clip)
    tried = np.geomspace(0.01, 1000, 120)
    best = min(tried, key=surprise)
    assert reward.scale == pytest.approx(best, rel=0.1)
    assert surprise(reward.scale) <= surprise(best) + 1e-4
    rows = [
        log_softmax([reward.scale * mean_cosine(image, some) for some in classes])
        for image in towers.images(pictures, projected=False)
    ]
    scores = reward(pictures, [""] * 7)
    torch.testing.assert_close(scores, torch.tensor([row[1] for row in rows]), atol=1e-3, rtol=1e-3)


def test_it_recognises_new_pictures_of_its_folders(tiny_clip: str, folders: dict[str, str]) -> None:
    new = [*mosaics(4, 70, high=90), *mosaics(4, 71, low=165)]
    dark = Classifier("dark", examples=folders, model=tiny_clip)(new, [""] * 8)
    assert (dark[:4] > math.log(1 / 3)).all()
    assert dark[:4].min() > dark[4:].max()


def test_examples_that_are_told_apart_perfectly_do_not_end_in_certainty() -> None:
    corners = torch.eye(6)
    near = [torch.nn.functional.normalize(corners[i] + 0.1 * corners[[2, 3, 4]], dim=1) for i in (0, 1)]
    scale = fitted_scale(near)
    sure = torch.sigmoid(torch.tensor(scale * (near[0][0] @ near[0][1] - near[0][0] @ near[1][1:].mean(0)).item()))
    assert 0.75 < float(sure) < 0.85  # (n + 1) / (n + 2) of three examples, not 1
    assert scale < 10


def test_neither_batch_size_nor_order_changes_a_score(tiny_clip: str, folders: dict[str, str]) -> None:
    images = mosaics(32, 9)
    prompts = [["dark, cat", "a light cat", "Plain cat"][i % 3] for i in range(32)]
    reward = Classifier(examples=folders, model=tiny_clip)
    whole = reward(images, prompts)
    for size in (1, 7):
        parts = [reward(images[i : i + size], prompts[i : i + size]) for i in range(0, 32, size)]
        torch.testing.assert_close(torch.cat(parts), whole, atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(reward(images[::-1], prompts[::-1]), whole.flip(0), atol=1e-4, rtol=1e-5)


def test_pictures_and_texts_are_in_the_key(tiny_clip: str, folders: dict[str, str]) -> None:
    def key(**arguments: Any) -> str:
        return load_reward("classifier", model=tiny_clip, **arguments).key()

    some = {name: folders[name] for name in ("dark", "light")}
    keys = [key(), key(styles=["flat", "ink"]), key(styles={"flat": "flat", "ink": "pen"}), key(examples=folders)]
    keys += [key(examples=some), key(examples=some, style="dark")]
    assert len(set(keys)) == len(keys)
    before = key(examples=some)
    first = Path(some["dark"]) / "0.png"
    kept = first.read_bytes()
    mosaics(1, 99, high=90)[0].save(first)
    after = key(examples=some)
    first.write_bytes(kept)
    assert after != before == key(examples=some)


def test_what_is_refused(tiny_clip: str, folders: dict[str, str], tmp_path: Path) -> None:
    dark, twin = folders["dark"], save(mosaics(4, 0, high=90)[:3], tmp_path / "twin")
    shown = mosaics(4, 50)
    like = {"a": save(shown, tmp_path / "a")}
    for image in shown:  # nearer to its twin in the other folder than to its own kind
        image.putpixel((0, 0), (0, 0, 0))
    like["b"] = save(shown, tmp_path / "b")
    cases: list[tuple[dict[str, Any], str]] = [
        ({"styles": ["flat", "ink"], "examples": folders}, "use two rewards in one list"),
        ({"styles": ["flat"]}, "`styles` names two or more styles"),
        ({"styles": "flat"}, "`styles` names two or more styles"),
        ({"styles": ["flat", "flat"]}, "`styles` names two or more styles"),
        ({"styles": {"flat": "flat", "ink": []}}, "`styles: ink` is a text or a list of different texts"),
        ({"examples": {"dark": dark}}, "`examples` names two or more styles"),
        ({"examples": [dark, twin]}, "`examples` names two or more styles"),
        ({"examples": {"dark": dark, "b": str(tmp_path / "no")}}, "`examples: b` is a folder.*no is not there"),
        ({"examples": {"dark": dark, "b": twin}}, "a picture is in the examples both of 'dark' and of 'b'"),
        ({"examples": like}, "cannot tell the example pictures of the styles apart"),
    ]
    for arguments, said in cases:
        with pytest.raises(RewardError, match=said):
            Classifier(model=tiny_clip, **arguments)
    with pytest.raises(UnknownName, match=r"unknown style 'darc'.*Did you mean 'dark'"):
        Classifier("darc", examples=folders, model=tiny_clip)
    with pytest.raises(UnknownName, match=r"unknown style '1990'"):
        Classifier(1990, ["1980s", "1990s"], model=tiny_clip)  # type: ignore[arg-type]
    with pytest.raises(RewardError, match=r"names no style\. Put one of dark, light, plain"):
        Classifier(examples=folders, model=tiny_clip)(mosaics(1, 5), ["a cat"])
    with pytest.raises(RewardError, match=r"the prompt 'a cat' names no style"):  # before anything is drawn
        Classifier(examples=folders, model=tiny_clip).check_prompts(["dark cat", "a cat"])
    Classifier("dark", examples=folders, model=tiny_clip).check_prompts(["a cat"])
