"""The shipped scorer on what the shipped model draws: it tells the styles and the contents apart."""

from __future__ import annotations

import pytest
import torch
from PIL import Image

from pagopt.models import load_pipeline
from pagopt.reward import load_reward

STYLES = ["flat", "ink"]
CONTENTS = ["red apple", "cat face", "sunflower", "rocket"]
PROMPTS = [f"{style}, {content}" for style in STYLES for content in CONTENTS]


@pytest.fixture(scope="module")
def drawn() -> list[Image.Image]:
    """One picture of each prompt, with the guidance that a user would take."""
    pipeline = load_pipeline("emoji")
    pipeline.set_progress_bar_config(disable=True)
    noise = [torch.Generator().manual_seed(seed) for seed in range(len(PROMPTS))]
    images: list[Image.Image] = pipeline(PROMPTS, num_inference_steps=12, guidance_scale=2.0, generator=noise).images
    return images


def test_styles_are_told_apart(drawn: list[Image.Image]) -> None:
    flat, ink = (load_reward("style", style=style)(drawn, PROMPTS) for style in STYLES)
    own = load_reward("style")(drawn, PROMPTS)
    assert torch.allclose(own, torch.cat([flat[:4], ink[4:]]), atol=1e-4)
    assert (flat[:4] > ink[:4]).all()
    assert (ink[4:] > flat[4:]).all()
    assert flat[:4].min() > flat[4:].max()
    assert ink[4:].min() > ink[:4].max()


def test_a_picture_fits_its_own_prompt_best(drawn: list[Image.Image]) -> None:
    clip = load_reward("clip")
    table = torch.stack([clip(drawn, [prompt] * len(drawn)) for prompt in PROMPTS], dim=1)
    assert (table.argmax(dim=1) == torch.arange(len(PROMPTS))).float().mean() >= 0.75
