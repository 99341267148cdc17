"""pickscore: the authors' few lines on a tiny model of the real class."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from published import cache_on_hub
from tiny_clip import save_tiny_clip
from transformers import CLIPImageProcessorPil, CLIPModel, CLIPTokenizer

from pagopt.errors import RewardError
from pagopt.reward import load_reward
from pagopt_rewards.pickscore import PickScore

PROMPTS = ["flat, red apple", "ink, cat", "a glossy rocket", "", "ink, red apple", "glossy, cat", "flat, cat"]


@torch.no_grad()
def authors(folder: str, images: list[Image.Image], prompt: str) -> torch.Tensor:
    """As in the README of yuvalkirstain/PickScore: all images for one prompt."""
    model, tokenizer = CLIPModel.from_pretrained(folder).eval(), CLIPTokenizer.from_pretrained(folder)
    pixels = CLIPImageProcessorPil.from_pretrained(folder)(images, return_tensors="pt")["pixel_values"]
    tokens = tokenizer(prompt, padding=True, truncation=True, max_length=24, return_tensors="pt")
    seen = model.get_image_features(pixel_values=pixels).pooler_output
    read = model.get_text_features(**tokens).pooler_output
    seen, read = (each / torch.norm(each, dim=-1, keepdim=True) for each in (seen, read))
    return model.logit_scale.exp() * (read @ seen.T)[0]


def sized(*sizes: tuple[int, int]) -> list[Image.Image]:
    return [Image.effect_noise(size, 90).convert("RGB").quantize(40).convert("RGB") for size in sizes]


def test_scores_are_the_authors(tiny_clip: str, pictures: list[Image.Image]) -> None:
    # 35 at 32: half the margin is rounded down here, and up by torchvision.
    images = [*pictures, *sized((35, 32), (32, 39), (300, 201))]
    reward = PickScore(tiny_clip)
    for prompt in PROMPTS[:3]:
        torch.testing.assert_close(reward(images, [prompt] * 10), authors(tiny_clip, images, prompt), atol=2e-5, rtol=0)
    mixed = reward(pictures, PROMPTS)
    assert mixed[2].item() == pytest.approx(authors(tiny_clip, pictures, PROMPTS[2])[2].item(), abs=2e-5)
    half = PickScore(tiny_clip, dtype="bfloat16")(pictures, PROMPTS)
    assert 0 < (half - mixed).abs().max() < 0.1 * reward.encoder.scale


def test_weights_and_processor_may_be_apart(tiny_clip: str, tmp_path: Path, pictures: list[Image.Image]) -> None:
    model, words = tmp_path / "model", tmp_path / "words"
    model.mkdir()
    words.mkdir()
    for file in Path(tiny_clip).iterdir():
        shutil.copy(file, (model if file.name in {"config.json", "model.safetensors"} else words) / file.name)
    together = load_reward("pagopt_rewards.pickscore:PickScore", weights=tiny_clip)(pictures, PROMPTS)
    for weights in (model, model / "model.safetensors"):
        apart = load_reward("pagopt_rewards.pickscore:PickScore", weights=str(weights), processor=str(words))
        assert torch.equal(apart(pictures, PROMPTS), together)
    key = apart.key()
    settings = json.loads((words / "preprocessor_config.json").read_text())
    (words / "preprocessor_config.json").write_text(json.dumps({**settings, "image_mean": [0.1, 0.2, 0.3]}))
    other = load_reward("pagopt_rewards.pickscore:PickScore", weights=str(weights), processor=str(words))
    assert other.key() != key
    with pytest.raises(RewardError, match=r"holds no tokenizer .*which the model in .* needs"):
        PickScore(str(model), processor=str(model))


def test_the_hubs_cache_is_enough(tiny_clip: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "model.safetensors of yuvalkirstain/PickScore_v1 (3.9 GB) is not here" in PickScore.missing()
    with pytest.raises(RewardError, match=r"the hub does not give 'yuvalkirstain/PickScore_v1'.*give the folder"):
        PickScore()
    files = {path.name: path for path in Path(tiny_clip).iterdir()}
    cache_on_hub(tmp_path, "yuvalkirstain/PickScore_v1", files["config.json"], files["model.safetensors"])
    assert "laion/CLIP-ViT-H-14" in PickScore.missing()
    with pytest.raises(RewardError, match=r"does not give 'laion/CLIP.*as `processor`"):
        PickScore()
    tokenizer = CLIPTokenizer.from_pretrained(tiny_clip)
    vocabulary, merges = tmp_path / "vocab.json", tmp_path / "merges.txt"
    vocabulary.write_text(json.dumps(tokenizer.get_vocab()))
    merges.write_text("#version: 0.2\n")
    processor = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"
    names = ("tokenizer.json", "tokenizer_config.json", "preprocessor_config.json")
    cache_on_hub(tmp_path, processor, vocabulary, merges, *(files[name] for name in names))
    assert PickScore.missing() == ""
    image = sized((64, 64))
    assert torch.equal(PickScore()(image, ["a cat"]), PickScore(tiny_clip)(image, ["a cat"]))


def test_other_weights_are_another_key(tiny_clip: str, tmp_path: Path) -> None:
    other = save_tiny_clip(tmp_path, seed=1)
    keys = {load_reward("pagopt_rewards.pickscore:PickScore", weights=str(place)).key() for place in (tiny_clip, other)}
    assert len(keys) == 2
    shutil.copy(Path(tiny_clip) / "model.safetensors", other / "model.safetensors")
    again = PickScore(str(other)).identity()
    assert again == PickScore(tiny_clip).identity()


def test_a_file_of_another_name_is_not_taken_for_its_neighbour(tiny_clip: str, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_clip, tmp_path / "copy")
    shutil.copy(folder / "model.safetensors", folder / "tuned.safetensors")
    with pytest.raises(RewardError, match=r"the weights are model\.safetensors beside a config\.json, not tuned"):
        PickScore(str(folder / "tuned.safetensors"))
