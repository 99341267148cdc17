"""What only Z-Image has: parts of its classifier-free guidance, its ControlNet, and models that are refused."""

from __future__ import annotations

import pytest
import torch
from diffusers import (
    AutoencoderKL,
    ZImageControlNetInpaintPipeline,
    ZImageControlNetModel,
    ZImageControlNetPipeline,
    ZImageInpaintPipeline,
    ZImageOmniPipeline,
)
from diffusers.models.controlnets.controlnet_z_image import ZSingleStreamAttnProcessor
from explicit import error
from reference import predict, sample
from tiny_families import (
    BLOCKS,
    CHANNELS,
    GRID,
    HEADS,
    at,
    captions,
    doubled,
    embeddings,
    inputs,
    make_pipeline,
    make_transformer,
    normal,
    precise_pipeline,
    run,
    schedule,
    unpacked,
)
from under_guidance import predict_under_guidance

from pagopt.errors import GuidanceError, ModelError
from pagopt.guide import guided
from pagopt.models import family_of, resolve_model
from pagopt.recipe import Recipe

ROWS = 2
RECIPES = [
    Recipe("L0.H0 L2.H2", strength=(0.6, 1.0), scale=1.5, interval=(0.0, 0.7)),
    Recipe("L1.H1", target="blur", scale=2.5),
]
SIZE = (16 * GRID[0], 16 * GRID[1])


@pytest.fixture
def drawn(transformers):
    """A pipeline, prompts, negative prompts and latents."""
    prompt, negative = embeddings("zimage", ROWS, seed=1), embeddings("zimage", ROWS, seed=30)
    latents = normal(ROWS, GRID[0] * GRID[1], CHANNELS, seed=5)
    return make_pipeline("zimage", transformers["zimage"]), prompt, negative, latents


def with_decoder(kind, pipe, **parts):
    """Another pipeline around the same transformer, with a tiny VAE."""
    torch.manual_seed(1)
    vae = AutoencoderKL(
        block_out_channels=(2,) * 4,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        latent_channels=CHANNELS // 4,
        norm_num_groups=1,
        shift_factor=0.1,
    )
    made = precise_pipeline(kind)(**pipe.components | {"vae": vae.double().eval()} | parts)
    made.set_progress_bar_config(disable=True)
    return made


def by_hand(pipe, prompt, negative, latents, g, until=1.0, limit=None, control=None):
    """The loop of the pipeline, with truncated and normalised classifier-free guidance.

    ``control`` is what its ControlNet gets beside the arguments of the transformer.
    """

    def given(text, moment):
        if control is None:
            return text | moment
        pictures = list(unpacked(moment["hidden_states"])[:, :, None])
        with torch.no_grad():
            added = pipe.controlnet(pictures, moment["timestep"], captions(text), control, conditioning_scale=0.8)
        return text | moment | {"controlnet_block_samples": added}

    sigmas, timesteps = pipe.scheduler.sigmas, pipe.scheduler.timesteps
    for i, timestep in enumerate(timesteps):
        moment = {"hidden_states": latents, "timestep": at("zimage", timestep, ROWS)}
        cond = predict(pipe.transformer, [None] * ROWS, given(prompt, moment), GRID)
        uncond = predict(pipe.transformer, [None] * ROWS, given(negative, moment), GRID)
        perturbed = predict(pipe.transformer, RECIPES, given(prompt, moment), GRID)
        off = moment["timestep"][0] > until
        velocity = torch.empty_like(cond)
        for row, recipe in enumerate(RECIPES):
            active = recipe.interval[0] <= i / len(timesteps) < recipe.interval[1]
            shift = active * recipe.scale * (cond[row] - perturbed[row])
            velocity[row] = cond[row] + shift if off else uncond[row] + g * (cond[row] - uncond[row]) + shift
            if limit is not None and not off:
                longest = limit * (cond[row] + shift / g).norm()
                velocity[row] *= min(1.0, (longest / velocity[row].norm()).item())
        latents = latents - (sigmas[i + 1] - sigmas[i]) * velocity
    return latents


@pytest.mark.usefixtures("precise")
@pytest.mark.parametrize(("until", "calls_with"), [(1.0, 4), (0.4, 2), (0.0, 1)])
def test_truncated_guidance(drawn, until, calls_with):
    """Beyond a noise level there are conditional rows alone; the perturbation goes on."""
    pipe, prompt, negative, latents = drawn
    pipe.scheduler.register_to_config(use_dynamic_shifting=False)  # noise levels in equal steps
    with guided(pipe, RECIPES) as guidance:
        found = run(pipe, "zimage", prompt, latents, 4, g=2.5, negative=negative, cfg_truncation=until)
    assert (guidance.calls, guidance.steps) == (4, 4)
    levels = [at("zimage", timestep, 1).item() for timestep in pipe.scheduler.timesteps]
    assert sum(level <= until for level in levels) == calls_with
    copies = sum(BLOCKS["zimage"] - recipe.heads[0].block for recipe in RECIPES for step in range(4))
    copies -= BLOCKS["zimage"]  # the first recipe is off in the last step
    assert guidance.block_evaluations == BLOCKS["zimage"] * ROWS * (4 + calls_with) + copies
    assert error(found, by_hand(pipe, prompt, negative, latents, 2.5, until=until)) < 1e-10


@pytest.mark.usefixtures("precise")
@pytest.mark.parametrize("limit", [0.5, 1.0])
def test_normalised_guidance(drawn, limit):
    """No longer than ``limit`` times the guided conditional prediction."""
    pipe, prompt, negative, latents = drawn
    with guided(pipe, RECIPES):
        found = run(pipe, "zimage", prompt, latents, 3, g=4.0, negative=negative, cfg_normalization=limit)
    assert error(found, by_hand(pipe, prompt, negative, latents, 4.0)) > 1e-3
    assert error(found, by_hand(pipe, prompt, negative, latents, 4.0, limit=limit)) < 1e-10


@pytest.mark.usefixtures("precise")
def test_inpainting_of_everything(drawn):
    pipe, prompt, negative, latents = drawn
    pipe = with_decoder(ZImageInpaintPipeline, pipe)
    arguments = {"image": torch.rand(ROWS, 3, *SIZE), "mask_image": torch.ones(ROWS, 1, *SIZE), "strength": 1.0}
    with guided(pipe, RECIPES):
        found = run(pipe, "zimage", prompt, latents, steps=4, g=2.0, negative=negative, **arguments)
    wanted = sample(pipe, "zimage", RECIPES, prompt, latents, GRID, g=2.0, negative=negative)
    assert error(found, wanted) < 1e-10


@pytest.mark.usefixtures("precise")
@pytest.mark.parametrize(
    ("kind", "channels"),
    [(ZImageControlNetPipeline, CHANNELS // 4), (ZImageControlNetInpaintPipeline, CHANNELS // 2 + 1)],
)
def test_a_controlnet(drawn, monkeypatch, kind, channels):
    """What it adds depends on the latents, and so on all guidance before."""
    monkeypatch.setattr(ZSingleStreamAttnProcessor, "__call__", doubled(ZSingleStreamAttnProcessor.__call__))
    pipe, prompt, negative, latents = drawn
    torch.manual_seed(2)
    controlnet = ZImageControlNetModel(
        control_layers_places=[0, 1],
        control_in_dim=channels,
        dim=8 * HEADS["zimage"],
        n_refiner_layers=1,
        n_heads=HEADS["zimage"],
        n_kv_heads=HEADS["zimage"],
    )
    for parameter in controlnet.parameters():
        parameter.data.add_(torch.randn_like(parameter), alpha=0.2)  # its last projections begin at zero
    pipe = with_decoder(kind, pipe, controlnet=controlnet.double().eval())
    seen = []
    pipe.controlnet.register_forward_pre_hook(lambda module, given: seen.append(given[3][:ROWS]))
    arguments = {"control_image": torch.rand(ROWS, 3, *SIZE), "controlnet_conditioning_scale": 0.8}
    if kind is ZImageControlNetInpaintPipeline:
        arguments |= {"image": torch.rand(ROWS, 3, *SIZE), "mask_image": torch.rand(ROWS, 1, *SIZE).round()}
    plain = run(pipe, "zimage", prompt, latents, steps=2, g=2.0, negative=negative, **arguments)
    with guided(pipe, RECIPES) as guidance:
        found = run(pipe, "zimage", prompt, latents, steps=2, g=2.0, negative=negative, **arguments)
    assert guidance.block_evaluations == 2 * BLOCKS["zimage"] * 3 * ROWS

    wanted = by_hand(pipe, prompt, negative, latents, 2.0, control=seen[0])
    assert error(plain, wanted) > 1e-3
    assert error(found, wanted) < 1e-10


@pytest.mark.usefixtures("precise")
def test_a_caption_among_longer_ones(transformers):
    """What one row gives depends neither on the padding that others bring nor on their recipes."""
    many = inputs("zimage", 2, seed=2)  # captions of 3 and of 33 tokens
    assert [len(text) for text in captions(many)] == [3, 33]
    together = predict_under_guidance("zimage", transformers["zimage"], RECIPES, many)[0]
    alone = {name: rows[:1] for name, rows in many.items()}
    found = predict_under_guidance("zimage", transformers["zimage"], RECIPES[:1], alone)[0]
    assert error(found, together[:1]) < 1e-12


def test_the_scale_that_a_recipe_was_made_for(drawn):
    """``guidance_scale`` of these pipelines is one less than ``cfg``; what is said is their own number."""
    pipe, prompt, negative, latents = drawn
    recipe = Recipe("L1.H0", cfg=3.1)
    with guided(pipe, recipe):
        run(pipe, "zimage", prompt, latents, 1, g=3.1, negative=negative)
        run(pipe, "zimage", prompt, latents, 2, g=3.1, negative=negative, cfg_truncation=0.0)
    with guided(pipe, recipe), pytest.warns(UserWarning, match=r"pipeline runs with 1: pass guidance_scale=2\.1 "):
        run(pipe, "zimage", prompt, latents, 1, g=2.0, negative=negative)


def call(transformer, **arguments):
    pipe = make_pipeline("zimage", transformer)
    moment = {"t": at("zimage", schedule(pipe)[0], 1), "cap_feats": captions(inputs("zimage", 1))}
    with torch.no_grad(), guided(pipe, Recipe("L0.H0")):
        transformer(**moment, **arguments, return_dict=False)


def test_what_is_refused(transformers):
    model, pictures = transformers["zimage"], normal(1, CHANNELS // 4, 2, 4, 6, seed=1)
    with pytest.raises(GuidanceError, match="latents of 2 frames"):
        call(model, x=list(pictures))
    with pytest.raises(GuidanceError, match="several pictures in a row, as Z-Image-Omni has them"):
        call(model, x=[list(pictures)])
    with pytest.raises(GuidanceError, match="pictures of several sizes"):
        call(model, x=[pictures[0], pictures[0, :, :, :2]])
    parts = {"scheduler": None, "vae": None, "text_encoder": None, "tokenizer": None, "siglip": None}
    omni = ZImageOmniPipeline(transformer=model, siglip_processor=None, **parts)
    with pytest.raises(GuidanceError, match="ZImageOmniPipeline belongs to no supported family"):
        guided(omni, Recipe("L0.H0")).__enter__()
    for config, said in (({"siglip_feat_dim": 8}, "Z-Image-Omni"), ({"all_patch_size": (4,)}, r"patches of \[4, 1\]")):
        other = make_transformer("zimage", **config)
        with pytest.raises(GuidanceError, match=said):
            guided(make_pipeline("zimage", other), Recipe("L0.H0")).__enter__()
        with pytest.raises(ModelError, match=said):
            family_of(other).head_map(other)


def test_guidance_that_does_nothing(drawn):
    pipe, prompt, _, latents = drawn
    for recipe, said in (
        (Recipe("L1.H0", strength=1e-30), "changes nothing in the prediction for image 0"),
        (Recipe("L1.H0", interval=(0.6, 0.9)), "interval"),
        (Recipe("L3.H0"), "L3"),  # its refiners have no address
    ):
        with pytest.raises(GuidanceError, match=said), guided(pipe, recipe):
            run(pipe, "zimage", prompt, latents, steps=2)
    with pytest.raises(GuidanceError, match="nothing was guided"), guided(pipe, Recipe("L1.H0")):
        pass


def test_names():
    assert resolve_model("z-image") == "Tongyi-MAI/Z-Image"
    assert resolve_model("z-image-turbo") == "Tongyi-MAI/Z-Image-Turbo"
