"""What CLIP rewards see, for the distances of `pagopt evaluate --reference`."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from published import save_hps
from transformers import CLIPImageProcessorPil, CLIPModel

from pagopt.comparison.reference import Extractor, first_extractor, measure
from pagopt.errors import RewardError
from pagopt.reward import Reward, load_reward
from pagopt_rewards.clip import Clip

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def seeing(tiny_clip: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Reward]:
    """The rewards that have features, with tiny weights."""
    hps = save_hps(tmp_path_factory.mktemp("hps") / "2.1")
    return {
        "clip": load_reward("clip", model=tiny_clip),
        "pickscore": load_reward("pickscore", weights=tiny_clip),
        "hps": load_reward("hps", weights=str(hps)),
    }


@torch.no_grad()
def test_they_are_what_transformers_gives(tiny_clip: str, pictures: list[Image.Image]) -> None:
    model, processor = CLIPModel.from_pretrained(tiny_clip), CLIPImageProcessorPil.from_pretrained(tiny_clip)
    expected = [
        model.visual_projection(model.vision_model(**processor(image, return_tensors="pt")).pooler_output)[0]
        for image in pictures
    ]
    found = Clip(tiny_clip).features(pictures)
    assert (found.dtype, tuple(found.shape)) == (torch.float32, (7, 16))
    torch.testing.assert_close(found, torch.stack(expected), atol=1e-5, rtol=1e-5)
    assert (found.norm(dim=-1) - 1).abs().min() > 0.01  # lengths are kept


@pytest.mark.parametrize("name", ["clip", "pickscore", "hps"])
def test_scores_are_made_of_them(name: str, seeing: dict[str, Reward], pictures: list[Image.Image]) -> None:
    reward, prompt = seeing[name], "flat, cat"
    seen = reward.features(pictures)  # type: ignore[attr-defined]
    read = reward.encoder.texts([prompt])[0]  # type: ignore[attr-defined]
    scale = {"clip": 100.0, "hps": 1.0, "pickscore": reward.encoder.scale}[name]  # type: ignore[attr-defined]
    scores = scale * torch.nn.functional.cosine_similarity(seen, read[None], dim=-1)
    torch.testing.assert_close(scores, reward(pictures, [prompt] * 7), atol=1e-6 * scale, rtol=1e-5)
    alone = torch.cat([reward.features([image]) for image in pictures])  # type: ignore[attr-defined]
    torch.testing.assert_close(alone, seen, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["clip", "pickscore", "hps"])
def test_distances_can_be_measured_in_them(name: str, seeing: dict[str, Reward]) -> None:
    noise = np.random.default_rng(0)

    def some(low: int, high: int) -> list[Image.Image]:
        return [Image.fromarray(noise.integers(low, high, (40, 40, 3), dtype=np.uint8)) for _ in range(8)]

    real, near, far = some(0, 200), some(0, 200), some(200, 256)
    extractor = Extractor(seeing[name])
    found = measure(extractor, real, {"same": real, "near": near, "far": far}, 4, [("near", "far")], CPU)
    same, close, away = (one.frechet.value for one in found.methods)
    assert same < 1e-6 < close < away
    assert found.differences["near - far"].high < 0
    assert (found.features, found.width) == (name, extractor(real, CPU).shape[1])


def test_what_a_search_maximised_comes_last(seeing: dict[str, Reward]) -> None:
    rewards = {"brightness": load_reward("brightness"), "b": seeing["hps"], "a": seeing["clip"]}
    for searched, name in (((), "hps"), (("b",), "clip"), (("a", "b"), "hps")):
        extractor = first_extractor(rewards, searched)
        assert extractor is not None
        assert extractor.reward.name == name
    assert first_extractor({"brightness": rewards["brightness"]}, ()) is None


def test_a_reward_without_features_names_those_that_have_some(seeing: dict[str, Reward]) -> None:
    with pytest.raises(RewardError, match=r"'brightness' has no features.*`judge`, `clip`, `hps` and `pickscore`"):
        Extractor(load_reward("brightness"))
    for reward in seeing.values():
        Extractor(reward)
