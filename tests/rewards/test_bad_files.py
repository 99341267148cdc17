"""What a user can give a reward that is not what it should be: nothing is run, and the error says what to do."""

from __future__ import annotations

import logging
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from published import save_hps, save_improved
from tiny_clip import save_tiny_clip
from tiny_imagereward import save_tiny_imagereward

from pagopt.errors import RewardError
from pagopt.reward import load_reward
from pagopt_rewards.towers import absent

# How a folder of each reward is made, and the argument that names it.
FILES: dict[str, tuple[str, Callable[[Path], Any], str]] = {
    "hps": ("weights", save_hps, "HPS_v2.1_compressed.pt"),
    "imagereward": ("weights", save_tiny_imagereward, "ImageReward.pt"),
    "pickscore": ("weights", save_tiny_clip, "model.safetensors"),
    "clip": ("model", save_tiny_clip, "model.safetensors"),
    "contrast": ("model", save_tiny_clip, "model.safetensors"),
    "style": ("model", save_tiny_clip, "model.safetensors"),
    "classifier": ("model", save_tiny_clip, "model.safetensors"),
    "aesthetic": ("weights", lambda folder: save_improved(folder, 16), "sac+logos+ava1-l14-linearMSE.pth"),
}


class Code:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.fixture(params=FILES)
def made(request: pytest.FixtureRequest, tiny_clip: str, tmp_path: Path) -> tuple[str, dict[str, Any], Path]:
    """A reward's name, arguments with which it can be made, and the file with its weights."""
    argument, make, file = FILES[request.param]
    folder = tmp_path / "weights"
    folder.mkdir()
    make(folder)
    further = {"aesthetic": {"model": tiny_clip}}.get(request.param, {})
    return request.param, {argument: str(folder), **further}, folder / file


def test_code_in_a_checkpoint_is_never_run(made: tuple[str, dict[str, Any], Path], tmp_path: Path) -> None:
    name, arguments, file = made
    load_reward(name, **arguments)  # it is a good one so far
    ran = tmp_path / "ran"
    file.unlink()
    # Where only safetensors are read, a pickle beside them is what an old repository on the hub holds.
    place = file.with_name("pytorch_model.bin") if file.suffix == ".safetensors" else file
    torch.save({"state_dict": {"a": Code(ran)}}, place)
    with pytest.raises(RewardError, match=r"holds more than tensors|model\.safetensors"):
        load_reward(name, **arguments)
    with place.open("wb") as plain:  # older than torch's own format
        pickle.dump(Code(ran), plain)
    with pytest.raises(RewardError, match=r"holds more than tensors|cannot read|model\.safetensors"):
        load_reward(name, **arguments)
    assert not ran.exists()
    with place.open("rb") as plain:
        pickle.load(plain)
    assert ran.exists()  # it would have


def test_a_missing_checkpoint_says_what_goes_where(made: tuple[str, dict[str, Any], Path], tmp_path: Path) -> None:
    name, arguments, _ = made
    argument = FILES[name][0]
    for place in (tmp_path / "nowhere", tmp_path / "nowhere.pt"):
        with pytest.raises(RewardError, match=r"there is no (checkpoint|folder) .*nowhere.*([Gg]ive|`model` is)"):
            load_reward(name, **{**arguments, argument: str(place)})


def test_a_truncated_checkpoint_is_refused(made: tuple[str, dict[str, Any], Path]) -> None:
    name, arguments, file = made
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(RewardError, match=r"cannot (read|load)"):
        load_reward(name, **arguments)


def test_a_truncated_picture_is_named(tiny_clip: str, tmp_path: Path) -> None:
    whole = Image.effect_noise((64, 64), 90).convert("RGB")
    for mode in ("RGB", "RGBA", "L"):
        whole.convert(mode).save(tmp_path / "whole.png")
        data = (tmp_path / "whole.png").read_bytes()
        (tmp_path / "cut.png").write_bytes(data[: len(data) // 2])
        for name, arguments in (("brightness", {}), ("clip", {"model": tiny_clip})):
            with Image.open(tmp_path / "cut.png") as cut, pytest.raises(RewardError) as caught:
                load_reward(name, **arguments)([whole, cut], ["a", "b"])
            assert caught.value.index == 1
            assert "image 2 cannot be read: image file is truncated" in str(caught.value)


@pytest.mark.skipif(bool(absent()), reason=absent())
def test_the_judge_says_what_it_cuts(caplog: pytest.LogCaptureFixture) -> None:
    judge, image = load_reward("judge"), [Image.new("RGB", (64, 64), "red")]
    long, fits = "apple " * 254 + "Pear Tree", "apple " * 254
    with caplog.at_level(logging.WARNING):
        scores = [judge(image, [text]).item() for text in (fits, long, long)]
    assert scores[0] == pytest.approx(scores[1], abs=1e-4)
    (said,) = [message for message in caplog.messages if "a prompt has" in message]
    assert said.startswith("a prompt has more than the 254 tokens that the text model reads")
    assert "leaves out 'Pear Tree' of 'apple apple" in said
