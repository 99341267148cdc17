"""The authors' own ways of scoring, called as their READMEs do. Runs in their packages' environments, under a worker.

Unlike pagopt_rewards/isolated, which loads once and scores batches, nothing here is arranged for speed.
"""

from __future__ import annotations

import warnings
from typing import Any

warnings.filterwarnings("ignore")  # the packages' imports warn of what nobody can change here

import torch  # noqa: E402

__all__ = ["HPSv2Score", "ImageRewardScore", "PickScoreReadme"]


class HPSv2Score:
    """``hpsv2.score`` of the package hpsv2 1.2.0, once for each prompt: every call reads the checkpoint again.

    Args:
        weights: HPS_v2.1_compressed.pt or HPS_v2_compressed.pt.
        device: The package decides itself: a GPU where there is one.
    """

    def __init__(self, weights: str, device: str = "cpu") -> None:
        from hpsv2 import img_score  # type: ignore[import-not-found]

        img_score.device = device  # a global of the package
        self.score, self.weights = img_score.score, weights

    def __call__(self, images: list[Any], prompts: list[str]) -> list[float]:
        """Scores of shape (n,)."""
        found = [0.0] * len(images)
        for prompt in dict.fromkeys(prompts):
            places = [at for at, other in enumerate(prompts) if other == prompt]
            scores = self.score([images[at] for at in places], prompt, cp=self.weights)
            for at, score in zip(places, scores):  # noqa: B905 - Python 3.9
                found[at] = float(score)
        return found


class ImageRewardScore:
    """``ImageReward.load(file).score(prompt, image)`` of the package image-reward 1.5.

    Args:
        weights: ImageReward.pt.
        config: med_config.json.
        device: Such as "cpu".
    """

    def __init__(self, weights: str, config: str, device: str = "cpu") -> None:
        import ImageReward  # type: ignore[import-not-found]

        self.model = ImageReward.load(weights, device=device, med_config=config)

    @torch.no_grad()
    def __call__(self, images: list[Any], prompts: list[str]) -> list[float]:
        """Scores of shape (n,)."""
        return [self.model.score(prompt, image) for image, prompt in zip(images, prompts)]  # noqa: B905 - Python 3.9


class PickScoreReadme:
    """Processor, both towers and the scale, as in the README of https://github.com/yuvalkirstain/PickScore.

    It is written for transformers 4: later ones return an object where it expects a tensor.

    Args:
        weights: A folder with model, tokenizer and preprocessor_config.json.
        device: Such as "cpu".
    """

    def __init__(self, weights: str, device: str = "cpu") -> None:
        from transformers import AutoProcessor, CLIPModel

        # The authors' transformers 4.27 had no other image processor than the one that is called slow today.
        self.processor = AutoProcessor.from_pretrained(weights, use_fast=False)
        # What AutoModel finds; itself it imports every model there is, and one needs a newer timm.
        self.model = CLIPModel.from_pretrained(weights).eval().to(device)
        self.device = device

    @torch.no_grad()
    def __call__(self, images: list[Any], prompts: list[str]) -> list[float]:
        """Scores of shape (n,): each image alone with its prompt."""
        options = {"padding": True, "truncation": True, "max_length": 77, "return_tensors": "pt"}
        # Without this the processor guesses which axis holds the colours, and fails at a picture of one pixel.
        shape = {"input_data_format": "channels_last"}
        found = []
        for image, prompt in zip(images, prompts):  # noqa: B905 - Python 3.9
            seen = self.model.get_image_features(**self.processor(images=image, **shape, **options).to(self.device))
            read = self.model.get_text_features(**self.processor(text=prompt, **options).to(self.device))
            seen, read = seen / torch.norm(seen, dim=-1, keepdim=True), read / torch.norm(read, dim=-1, keepdim=True)
            found.append(float((self.model.logit_scale.exp() * (read @ seen.T))[0, 0]))
        return found
