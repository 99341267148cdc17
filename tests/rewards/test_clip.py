"""clip and its encoder: preprocessing, numbers, and what is said when something is missing, cut or wrong."""

from __future__ import annotations

import json
import logging
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
from pagopt_rewards.encoder import Encoder
from pagopt_rewards.preprocessing import preprocess

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


def test_a_long_prompt_is_cut_and_that_is_said_once(
    tiny_clip: str, pictures: list[Image.Image], caplog: pytest.LogCaptureFixture
) -> None:
    reward, texts = Clip(tiny_clip), ["flat, flat, flat, flat, at no", "A Big Red Apple, and Another"]
    long = reward(pictures[:2], texts)  # a letter is a token, and there is room for 22
    assert torch.equal(reward(pictures[:2], texts), long)
    assert long[0].item() == pytest.approx(reward(pictures[:1], ["flat, flat, flat, flat, at"]).item(), abs=1e-4)
    first, second = caplog.messages
    assert first.startswith("a prompt has more than the 22 tokens that the text model reads")
    assert first.endswith("leaves out 'no' of 'flat, flat, flat, flat, at no'")
    assert second.endswith("leaves out 'r' of 'A Big Red Apple, and Another'")  # in the user's own letters


def test_a_long_prompt_brings_no_warning_of_errors_that_do_not_come(
    tiny_clip: str, pictures: list[Image.Image], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("transformers"), "handlers", [caplog.handler])
    Clip(tiny_clip)(pictures[:1], ["flat " * 20])
    assert [record.name for record in caplog.records] == ["pagopt.rewards"]


def test_the_crop_is_that_of_torchvision(tiny_clip: str) -> None:
    image = Image.effect_noise((32, 35), 90).convert("RGB").quantize(40).convert("RGB")
    whole, lower = Encoder(tiny_clip), Encoder(tiny_clip, rounding="transformers")
    # Of three pixels too many one and a half go: torchvision begins at row 2, transformers at row 1.
    assert torch.equal(whole.images([image]), whole.images([image.crop((0, 2, 32, 34))]))
    assert torch.equal(lower.images([image]), whole.images([image.crop((0, 1, 32, 33))]))
    assert not torch.allclose(whole.images([image]), lower.images([image]), atol=1e-4)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_other_precisions_are_near(dtype: str, tiny_clip: str, pictures: list[Image.Image]) -> None:
    half, whole = Clip(tiny_clip, dtype=dtype), Clip(tiny_clip)
    assert next(half.encoder.model.parameters()).dtype == getattr(torch, dtype)
    scores = half(pictures, PROMPTS)
    assert scores.dtype == torch.float32
    assert 0 < (scores - whole(pictures, PROMPTS)).abs().max() < 5
    assert half.describe()["arguments"]["dtype"] == dtype


def test_no_batch_size_changes_a_score(tiny_clip: str, pictures: list[Image.Image]) -> None:
    reward, images, prompts = Clip(tiny_clip), (pictures * 5)[:32], (PROMPTS * 5)[:32]
    whole = reward(images, prompts)
    for size in (1, 7):
        parts = [reward(images[i : i + size], prompts[i : i + size]) for i in range(0, 32, size)]
        torch.testing.assert_close(torch.cat(parts), whole, atol=1e-4, rtol=0)  # of 100 x the cosine


def test_weights_of_another_model_are_refused(tiny_clip: str, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    copy = Path(shutil.copytree(tiny_clip, tmp_path / "copy"))
    tensors = load_file(copy / "model.safetensors")
    scale = tensors.pop("logit_scale")
    save_file(tensors, copy / "model.safetensors", {"format": "pt"})
    with pytest.raises(RewardError, match=r"not those of its config\.json: tensors 1 missing \(logit_scale\)"):
        Clip(str(copy))
    save_file({**tensors, "logit_scale": scale, "head": scale.clone()}, copy / "model.safetensors", {"format": "pt"})
    with pytest.raises(RewardError, match=r"tensors 1 unexpected \(head\)"):
        Clip(str(copy))
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "projection_dim": 8}))
    with pytest.raises(RewardError, match=r"cannot load a CLIP model from"):
        Clip(str(copy))
    (copy / "config.json").write_text(json.dumps({**config, "model_type": "siglip"}))
    with pytest.raises(RewardError, match=r"a model of type 'siglip', not a CLIP.*open_clip"):
        Clip(str(copy))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (copy / name).unlink()
    shutil.copy(Path(tiny_clip) / "config.json", copy / "config.json")
    shutil.copy(Path(tiny_clip) / "model.safetensors", copy / "model.safetensors")
    with pytest.raises(RewardError, match=r"holds no tokenizer \(tokenizer\.json, or vocab\.json and merges\.txt\)"):
        Clip(str(copy))


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
    for text in ("{", "[]", '{"image_mean": [0.5]}', '{"size": {"longest_edge": 32}}'):
        (wrong / "preprocessor_config.json").write_text(text)
        with pytest.raises(RewardError, match=r"cannot prepare pictures as .*wrong.preprocessor_config.json says"):
            Clip(str(wrong))
    for model in (None, 5, ["emoji"]):
        with pytest.raises(RewardError, match=r'`model` is "emoji", a folder, .*, not'):
            Clip(model)  # type: ignore[arg-type]
    assert Encoder(Path(tiny_clip)).fingerprint == Encoder(tiny_clip).fingerprint


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


def test_preprocessor_settings_may_be_in_the_processor_file(tiny_clip: str, tmp_path: Path) -> None:
    copy = shutil.copytree(tiny_clip, tmp_path / "copy")
    image = Image.effect_noise((48, 40), 90).convert("RGB")
    settings = json.loads((copy / "preprocessor_config.json").read_text())
    expected = Encoder(str(copy)).images([image])
    (copy / "preprocessor_config.json").unlink()
    assert not torch.equal(Encoder(str(copy)).images([image]), expected)  # CLIP's own
    (copy / "processor_config.json").write_text(json.dumps({"image_processor": settings}))
    assert torch.equal(Encoder(str(copy)).images([image]), expected)
