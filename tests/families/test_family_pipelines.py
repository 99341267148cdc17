"""Whole calls of the stock pipelines under guidance, against a sampling loop written out."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from diffusers import (
    ChromaImg2ImgPipeline,
    ChromaInpaintPipeline,
    FlowMatchEulerDiscreteScheduler,
    FluxImg2ImgPipeline,
    FluxInpaintPipeline,
    QwenImageImg2ImgPipeline,
    QwenImageInpaintPipeline,
    ZImageImg2ImgPipeline,
)
from diffusers.image_processor import VaeImageProcessor
from explicit import error
from reference import sample
from tiny_families import (
    BLOCKS,
    CHANNELS,
    GRID,
    HEADS,
    distilled,
    embeddings,
    make_pipeline,
    normal,
    positions,
    precise_pipeline,
    run,
)

from pagopt.guide import guided
from pagopt.recipe import Recipe

ROWS, TOKENS = 2, GRID[0] * GRID[1]
WITH_CFG = ("flux", "flux_schnell", "flux2_klein", "qwen", "chroma", "zimage")
ALL = ("flux", "flux2", "flux2_klein", "qwen", "chroma", "zimage")


def recipes_for(variant):
    """One a row, of different intervals, blocks and targets; the second is off in the first of four steps."""
    last, most = BLOCKS[variant] - 1, HEADS[variant] - 1
    return [
        Recipe(f"L0.H0 L{last}.H{most}", strength=(0.6, 1.0), scale=1.5, interval=(0.0, 0.7)),
        Recipe(f"L2.H1 L{last}.H0", target="blur", target_options={"sigma": 1.2}, scale=2.5, interval=(0.25, 1.0)),
    ]


def expected(pipe, variant, recipes, latents, prompt, negative=None, **arguments):
    """What the written-out loop makes of the schedule that the pipeline has just run."""
    rest = positions(variant, len(latents)) | (distilled(variant, len(latents)))
    return sample(
        pipe,
        variant,
        recipes,
        prompt | rest,
        latents,
        GRID,
        negative=None if negative is None else negative | rest,
        **arguments,
    )


@pytest.mark.usefixtures("precise")
@pytest.mark.parametrize("g", [1.0, 2.5])
@pytest.mark.parametrize("variant", WITH_CFG)
def test_classifier_free_guidance(transformers, variant, g):
    """uncond + g (cond - uncond) + w (cond - perturbed), then what the pipeline does with it."""
    pipe, recipes = make_pipeline(variant, transformers[variant]), recipes_for(variant)
    prompt, latents = embeddings(variant, ROWS, seed=1), normal(ROWS, TOKENS, CHANNELS, seed=5)
    negative = embeddings(variant, ROWS, seed=30) if g > 1 else None
    plain = run(pipe, variant, prompt, latents, steps=4, g=g, negative=negative)
    with guided(pipe, recipes) as guidance:
        found = run(pipe, variant, prompt, latents, steps=4, g=g, negative=negative)
    assert (guidance.calls, guidance.steps) == (8 if g > 1 and variant != "zimage" else 4, 4)
    wanted = expected(pipe, variant, recipes, latents, prompt, negative, g=g)
    assert error(plain, wanted) > 1e-3
    assert error(found, wanted) < 1e-10


@pytest.mark.parametrize("variant", [name for name in WITH_CFG if name != "zimage"])
def test_a_recipe_for_another_kind_of_guidance(transformers, variant):
    """These pipelines keep their scale to themselves; whether there is an unconditional prediction is seen."""
    pipe = make_pipeline(variant, transformers[variant])
    prompt, latents = embeddings(variant, ROWS, seed=1), normal(ROWS, TOKENS, CHANNELS, seed=5)
    both = {"g": 2.5, "negative": embeddings(variant, ROWS, seed=30)}
    with_cfg, without, either = (Recipe("L1.H0", cfg=cfg) for cfg in (2.5, 1.0, None))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for recipe, how in ((with_cfg, both), (without, {}), (either, both), (either, {})):
            with guided(pipe, recipe):
                run(pipe, variant, prompt, latents, steps=2, **how)
                run(pipe, variant, prompt, latents, steps=2, **how)
    for recipe, how, message in (
        (
            with_cfg,
            {},
            r"made with a scale of 2\.5 of classifier-free guidance, but .* runs without it: pass",
        ),
        (without, both, r"made without classifier-free guidance, but .* runs with it: leave out its scale"),
    ):
        with guided(pipe, recipe), pytest.warns(UserWarning, match=message) as warned:
            run(pipe, variant, prompt, latents, steps=3, **how)
        assert len(warned) == 1


@pytest.mark.usefixtures("precise")
def test_distilled_guidance(transformers):
    """FLUX.2-dev: guidance_scale is an input of the model; there is one call a step."""
    pipe, recipes = make_pipeline("flux2", transformers["flux2"]), recipes_for("flux2")
    prompt, latents = embeddings("flux2", ROWS, seed=1), normal(ROWS, TOKENS, CHANNELS, seed=5)
    with guided(pipe, recipes) as guidance:
        found = run(pipe, "flux2", prompt, latents, steps=4)
    assert guidance.calls == 4
    assert error(found, expected(pipe, "flux2", recipes, latents, prompt)) < 1e-10


@pytest.mark.usefixtures("precise")
@pytest.mark.parametrize("g", [1.0, 2.0])
@pytest.mark.parametrize(
    ("variant", "kind"),
    [
        ("flux", FluxImg2ImgPipeline),
        ("qwen", QwenImageImg2ImgPipeline),
        ("chroma", ChromaImg2ImgPipeline),
        ("zimage", precise_pipeline(ZImageImg2ImgPipeline)),
    ],
)
def test_image_to_image(transformers, variant, kind, g):
    """Two of four steps run; the interval counts in those."""
    pipe = kind(**make_pipeline(variant, transformers[variant]).components)
    pipe.set_progress_bar_config(disable=True)
    recipes = [
        Recipe("L1.H0", scale=2.0, interval=(0.5, 1.0)),
        Recipe("L0.H1", target="uniform", strength=0.8, scale=1.5),
    ]
    prompt, latents = embeddings(variant, ROWS, seed=1), normal(ROWS, TOKENS, CHANNELS, seed=5)
    negative = embeddings(variant, ROWS, seed=30) if g > 1 else None
    image = normal(ROWS, 16, 2 * GRID[0], 2 * GRID[1], seed=9)
    if variant == "zimage":  # takes no latents for an image
        image = torch.rand(ROWS, 3, 16 * GRID[0], 16 * GRID[1])
    with guided(pipe, recipes) as guidance:
        found = run(pipe, variant, prompt, latents, steps=4, g=g, negative=negative, image=image, strength=0.5)
    assert guidance.steps == 2
    wanted = expected(pipe, variant, recipes, latents, prompt, negative, g=g, begin=2)
    assert error(found, wanted) < 1e-10


@pytest.mark.usefixtures("precise")
@pytest.mark.parametrize(
    ("variant", "kind"),
    [("flux", FluxInpaintPipeline), ("qwen", QwenImageInpaintPipeline), ("chroma", ChromaInpaintPipeline)],
)
def test_inpainting_of_everything(transformers, variant, kind):
    """Under a mask that keeps nothing, inpainting is text-to-image."""
    pipe = kind(**make_pipeline(variant, transformers[variant]).components)
    pipe.set_progress_bar_config(disable=True)
    if variant == "chroma":  # its own takes latents for pictures
        pipe.image_processor = VaeImageProcessor(vae_scale_factor=16, vae_latent_channels=16)
    prompt, negative = embeddings(variant, ROWS, seed=1), embeddings(variant, ROWS, seed=30)
    size = (ROWS, 16, 2 * GRID[0], 2 * GRID[1])
    image, latents = normal(*size, seed=9), pipe._pack_latents(normal(*size, seed=5), *size)
    arguments = {
        "image": image,
        "mask_image": torch.ones(ROWS, 1, GRID[0] * 16, GRID[1] * 16),
        "masked_image_latents": image,
        "strength": 1.0,
        "generator": torch.Generator().manual_seed(5),
    }
    with guided(pipe, recipes_for(variant)):
        found = run(pipe, variant, prompt, None, steps=4, g=2.0, negative=negative, **arguments)
    wanted = expected(pipe, variant, recipes_for(variant), latents, prompt, negative, g=2.0)
    assert error(found, wanted) < 1e-10


@pytest.mark.parametrize("variant", ALL)
def test_the_stock_rotary_embeddings(transformers, variant):
    """With diffusers' own rounding to float32 inside, the same within that rounding."""
    pipe, recipes = make_pipeline(variant, transformers[variant]), recipes_for(variant)
    prompt, latents = embeddings(variant, ROWS, seed=1), normal(ROWS, TOKENS, CHANNELS, seed=5)
    with guided(pipe, recipes):
        found = run(pipe, variant, prompt, latents, steps=4)
    assert error(found, expected(pipe, variant, recipes, latents, prompt)) < 1e-5


@pytest.mark.parametrize("variant", ALL)
def test_plain_recipes_change_nothing(transformers, variant):
    pipe = make_pipeline(variant, transformers[variant])
    prompt, latents = embeddings(variant, ROWS, seed=1), normal(ROWS, TOKENS, CHANNELS, seed=5)
    plain = run(pipe, variant, prompt, latents)
    with guided(pipe, Recipe(scale=0)) as guidance:
        assert torch.equal(run(pipe, variant, prompt, latents), plain)
    assert (guidance.calls, guidance.steps) == (3, 0)


@pytest.mark.parametrize("variant", WITH_CFG)
def test_block_evaluations_of_both_branches(transformers, variant):
    """The unconditional branch has no copies."""
    pipe, blocks = make_pipeline(variant, transformers[variant]), BLOCKS[variant]
    prompt, latents = embeddings(variant, ROWS, seed=1), normal(ROWS, TOKENS, CHANNELS, seed=5)
    with guided(pipe, [Recipe("L1.H0", scale=1.0), Recipe(f"L{blocks - 1}.H0", scale=1.0)]) as guidance:
        run(pipe, variant, prompt, latents, g=2.0, negative=embeddings(variant, ROWS, seed=30))
    assert guidance.block_evaluations == 3 * (2 * ROWS * blocks + (blocks - 1) + 1)


@pytest.mark.parametrize(("shift", "stop", "guided_steps"), [(0.5, 0.5, 25), (3.0, 1.0, 50), (3.0, 0.1, 5)])
@pytest.mark.parametrize("variant", ALL)
def test_bfloat16(transformers, variant, shift, stop, guided_steps):
    """Fifty steps, whose timesteps are rounded, and with a large shift fall together at the begin."""
    transformer = copy.deepcopy(transformers[variant]).to(torch.bfloat16)
    pipe = make_pipeline(variant, transformer)
    pipe.scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, base_shift=shift)
    half = torch.bfloat16
    prompt, latents = embeddings(variant, 1, seed=1, dtype=half), normal(1, TOKENS, CHANNELS, seed=5, dtype=half)
    negative = embeddings(variant, 1, seed=30, dtype=half)
    g = 1.0 if variant == "flux2" else 2.0
    with guided(pipe, Recipe("L1.H0 L2.H1", scale=0.5, interval=(0.0, stop))) as guidance:
        found = run(pipe, variant, prompt, latents, steps=50, g=g, negative=negative if g > 1 else None)
    assert (guidance.calls, guidance.steps) == (50 if variant in ("flux2", "zimage") else 100, guided_steps)
    assert found.dtype == (torch.float64 if variant == "zimage" else half)
    assert found.isfinite().all()


@pytest.mark.parametrize("variant", ALL)
def test_one_step_twice_from_the_same_latents(transformers, variant):
    """The second call of the pipeline is no unconditional branch of the first."""
    pipe = make_pipeline(variant, transformers[variant])
    prompt, latents = embeddings(variant, 1, seed=1), normal(1, TOKENS, CHANNELS, seed=5)
    with guided(pipe, Recipe("L1.H0", scale=2.0)) as guidance:
        once, again = (run(pipe, variant, prompt, latents, steps=1) for _ in range(2))
    assert guidance.steps == 2
    assert torch.equal(once, again)


@pytest.mark.parametrize("variant", ALL)
def test_a_callback_that_goes_back(transformers, variant):
    """The very latents of the step before, at the next timestep, are no unconditional branch."""
    pipe = make_pipeline(variant, transformers[variant])
    prompt, latents = embeddings(variant, 1, seed=1), normal(1, TOKENS, CHANNELS, seed=5)
    pictures = []
    for kept in (lambda tensor: tensor, torch.clone):
        seen = []

        def back(pipe, step, timestep, tensors, kept=kept, seen=seen):
            seen.append(tensors["latents"])
            return {"latents": kept(seen[0]) if step == 1 else tensors["latents"]}

        with guided(pipe, Recipe("L1.H0", scale=2.0)) as guidance:
            pictures.append(run(pipe, variant, prompt, latents, steps=4, callback=back))
        assert guidance.steps == 4
    assert torch.equal(*pictures)
