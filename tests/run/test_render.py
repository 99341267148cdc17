"""The renderer draws what a plain call of the pipeline draws, whatever stands beside it in the batch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pagopt.errors import GuidanceError, StudyError
from pagopt.guide import guided
from pagopt.models import load_pipeline
from pagopt.models.sd3 import SD3
from pagopt.recipe import Recipe
from pagopt.render import Job, Renderer, Task

PLAIN = Recipe(scale=0.0)
RECIPE = Recipe("L1.H0 L2.H1", scale=2.0)


@pytest.fixture
def renderer(tiny_model: Path) -> Renderer:
    return Renderer(load_pipeline(str(tiny_model)), steps=3)


def difference(a: Image.Image, b: Image.Image) -> int:
    assert a.size == b.size
    return int(np.abs(np.asarray(a, dtype=int) - np.asarray(b, dtype=int)).max())


def test_prompts_are_encoded_once_as_long_as_there_is_room(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = load_pipeline(str(tiny_model))
    encoded: list[str] = []
    encode = SD3.encode
    monkeypatch.setattr(SD3, "encode", lambda *given: encoded.extend(given[2]) or encode(*given))
    own = Renderer(pipe, steps=1)
    names = ["cat", "dog", "owl", "bat"]
    want = own.render([Job(PLAIN, Task(name, 1)) for name in names])
    own.at_steps(2).render([Job(PLAIN, Task(name, 2)) for name in names])
    assert sorted(encoded) == sorted(names)
    row = sum(tensor.nbytes for tensor in own._prompts["cat"].values())
    monkeypatch.setattr("pagopt.prompts.KEPT", 3 * row)
    encoded.clear()
    for number in (0, 1, 2, 3, 1, 0):
        (image,) = own.render([Job(PLAIN, Task(names[number], 1))])
        assert np.abs(np.asarray(image, int) - np.asarray(want[number], int)).max() <= 1
        assert len(own._prompts) == 3
    assert encoded == ["bat", "cat"], "the oldest alone went"
    own.render([Job(PLAIN, Task(name, 1)) for name in [*names, "ox"]])  # what is drawn now stays, whatever its size
    assert len(own._prompts) == 5


@pytest.mark.parametrize("cfg", [1.0, 3.0])
@pytest.mark.parametrize("recipe", [PLAIN, RECIPE])
def test_draws_what_the_pipeline_draws_under_guidance(renderer: Renderer, recipe: Recipe, cfg: float) -> None:
    (image,) = renderer.render([Job(recipe.replace(cfg=cfg), Task("flat, red apple", 5))])
    with guided(renderer.pipe, recipe):
        stock = renderer.pipe(
            "flat, red apple",
            num_inference_steps=3,
            guidance_scale=cfg,
            max_sequence_length=1,
            generator=torch.Generator().manual_seed(5),
        ).images[0]
    assert np.array_equal(np.asarray(image), np.asarray(stock))


def test_a_batch_gives_the_images_that_single_jobs_give(renderer: Renderer) -> None:
    """Other sums of floats in a larger matrix product may move a value across a rounding edge, by one level."""
    tasks = [Task("red apple", 0), Task("house", 1)]
    recipes = [PLAIN, RECIPE, RECIPE.replace(cfg=2.0), Recipe("L0.H0", strength=0.5, interval=(0.0, 0.4))]
    jobs = [Job(recipe, task) for task in tasks for recipe in recipes]
    together = renderer.render(jobs)
    alone = [renderer.render([job])[0] for job in jobs]
    assert max(difference(a, b) for a, b in zip(together, alone, strict=True)) <= 1
    assert len({image.tobytes() for image in together}) == len(jobs)


def test_the_pipelines_own_bar_stays_as_it_was(tiny_model: Path, capfd: pytest.CaptureFixture[str]) -> None:
    pipe = load_pipeline(str(tiny_model))
    pipe.set_progress_bar_config(desc="mine")
    own = Renderer(pipe, steps=1)
    capfd.readouterr()
    own.render([Job(PLAIN, Task("cat", 1))])
    assert "mine" not in capfd.readouterr().err
    pipe("cat", num_inference_steps=1, guidance_scale=1)
    assert "mine" in capfd.readouterr().err


def test_the_seed_is_the_noise(renderer: Renderer) -> None:
    a, b, c = renderer.render([Job(PLAIN, Task("house", seed)) for seed in (0, 1, 0)])
    assert difference(a, b) > 0
    assert difference(a, c) <= 1


def test_a_size_of_its_own(tiny_model: Path) -> None:
    (image,) = Renderer(load_pipeline(str(tiny_model)), 1, height=8, width=12).render([Job(PLAIN, Task("cat", 0))])
    assert image.size == (12, 8)


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"steps": 0}, "steps must be at least 1"), ({"height": 10}, "height must be a positive multiple of 4")],
)
def test_refuses_settings_without_sense(tiny_model: Path, settings: dict[str, int], message: str) -> None:
    with pytest.raises(StudyError, match=message):
        Renderer(load_pipeline(str(tiny_model)), **settings)


def test_a_head_outside_the_model_is_named(renderer: Renderer) -> None:
    with pytest.raises(GuidanceError, match=r"L7\.H0"):
        renderer.render([Job(Recipe("L7.H0"), Task("cat", 0))])
