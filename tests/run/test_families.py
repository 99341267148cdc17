"""FLUX.2, Qwen-Image, Chroma, Z-Image from end to end: tiny random models in folders, real classes of text encoders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import ChromaImg2ImgPipeline, ChromaInpaintPipeline, DiffusionPipeline
from PIL import Image

from pagopt.cli import main
from pagopt.errors import ModelError
from pagopt.guide import guided
from pagopt.models import load_pipeline
from pagopt.models.weights import bytes_of
from pagopt.recipe import Recipe
from pagopt.render import Job, Renderer, Task
from tests.tiny_pipelines import MAKERS

RECIPE = Recipe("L1.H0 L2.H1", strength=0.5, scale=3.0)
SIZE = {"height": 16, "width": 16}
# Of unequal length, so that a batch has padding; long, so that they have their say beside the template of the chat.
TASKS = [Task("cat " * 40, 5), Task("a house in the snow, " * 20, 5)]


@pytest.fixture(scope="module", params=list(MAKERS))
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def folder(family: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / family
    MAKERS[family]().save_pretrained(path, safe_serialization=True)
    return path


def stock(folder: Path) -> Any:
    pipe = DiffusionPipeline.from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def scales(family: str, cfg: float, distilled: float) -> dict[str, Any]:
    """The guidance scales, as each pipeline calls them."""
    if family == "qwen-image":
        return {"true_cfg_scale": cfg, "negative_prompt": ""}
    if family == "z-image":
        return {"guidance_scale": cfg - 1}
    return {"guidance_scale": distilled if family == "flux2" else cfg}


@pytest.mark.parametrize("cfg", [1.0, 3.0])
def test_draws_what_the_stock_pipeline_draws_under_guidance(family: str, folder: Path, cfg: float) -> None:
    """Prompts are encoded once, in a batch, and drawn in one; the stock pipeline is called for each picture."""
    distilled = {"distilled_guidance": 2.5} if family == "flux2" else {}
    renderer = Renderer(load_pipeline(str(folder)), steps=3, **distilled, **SIZE)
    jobs = [Job(recipe.replace(cfg=cfg), task) for task in TASKS for recipe in (Recipe(), RECIPE)]
    if family == "flux2" and cfg > 1:
        with pytest.raises(ModelError, match="does no classifier-free guidance"):
            renderer.render(jobs)
        return
    images = [np.asarray(image, dtype=int) for image in renderer.render(jobs)]
    pipe = stock(folder)
    for job, image in zip(jobs, images, strict=True):
        with guided(pipe, job.recipe):
            (want,) = pipe(
                prompt=job.task.prompt,
                num_inference_steps=3,
                generator=torch.Generator().manual_seed(job.task.seed),
                **scales(family, cfg, 2.5),
                **SIZE,
            ).images
        assert np.abs(image - np.asarray(want, dtype=int)).max() <= 1
    first, second = np.abs(images[0] - images[1]).max(), np.abs(images[0] - images[2]).max()
    assert min(first, second) > 2, "neither the recipe nor the prompt did anything"


def test_weights_in_eight_bits_and_networks_off_the_gpu(family: str, folder: Path) -> None:
    """In half precision tiny random models are chaotic; so only that they draw, and from how many bytes."""
    jobs = [Job(recipe, task) for task in TASKS for recipe in (Recipe(), RECIPE)]
    whole = Renderer(load_pipeline(str(folder)), steps=2, **SIZE)
    half, eighth = (Renderer(load_pipeline(str(folder), "bfloat16", kind), 2, **SIZE) for kind in (None, "int8"))
    for name in ("transformer", "text_encoder"):
        sizes = [bytes_of(one.modules()[name]) for one in (whole, half, eighth)]
        assert sizes[0] == 2 * sizes[1] > 2 * sizes[2], name
    for one in (half, eighth):
        assert all(np.asarray(image).std() > 1 for image in one.render(jobs))
    offloaded = Renderer(load_pipeline(str(folder)), steps=2, offload="model", **SIZE)
    offloaded.place(torch.device("cpu"))
    for found, want in zip(offloaded.render(jobs), whole.render(jobs), strict=True):
        assert np.abs(np.asarray(found, dtype=int) - np.asarray(want, dtype=int)).max() <= 1


def test_a_search_and_its_recipe_in_a_plain_diffusers_script(
    family: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, study = tmp_path / "run", tmp_path / "tiny.yaml"
    study.write_text(
        f"""model: {folder}
prompts: [cat, house]
held_out_prompts: [dog, tree]
reward: colorfulness
heads: L1-2.H*
rounds: 1
heads_per_round: 1
steps: 2
height: 16
width: 16
cfg_scales: {[] if family == "flux2" else [2.0]}
"""
    )
    words = ["search", str(study), "--out", str(out), "--trainer.accelerator", "cpu"]
    if family == "flux2":  # refused before anything is drawn
        assert main([*words, "--cfg_scales", "[2.0]"]) == 2
        assert "leave cfg at 1. There is no CFG to compare with then: cfg_scales is []" in capsys.readouterr().err
        assert not out.exists()
    assert main(words) == 0
    if family == "flux2":
        prompts = tmp_path / "new.txt"
        prompts.write_text("apple\npear\n")
        words = ["evaluate", str(out / "recipe.json"), "--prompts", str(prompts), "--height", "16", "--width", "16"]
        assert main([*words, "--out", str(tmp_path / "fair"), "--trainer.accelerator", "cpu"]) == 2
        assert "cfg_scales is []" in capsys.readouterr().err
    pipe = stock(folder)
    with guided(pipe, Recipe.load(out / "recipe.json")) as guidance:
        pipe(prompt="dog", num_inference_steps=2, **scales(family, 1.0, 4.0), **SIZE)
    assert guidance.steps == 2


@pytest.mark.parametrize("kind", [ChromaImg2ImgPipeline, ChromaInpaintPipeline])
def test_chroma_on_pictures(kind: Any) -> None:
    """Image-to-image and inpainting, from prompts of unequal length: a plain recipe changes nothing, another does."""
    pipe = kind(**MAKERS["chroma"]().components)
    pipe.text_encoder.eval()  # it was made, not loaded, and would drop out
    pipe.set_progress_bar_config(disable=True)
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8))
    holes = {"mask_image": Image.new("L", (16, 16), 255)} if kind is ChromaInpaintPipeline else {}

    def draw() -> Any:
        return pipe(
            ["cat " * 40, "a house"],
            negative_prompt=["blurred"] * 2,
            image=picture,
            strength=0.5,
            num_inference_steps=4,
            generator=torch.Generator().manual_seed(5),
            output_type="np",
            **holes,
            **SIZE,
        ).images

    plain = draw()
    with guided(pipe, Recipe()) as nothing:
        assert np.array_equal(draw(), plain)
    with guided(pipe, [RECIPE, Recipe("L3.H0", target="uniform", path="fisher_rao", scale=3.0)]) as guidance:
        assert (np.abs(draw() - plain).max(axis=(1, 2, 3)) > 0.01).all()
    assert (nothing.calls, guidance.calls, guidance.steps) == (4, 4, 2)  # two of four steps run, in two branches
