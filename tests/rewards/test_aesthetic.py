"""aesthetic: LAION's predictors in their published formats on a tiny CLIP."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from published import save_improved
from transformers import CLIPModel

from pagopt.errors import RewardError
from pagopt.reward import load_reward
from pagopt_rewards import aesthetic
from pagopt_rewards.aesthetic import Aesthetic
from pagopt_rewards.encoder import Encoder

WIDTH = 16  # of the tiny CLIP's features


@pytest.fixture(scope="module")
def improved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_improved(tmp_path_factory.mktemp("improved"), WIDTH)


@torch.no_grad()
def features(folder: str, images: list[Image.Image]) -> torch.Tensor:
    """Unit features by transformers' model, one image at a time."""
    model, encoder = CLIPModel.from_pretrained(folder), Encoder(folder)
    seen = [
        model.get_image_features(pixel_values=encoder.network.prepare(image)[None]).pooler_output for image in images
    ]
    return torch.cat([each / each.norm() for each in seen])


def test_version_2_is_five_linear_layers(tiny_clip: str, improved: Path, pictures: list[Image.Image]) -> None:
    state = torch.load(improved, weights_only=True)
    values = features(tiny_clip, pictures).double()
    for layer in (0, 2, 4, 6, 7):
        values = values @ state[f"layers.{layer}.weight"].double().T + state[f"layers.{layer}.bias"].double()
    for weights in (improved, improved.parent):
        scores = Aesthetic(weights=str(weights), model=tiny_clip)(pictures, [""] * 7)
        torch.testing.assert_close(scores.double(), values[:, 0], atol=1e-5, rtol=0)
    assert scores.unique().numel() == 7


def test_version_1_is_one(tiny_clip: str, tmp_path: Path, pictures: list[Image.Image]) -> None:
    layer = torch.nn.Linear(WIDTH, 1)
    torch.save(layer.state_dict(), tmp_path / "sa_0_4_vit_l_14_linear.pth")
    expected = features(tiny_clip, pictures) @ layer.weight.detach()[0] + layer.bias.detach()
    scores = Aesthetic(1, str(tmp_path), tiny_clip)(pictures, [""] * 7)
    torch.testing.assert_close(scores, expected, atol=1e-5, rtol=0)


def test_neither_batch_size_nor_prompts_matter(tiny_clip: str, improved: Path, pictures: list[Image.Image]) -> None:
    reward, images = Aesthetic(weights=str(improved), model=tiny_clip), (pictures * 5)[:32]
    whole = reward(images, [""] * 32)
    sevens = torch.cat([reward(images[i : i + 7], ["a"] * len(images[i : i + 7])) for i in range(0, 32, 7)])
    alone = torch.cat([reward([image], ["b"]) for image in images])
    torch.testing.assert_close(sevens, whole, atol=1e-5, rtol=0)
    torch.testing.assert_close(alone, whole, atol=1e-5, rtol=0)


def test_the_key_knows_both_networks(tiny_clip: str, improved: Path, tmp_path: Path) -> None:
    place = "pagopt_rewards.aesthetic:Aesthetic"
    copy = shutil.copy(improved, tmp_path / improved.name)
    first = load_reward(place, weights=str(copy), model=tiny_clip)
    before = first.key()  # worked out when it is first asked for
    save_improved(tmp_path, WIDTH, seed=1)
    assert load_reward(place, weights=str(copy), model=tiny_clip).key() != before
    assert first.identity()[1] != Aesthetic(weights=str(improved), model=tiny_clip).identity()[1]


def test_other_predictors_are_refused(tiny_clip: str, improved: Path, tmp_path: Path) -> None:
    with pytest.raises(RewardError, match="version is 1 or 2, not 3"):
        Aesthetic(3)
    with pytest.raises(RewardError, match=r"no published predictor of version 2 for .*whose features are 16 wide"):
        Aesthetic(model=tiny_clip)
    with pytest.raises(RewardError, match=r"Download https://github\.com/christophschuhmann/.*linearMSE\.pth"):
        Aesthetic(weights=str(tmp_path), model=tiny_clip)
    wide = save_improved(tmp_path, 768)
    with pytest.raises(RewardError, match=r"layers\.0\.weight \(1024, 768\) instead of \(1024, 16\)"):
        Aesthetic(weights=str(wide), model=tiny_clip)
    with pytest.raises(RewardError, match=r"LAION's predictor 1 for features 16 wide: 2 of 2 tensors are missing"):
        Aesthetic(1, str(improved), tiny_clip)
    layers = {f"layers.{i}.{end}": torch.zeros(1) for i in (0, 3, 6, 8, 10) for end in ("weight", "bias")}
    torch.save(layers, wide)
    with pytest.raises(RewardError, match=r"looks like the reluMSE variant"):
        Aesthetic(weights=str(wide), model=tiny_clip)


def test_what_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(aesthetic, "uncached", lambda *_: "")
    assert Aesthetic.missing() == "sac+logos+ava1-l14-linearMSE.pth (4 MB) is not here yet: downloaded on first use"
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "sac+logos+ava1-l14-linearMSE.pth").touch()
    assert Aesthetic.missing() == ""
