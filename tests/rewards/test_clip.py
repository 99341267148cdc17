"""clip and style: their preprocessing, their numbers, and what they say when something is missing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from tiny_clip import save_tiny_clip
from transformers import CLIPImageProcessorPil, CLIPModel, CLIPTokenizer

from pagopt.errors import PagoptError, RewardError, UnknownName
from pagopt.reward import load_reward
from pagopt_rewards.clip import Clip
from pagopt_rewards.encoder import Encoder, preprocess
from pagopt_rewards.style import Style

PROMPTS = ["flat, red apple", "ink, cat", "a glossy rocket", "", "ink, red apple", "glossy, cat", "flat, cat"]


@torch.no_grad()
def reference(folder: str, images: list[Image.Image], texts: list[str]) -> torch.Tensor:
    """Cosines (images, texts) by transformers alone, one at a time."""
    model, tokenizer = CLIPModel.from_pretrained(folder), CLIPTokenizer.from_pretrained(folder)
    processor = CLIPImageProcessorPil.from_pretrained(folder)
    pixels = [processor(image, return_tensors="pt")["pixel_values"] for image in images]
    tokens = [tokenizer([text], return_tensors="pt") for text in texts]
    seen = [model(pixel_values=each, **tokens[0]).image_embeds for each in pixels]
    read = [model(pixel_values=pixels[0], **each).text_embeds for each in tokens]
    return torch.cat(seen) @ torch.cat(read).T


@pytest.mark.parametrize("size", [(64, 64), (32, 32), (64, 48), (40, 96), (33, 35), (7, 50), (300, 201)])
@pytest.mark.parametrize(
    "change",
    [{}, {"size": {"height": 20, "width": 24}}, {"do_center_crop": False, "size": {"height": 32, "width": 32}}],
)
def test_preprocessing_is_that_of_transformers(size: tuple[int, int], change: dict[str, object]) -> None:
    settings = {
        "size": {"shortest_edge": 32},
        "crop_size": {"height": 32, "width": 32},
        "image_mean": [0.5, 0.4, 0.3],
        "image_std": [0.2, 0.3, 0.4],
        **change,
    }
    image = Image.effect_noise(size, 90).convert("RGB").quantize(40).convert("RGB")
    expected = CLIPImageProcessorPil(**settings)(image, return_tensors="pt")["pixel_values"][0]
    torch.testing.assert_close(preprocess(image, settings), expected, atol=2e-6, rtol=1e-6)


def test_clip_is_100_times_the_cosine(tiny_clip: str, pictures: list[Image.Image]) -> None:
    expected = 100 * reference(tiny_clip, pictures, PROMPTS).diagonal()
    torch.testing.assert_close(Clip(tiny_clip)(pictures, PROMPTS), expected, atol=1e-4, rtol=1e-5)


def test_style_is_the_distance_from_the_other_styles(tiny_clip: str, pictures: list[Image.Image]) -> None:
    cosines = 100 * reference(tiny_clip, pictures, ["flat", "glossy", "ink"])
    fixed = Style("glossy", model=tiny_clip)(pictures, [""] * 7)
    torch.testing.assert_close(fixed, cosines[:, 1] - cosines[:, [0, 2]].mean(1), atol=1e-4, rtol=1e-5)
    own = Style(model=tiny_clip)(pictures[:3], ["flat, ink pot", "Ink, flat shoe", "an inky glossy cat"])
    rows = [cosines[0, 0] - cosines[0, 1:].mean(), cosines[1, 2] - cosines[1, :2].mean()]
    rows.append(cosines[2, 1] - cosines[2, [0, 2]].mean())
    torch.testing.assert_close(own, torch.stack(rows), atol=1e-4, rtol=1e-5)


def test_texts_are_computed_once(tiny_clip: str, pictures: list[Image.Image], monkeypatch: pytest.MonkeyPatch) -> None:
    reward, seen = Clip(tiny_clip), []
    whole = reward.encoder.model.get_text_features

    def counted(input_ids: torch.Tensor, attention_mask: torch.Tensor) -> object:
        seen.append(len(input_ids))
        return whole(input_ids=input_ids, attention_mask=attention_mask)

    monkeypatch.setattr(reward.encoder.model, "get_text_features", counted)
    reward(pictures[:4], ["a", "b", "a", "b"])
    reward(pictures[:2], ["b", "c"])
    assert seen == [2, 1]


def test_a_long_prompt_is_cut_as_the_model_needs(tiny_clip: str, pictures: list[Image.Image]) -> None:
    assert Clip(tiny_clip)(pictures[:1], ["flat " * 50]).isfinite().all()


def test_a_prompt_without_a_style_is_named(tiny_clip: str, pictures: list[Image.Image]) -> None:
    with pytest.raises(RewardError, match=r"'an inky cat' names no style.*flat, glossy, ink") as caught:
        Style(model=tiny_clip)(pictures[:2], ["flat, cat", "an inky cat"])
    assert (caught.value.reward, caught.value.index, caught.value.prompt) == ("style", 1, "an inky cat")


def test_styles_are_checked(tiny_clip: str, tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match=r"unknown style 'glosy'.*Did you mean 'glossy'"):
        Style("glosy", model=tiny_clip)
    with pytest.raises(RewardError, match="two or more"):
        Style(styles=["flat"], model=tiny_clip)
    with pytest.raises(RewardError, match="two or more"):
        Style(styles="flat", model=tiny_clip)
    bare = shutil.copytree(tiny_clip, tmp_path / "a" / "bare")
    (bare / "styles.json").unlink()
    with pytest.raises(RewardError, match="`styles` must list"):
        Style(model=str(bare))
    assert Style("photo", ["photo", "3d render"], str(bare)).styles == ["photo", "3d render"]
    (tmp_path / "a" / "styles.json").write_text(json.dumps({"styles": ["b", "c"]}))
    assert Style(model=str(bare)).styles == ["b", "c"]
    (bare / "styles.json").write_text("[]")
    with pytest.raises(RewardError, match="damaged"):
        Style(model=str(bare))


def test_a_missing_or_broken_model_says_what_it_takes(tiny_clip: str, tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="emoji"):
        Clip("emojy")
    with pytest.raises(PagoptError, match="config"):
        Clip(str(tmp_path))
    broken = shutil.copytree(tiny_clip, tmp_path / "broken")
    (broken / "model.safetensors").write_bytes(b"\0" * 100)
    with pytest.raises(RewardError, match=r"cannot load a CLIP model.*model\.safetensors"):
        Clip(str(broken))
    wrong = shutil.copytree(tiny_clip, tmp_path / "wrong")
    (wrong / "preprocessor_config.json").write_text(json.dumps({"crop_size": {"height": 16, "width": 16}}))
    with pytest.raises(RewardError, match=r"images of \(3, 16, 16\)"):
        Clip(str(wrong))


def test_without_a_network_a_hub_id_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def refuse(*_: object, **__: object) -> str:
        raise OSError("no network")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(RewardError, match=r"the hub does not give 'someone/clip': OSError: no network.*the folder"):
        Clip("someone/clip")


def test_other_weights_have_another_key(tiny_clip: str, tmp_path: Path) -> None:
    copy = shutil.copytree(tiny_clip, tmp_path / "copy")
    first = Encoder(str(copy)).fingerprint
    assert first == Encoder(tiny_clip).fingerprint
    key = load_reward("pagopt_rewards.clip:Clip", model=str(copy)).key()
    save_tiny_clip(copy, seed=1)
    assert Encoder(str(copy)).fingerprint != first
    assert load_reward("pagopt_rewards.clip:Clip", model=str(copy)).key() != key


def test_large_files_are_sampled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pagopt_rewards import encoder

    monkeypatch.setattr(encoder, "WHOLE", 1000)
    weights = tmp_path / "model.safetensors"
    seen = set()
    for value in (b"\0", b"\1"):
        weights.write_bytes(bytes(2**21) + value * 2**21)
        seen.add(encoder.folder_fingerprint(tmp_path))
    assert len(seen) == 2


def test_preprocessor_settings_may_be_in_the_processor_file(tiny_clip: str, tmp_path: Path) -> None:
    copy = shutil.copytree(tiny_clip, tmp_path / "copy")
    settings = json.loads((copy / "preprocessor_config.json").read_text())
    (copy / "preprocessor_config.json").unlink()
    assert Encoder(str(copy)).preparation["image_mean"] != settings["image_mean"]  # CLIP's own
    (copy / "processor_config.json").write_text(json.dumps({"image_processor": settings}))
    assert Encoder(str(copy)).preparation["image_mean"] == settings["image_mean"]
