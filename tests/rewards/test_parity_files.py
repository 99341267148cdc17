"""The files that benchmarks.reward_parity makes are those that are published: a small twin of its run."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from published import save_letters
from transformers import AutoModel, AutoProcessor

from benchmarks.reward_parity import PROMPTS, pictures
from benchmarks.reward_parity_checkpoints import PICKSCORE, save_hub, save_pickscore
from pagopt.errors import RewardError
from pagopt_rewards.pickscore import PickScore
from pagopt_rewards.weights import checkpoint

MERGES = ("a p", "r e", "ap p", "app l", "appl e</w>", "re d</w>")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("pickscore")
    config: dict[str, Any] = copy.deepcopy(PICKSCORE)
    small = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    config["projection_dim"] = 16
    config["text_config"] |= {**small, "vocab_size": 512 + 2 + len(MERGES)}
    config["vision_config"] |= small
    save_pickscore(place, save_letters(place, *MERGES), config=config)
    (place / "bpe_simple_vocab_16e6.txt.gz").unlink()
    return place


@torch.no_grad()
def readme(folder: Path, images: list[Image.Image], prompts: list[str]) -> torch.Tensor:
    """The lines of PickScore's README, with what transformers 5 changed in them, and Pillow even beside torchvision."""
    processor, model = AutoProcessor.from_pretrained(folder, backend="pil"), AutoModel.from_pretrained(folder).eval()
    options = {"padding": True, "truncation": True, "max_length": 77, "return_tensors": "pt"}
    found = []
    for image, prompt in zip(images, prompts, strict=True):
        seen = model.get_image_features(**processor(images=image.convert("RGB"), **options)).pooler_output
        read = model.get_text_features(**processor(text=prompt, **options)).pooler_output
        seen, read = (each / torch.norm(each, dim=-1, keepdim=True) for each in (seen, read))
        found.append((model.logit_scale.exp() * (read @ seen.T))[0, 0])
    return torch.stack(found)


def test_scores_are_those_of_the_readme(folder: Path) -> None:
    images = [image.convert("RGB") for image in pictures()]
    prompts = [PROMPTS[at % len(PROMPTS)] for at in range(len(images))]
    scores = PickScore(str(folder))(images, prompts)
    assert scores.std() > 1
    torch.testing.assert_close(scores, readme(folder, images, prompts), atol=3e-5, rtol=0)


def test_merges_are_those_of_the_file(folder: Path) -> None:
    tokenizer = AutoProcessor.from_pretrained(folder).tokenizer
    assert tokenizer("Red apple").input_ids == [518, 512 + 5, 512 + 4, 519]


def test_the_hub_is_asked_and_answers_from_links(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(RewardError, match=r"the hub does not give a\.txt of owner/name"):
        checkpoint(None, "owner/name", "a.txt")
    for _ in range(2):  # again over what is there
        save_hub(tmp_path, "owner/name", {"a.txt": "words", "model.safetensors": folder / "model.safetensors"})
    assert checkpoint(None, "owner/name", "a.txt").read_text() == "words"
    linked = checkpoint(None, "owner/name", "model.safetensors")
    assert linked.read_bytes() == (folder / "model.safetensors").read_bytes()
