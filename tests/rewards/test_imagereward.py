"""imagereward: the official numbers, an independent calculation in float64, and what it says of wrong files."""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from plain_imagereward import Reference, cropped
from safetensors.torch import save_file
from tiny_imagereward import (
    PROMPTS,
    VOCABULARY,
    on_white,
    save_tiny_imagereward,
    tiny_state,
    twelve_pictures,
)
from torch import Tensor

from pagopt.errors import RewardError
from pagopt.reward import Reward, load_reward
from pagopt.testing import RewardContract
from pagopt_rewards.imagereward import FILE, REPOSITORY, WORDS, ImageReward
from pagopt_rewards.imagereward import VOCABULARY as VOCABULARY_FILE
from pagopt_rewards.preprocessing import preprocess

RECORD = json.loads((Path(__file__).parent / "data" / "imagereward.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_imagereward(tmp_path_factory.mktemp("imagereward"))


@pytest.fixture(scope="module")
def reward(folder: Path) -> ImageReward:
    return ImageReward(str(folder))


@pytest.fixture(scope="module")
def pictures() -> list[Image.Image]:
    return twelve_pictures()


def test_scores_are_those_of_the_official_package(reward: ImageReward, pictures: list[Image.Image]) -> None:
    """Recorded with image-reward 1.5; the picture with transparency went to it on white, as pagopt puts it."""
    torch.testing.assert_close(reward(pictures, PROMPTS), torch.tensor(RECORD["scores"]), atol=1e-5, rtol=0)
    assert np.std(RECORD["scores"]) > 0.05  # so that equal is not just alike


def test_tokens_are_those_of_the_official_package(reward: ImageReward) -> None:
    assert [reward.tokenize(prompt) for prompt in PROMPTS] == RECORD["tokens"]
    assert max(map(len, RECORD["tokens"])) == 35


def test_pixels_are_those_of_the_official_package(reward: ImageReward, pictures: list[Image.Image]) -> None:
    """torchvision's, whose crop begins elsewhere than transformers' when an odd number of pixels is cut off."""
    differ = 0
    for image, moments, corner in zip(pictures, RECORD["pixels"], RECORD["corner"], strict=True):
        pixels = preprocess(on_white(image), reward._settings, "torchvision")
        found = torch.stack([pixels.double().mean(), pixels.double().std()])
        torch.testing.assert_close(found, torch.tensor(moments, dtype=torch.float64), atol=1e-6, rtol=0)
        torch.testing.assert_close(pixels[:, 0, 0], torch.tensor(corner), atol=1e-6, rtol=0)
        torch.testing.assert_close(pixels.double(), cropped(on_white(image)), atol=1e-6, rtol=0)
        differ += not torch.equal(pixels, preprocess(on_white(image), reward._settings, "transformers"))
    assert differ


def test_scores_are_those_of_a_plain_calculation_in_float64(reward: ImageReward, pictures: list[Image.Image]) -> None:
    reference = Reference(tiny_state())
    expected = [
        reference.score(cropped(on_white(image)), tokens)
        for image, tokens in zip(pictures, RECORD["tokens"], strict=True)
    ]
    torch.testing.assert_close(reward(pictures, PROMPTS).double(), torch.tensor(expected).double(), atol=1e-5, rtol=0)


def test_one_layer_with_cross_attention(reward: ImageReward) -> None:
    noise = torch.Generator().manual_seed(0)
    words, seen = torch.randn(5, 64, generator=noise), torch.randn(17, 128, generator=noise)
    found = reward.blip.text.encoder.layer[1](words[None], encoder_hidden_states=seen[None])[0]
    expected = Reference(tiny_state()).layer(1, words.double(), seen.double())
    torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=1e-5)


def test_both_the_picture_and_the_prompt_count(reward: ImageReward, pictures: list[Image.Image]) -> None:
    prompts = ["a red apple"] * 3 + ["a cat"] * 3
    scores = reward([*pictures[1:4], *pictures[1:4]], prompts)
    assert scores.unique().numel() == 6


class Contract(RewardContract):
    prompts = (*PROMPTS[:4], PROMPTS[0])

    def encoded(self, reward: Reward) -> int | None:
        assert isinstance(reward, ImageReward)
        return reward.split  # type: ignore[attr-defined, no-any-return]


def test_it_keeps_the_contract_of_rewards(folder: Path, tmp_path: Path) -> None:
    """Batches of 1, 7 and 32, order, modes, keys, and each distinct prompt split into tokens once, among others."""

    class Counted(ImageReward):
        """ImageReward that counts."""

        split = 0

        def tokenize(self, prompt: str) -> list[int]:
            self.split += 1
            return super().tokenize(prompt)

    class Mine(Contract):
        reward = Counted
        arguments = MappingProxyType({"weights": str(folder)})
        other_arguments = ({"dtype": "bfloat16"}, {"weights": str(save_tiny_imagereward(tmp_path, seed=1))})

    Mine().check()


def test_a_long_prompt_is_cut_and_it_says_so_once(
    folder: Path, pictures: list[Image.Image], caplog: pytest.LogCaptureFixture
) -> None:
    reward = ImageReward(str(folder))
    fits, long = "apple " * 33, "apple " * 33 + "red  Apple"
    with caplog.at_level(logging.WARNING, "pagopt.rewards"):
        kept = reward(pictures[:1], [fits])
        assert not caplog.records
        cut = reward([pictures[0]] * 2, [long, long])
        reward(pictures[:1], [long])
    assert [record.getMessage() for record in caplog.records] == [
        f"a prompt has more than the 33 tokens that the text model reads: its score leaves out 'red  Apple' of {long!r}"
    ]
    torch.testing.assert_close(cut, kept.expand(2), atol=1e-6, rtol=0)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision(folder: Path, reward: ImageReward, pictures: list[Image.Image], dtype: str) -> None:
    half = ImageReward(str(folder), dtype=dtype)
    assert half.blip.vision.dtype == half.blip.text.dtype == getattr(torch, dtype)
    assert half.head[0].weight.dtype == torch.float32
    scores, whole = half(pictures, PROMPTS), reward(pictures, PROMPTS)
    assert scores.dtype == torch.float32
    torch.testing.assert_close(scores, whole, atol=0.05, rtol=0)
    assert not torch.equal(scores, whole)


def test_it_moves_as_a_whole(folder: Path) -> None:
    reward = ImageReward(str(folder))
    reward.move(torch.device("meta"))
    modules = (reward.blip.vision, reward.blip.text, reward.head)
    places = {each.device.type for module in modules for each in (*module.parameters(), *module.buffers())}
    assert places == {"meta"}


def test_a_safetensors_file_and_a_path_of_their_own(
    folder: Path, reward: ImageReward, pictures: list[Image.Image], tmp_path: Path
) -> None:
    save_file(tiny_state(), tmp_path / "mine.safetensors")
    words = str(folder / VOCABULARY_FILE)
    for tokenizer in (words, str(folder)):
        other = ImageReward(str(tmp_path / "mine.safetensors"), tokenizer)
        assert torch.equal(other(pictures, PROMPTS), reward(pictures, PROMPTS))


def test_the_key_follows_weights_and_vocabulary(folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    same = ImageReward(str(copy)).identity()
    assert same == ImageReward(str(folder)).identity()
    save_tiny_imagereward(copy, seed=1)
    weights = ImageReward(str(copy)).identity()
    (copy / VOCABULARY_FILE).write_text("\n".join([*VOCABULARY[:-1], "##esque", ""]), encoding="utf-8")
    assert len({same, weights, ImageReward(str(copy)).identity()}) == 3


def test_published_files_come_from_the_hub_s_cache(
    folder: Path, reward: ImageReward, pictures: list[Image.Image], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    def refuse(*_: object, **__: object) -> str:
        raise OSError("no network")

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", refuse)
    assert ImageReward.missing() == f"{FILE} of {REPOSITORY} (1.8 GB) is not here yet: downloaded on first use"
    with pytest.raises(RewardError, match=r"does not give ImageReward\.pt of THUDM/ImageReward.*no network.*`weights`"):
        ImageReward()
    bare = tmp_path / "bare"
    bare.mkdir()
    shutil.copy(folder / FILE, bare)
    with pytest.raises(
        RewardError, match=r"no tokenizer: no network.*put vocab\.txt of .*bert-base-uncased into .*bare"
    ):
        ImageReward(str(bare))
    for repository, file in ((REPOSITORY, FILE), (WORDS, VOCABULARY_FILE)):
        home = tmp_path / f"models--{repository.replace('/', '--')}"
        (home / "refs").mkdir(parents=True)
        (home / "refs" / "main").write_text("abc")
        (home / "snapshots" / "abc").mkdir(parents=True)
        shutil.copy(folder / file, home / "snapshots" / "abc")
    assert ImageReward.missing() == ""
    assert torch.equal(load_reward("imagereward")(pictures, PROMPTS), reward(pictures, PROMPTS))


def test_what_is_missing_is_told_without_transformers() -> None:
    code = (
        "import sys; from pagopt_rewards.imagereward import ImageReward; ImageReward.missing(); "
        "print(*sorted({'transformers', 'tokenizers', 'lightning'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "", "")


def test_missing_files_say_which(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(RewardError, match=r"no checkpoint .*ImageReward\.pt\. Download ImageReward\.pt from .*THUDM"):
        ImageReward(str(tmp_path))
    with pytest.raises(RewardError, match=r"no checkpoint .*vocab\.txt\. Download vocab\.txt from .*bert-base-uncased"):
        ImageReward(str(folder), tokenizer=str(tmp_path))
    with pytest.raises(RewardError, match=r"dtype is one of float32, bfloat16, float16, not 'int8'"):
        ImageReward(str(folder), dtype="int8")


def without(name: str) -> dict[str, Tensor]:
    state = tiny_state()
    del state[name]
    return state


LAYER = "blip.text_encoder.encoder.layer.1"


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"text_projection": torch.zeros(4, 4)}, r"there is no blip\.visual_encoder\.patch_embed\.proj\.weight"),
        (without(f"{LAYER}.crossattention.self.key.bias"), r"1 of 86 tensors are missing \(.*crossattention.self.key"),
        (
            {**tiny_state(), "blip.visual_encoder.blocks.0.ls1": torch.ones(1)},
            r"1 of \d+ .*do not belong.*blocks\.0\.ls1",
        ),
        ({**tiny_state(), f"{LAYER}.output.dense.bias": torch.zeros(65)}, r"dense\.bias \(65,\) instead of \(64,\)"),
        (without("mlp.layers.4.bias"), r"mlp\.layers\.\* must lead from 64 numbers to one, and are \{'mlp\.layers\.0"),
        (without("mlp.layers.7.weight"), r"must lead from 64 numbers to one"),
        (
            {**tiny_state(), "blip.text_encoder.embeddings.word_embeddings.weight": torch.zeros(103, 72)},
            r"its width 72 is no multiple of an attention head's, 64",
        ),
        (
            {**tiny_state(), "blip.text_encoder.embeddings.word_embeddings.weight": torch.zeros(104, 64)},
            r"vocab\.txt with \[DEC\] and \[ENC\] has 102 tokens, and .* knows 104",
        ),
        (
            {**tiny_state(), "blip.text_encoder.embeddings.position_embeddings.weight": torch.zeros(34, 64)},
            r"texts of up to 34 \(35 are needed\)",
        ),
    ],
)
def test_another_model_s_checkpoint_is_refused(
    folder: Path, tmp_path: Path, state: dict[str, Any], message: str
) -> None:
    torch.save(state, tmp_path / FILE)
    with pytest.raises(RewardError, match=message):
        ImageReward(str(tmp_path), tokenizer=str(folder))


class Code:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("ran"),))


def test_a_checkpoint_with_code_is_refused_unrun(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"mlp.layers.0.weight": Code()}, tmp_path / FILE)
    with pytest.raises(RewardError, match="pagopt refuses it"):
        ImageReward(str(tmp_path), tokenizer=str(folder))
    assert not Path("ran").exists()
    (tmp_path / FILE).write_bytes((folder / FILE).read_bytes()[:5000])
    with pytest.raises(RewardError, match=r"cannot read .*ImageReward\.pt as a checkpoint"):
        ImageReward(str(tmp_path), tokenizer=str(folder))


def test_a_damaged_vocabulary_is_named(folder: Path, tmp_path: Path) -> None:
    (tmp_path / VOCABULARY_FILE).write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RewardError, match=r"cannot read the vocabulary .*vocab\.txt"):
        ImageReward(str(folder), tokenizer=str(tmp_path))
