"""FLUX from end to end, on a tiny random model in a folder: heads, pictures, a search, and its recipe in diffusers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import FluxPipeline

from pagopt.cli import main
from pagopt.errors import StudyError
from pagopt.guide import guided
from pagopt.models import load_pipeline
from pagopt.recipe import Recipe
from pagopt.render import Job, Renderer, Task

RECIPE = Recipe("L1.H0 L3.H1", strength=0.5, scale=2.0)
SIZE = {"height": 16, "width": 16}


def difference(a: object, b: object) -> int:
    return int(np.abs(np.asarray(a, dtype=int) - np.asarray(b, dtype=int)).max())


def test_heads(tiny_flux: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["heads", str(tiny_flux)]) == 0
    printed = capsys.readouterr().out
    assert "L0-3.H0-1" in printed
    assert "8 heads in 4 blocks" in printed


@pytest.mark.parametrize("cfg", [1.0, 3.0])
def test_draws_what_the_stock_pipeline_draws_under_guidance(tiny_flux: Path, cfg: float) -> None:
    """With the distilled guidance scale as an input of the model, and true classifier-free guidance."""
    renderer = Renderer(load_pipeline(str(tiny_flux)), steps=3, distilled_guidance=2.5, **SIZE)
    tasks = [Task("red apple", 5), Task("a house", 6)]
    images = renderer.render([Job(recipe.replace(cfg=cfg), task) for task in tasks for recipe in (Recipe(), RECIPE)])
    stock = FluxPipeline.from_pretrained(tiny_flux)
    stock.set_progress_bar_config(disable=True)
    for i, task in enumerate(tasks):
        for j, recipe in enumerate((Recipe(), RECIPE)):
            with guided(stock, recipe):
                (image,) = stock(
                    task.prompt,
                    negative_prompt="",
                    true_cfg_scale=cfg,
                    guidance_scale=2.5,
                    num_inference_steps=3,
                    generator=torch.Generator().manual_seed(task.seed),
                    **SIZE,
                ).images
            assert difference(images[2 * i + j], image) <= 1
    assert len({image.tobytes() for image in images}) == 4


def test_sizes_and_distilled_guidance_are_checked(tiny_flux: Path, tiny_model: Path) -> None:
    with pytest.raises(StudyError, match="height must be a positive multiple of 4"):
        Renderer(load_pipeline(str(tiny_flux)), 2, height=18)
    with pytest.raises(StudyError, match="distilled_guidance is for models"):
        Renderer(load_pipeline(str(tiny_model)), 2, distilled_guidance=3.5)


def test_a_search_and_its_recipe_in_a_plain_diffusers_script(tiny_flux: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    study = tmp_path / "tiny.yaml"
    study.write_text(
        f"""model: {tiny_flux}
prompts: [cat, house]
held_out_prompts: [dog, tree]
reward: colorfulness
heads: L1-2.H*
rounds: 1
heads_per_round: 1
steps: 2
height: 16
width: 16
cfg_scales: [2.0]
distilled_guidance: 2.0
target: blur
target_options: {{sigma: 0.7}}
"""
    )
    assert main(["search", str(study), "--out", str(out), "--trainer.accelerator", "cpu"]) == 0
    pipe = FluxPipeline.from_pretrained(tiny_flux)
    pipe.set_progress_bar_config(disable=True)
    recipe = Recipe.load(out / "recipe.json")
    assert (recipe.target, dict(recipe.target_options)) == ("blur", {"sigma": 0.7})
    with guided(pipe, recipe) as guidance:
        pipe("dog", guidance_scale=2.0, num_inference_steps=2, **SIZE)
    assert guidance.steps == 2


def test_generate(tiny_flux: Path, tmp_path: Path) -> None:
    RECIPE.save(tmp_path / "recipe.json")
    out = tmp_path / "picture.png"
    words = ["generate", "--model", str(tiny_flux), "--recipe", str(tmp_path / "recipe.json"), "--prompt", "cat"]
    words += ["--steps", "2", "--height", "16", "--width", "16", "--distilled_guidance", "2", "--out", str(out)]
    assert main(words) == 0
    assert out.is_file()
