"""The guider in modular pipelines of FLUX.1, FLUX.2-klein, Qwen-Image and Z-Image, against ``guided`` in stock ones."""

from __future__ import annotations

import pytest
import torch
from diffusers.guiders import ClassifierFreeGuidance
from diffusers.modular_pipelines import FluxAutoBlocks
from diffusers.modular_pipelines.flux2.modular_blocks_flux2_klein_base import Flux2KleinBaseCoreDenoiseStep
from diffusers.modular_pipelines.qwenimage.modular_blocks_qwenimage import QwenImageCoreDenoiseStep
from diffusers.modular_pipelines.z_image.modular_blocks_z_image import ZImageCoreDenoiseStep
from tiny_families import CHANNELS, GRID, captions, embeddings, make_pipeline, normal, packed, run, unpacked

from pagopt.errors import GuidanceError
from pagopt.flux_blocks import GuidedFluxLoopDenoiser, guided_flux_blocks
from pagopt.guide import guided
from pagopt.guider import HeadPerturbationGuidance
from pagopt.recipe import Recipe

pytestmark = pytest.mark.usefixtures("precise")

ROWS = 2
RECIPES = {
    "identity": Recipe("L0.H1 L2.H0", strength=(0.5, 1.0), scale=2.0, interval=(0.3, 1.0)),
    "uniform": Recipe("L1.H0", target="uniform", strength=0.7),
    "mean query": Recipe("L1.H1", target="mean_query", interval=(0.0, 0.5)),
    "blur": Recipe("L1.H0-1", target="blur", scale=4.0),
}


def modular(pipe, variant):
    """The part of the modular pipeline that denoises, with the components of a stock one."""
    blocks = {
        "flux2_klein": Flux2KleinBaseCoreDenoiseStep,
        "qwen": QwenImageCoreDenoiseStep,
        "zimage": ZImageCoreDenoiseStep,
    }
    if variant in blocks:
        return filled(blocks[variant](), pipe)
    return filled(guided_flux_blocks().sub_blocks["denoise"], pipe)


def filled(blocks, pipe):
    made = blocks.init_pipeline()
    made.update_components(**{name: part for name, part in pipe.components.items() if hasattr(made, name)})
    made.set_progress_bar_config(disable=True)
    return made


def draw(made, variant, guider, prompt, latents, negative=None):
    """The latents after the last step, (rows, channels, ...)."""
    if guider is not None:
        made.update_components(guider=guider)
    names = {
        "encoder_hidden_states": "prompt_embeds",
        "pooled_projections": "pooled_prompt_embeds",
        "encoder_hidden_states_mask": "prompt_embeds_mask",
    }
    if variant == "zimage":
        call = {"prompt_embeds": captions(prompt)}
        call |= {} if negative is None else {"negative_prompt_embeds": captions(negative)}
        latents = unpacked(latents)
    else:
        call = {names[name]: tensor for name, tensor in prompt.items()}
        call |= {} if negative is None else {f"negative_{names[name]}": value for name, value in negative.items()}
    size = made.vae_scale_factor * 2
    return made(
        **call,
        latents=latents.mT.unflatten(-1, GRID) if variant == "flux2_klein" else latents,
        height=GRID[0] * size,
        width=GRID[1] * size,
        num_inference_steps=3,
        output="latents",
        **({"guidance_scale": 3.5} if variant == "flux" else {}),
    )


def image_tokens(latents):
    """Latents of any pipeline as image tokens, (rows, tokens, channels)."""
    return (
        latents.flatten(2).mT
        if latents.shape[1] == CHANNELS
        else packed(latents.reshape(ROWS, -1, *latents.shape[-2:]))
    )


def relative_error(got, want):
    return ((got - want).norm() / want.norm()).item()


def parts(transformers, variant):
    pipe = make_pipeline(variant, transformers[variant])
    return pipe, embeddings(variant, ROWS, seed=1), normal(ROWS, GRID[0] * GRID[1], CHANNELS, seed=7)


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES.keys())
@pytest.mark.parametrize(
    ("variant", "g"),
    [
        ("flux", 1.0),
        ("flux_schnell", 1.0),
        ("flux2_klein", 1.0),
        ("flux2_klein", 2.5),
        ("qwen", 1.0),
        ("qwen", 2.5),
        ("zimage", 1.0),
        ("zimage", 2.5),
    ],
)
def test_equals_the_stock_pipeline_under_guidance(transformers, variant, recipe, g):
    pipe, prompt, latents = parts(transformers, variant)
    negative = embeddings(variant, ROWS, seed=3) if g > 1 else None
    with guided(pipe, recipe) as guidance:
        want = run(pipe, variant, prompt, latents, g=g, negative=negative)
    guider = HeadPerturbationGuidance(recipe, guidance_scale=g)
    got = draw(modular(pipe, variant), variant, guider, prompt, latents, negative)
    # The blocks of Z-Image round predictions to float32.
    assert relative_error(image_tokens(got), want) < (1e-6 if variant == "zimage" else 1e-10)
    assert relative_error(run(pipe, variant, prompt, latents, g=g, negative=negative), want) > 1e-4
    assert guider.guidance.steps == guidance.steps
    assert guider.guidance.block_evaluations == guidance.block_evaluations


@pytest.mark.parametrize("variant", ["flux", "flux_schnell"])
def test_flux_without_guidance_is_as_before(transformers, variant):
    pipe, prompt, latents = parts(transformers, variant)
    want = draw(filled(FluxAutoBlocks().sub_blocks["denoise"], pipe), variant, None, prompt, latents)
    made = modular(pipe, variant)
    assert type(made.guider) is ClassifierFreeGuidance
    assert torch.equal(draw(made, variant, None, prompt, latents), want)


def test_flux_has_no_negative_prompt(transformers):
    pipe, prompt, latents = parts(transformers, "flux")
    guider = HeadPerturbationGuidance(RECIPES["identity"], guidance_scale=2.0)
    with pytest.raises(GuidanceError, match="make the guider with guidance_scale=1"):
        draw(modular(pipe, "flux"), "flux", guider, prompt, latents)


def test_the_blocks_of_diffusers_stay_as_they_are():
    ours, theirs = guided_flux_blocks(), FluxAutoBlocks()

    def denoiser(blocks):
        return blocks.sub_blocks["denoise"].sub_blocks["denoise"].sub_blocks["denoiser"]

    assert type(denoiser(ours)) is GuidedFluxLoopDenoiser
    assert type(denoiser(theirs)) is not GuidedFluxLoopDenoiser
    assert {"guider"} == {c.name for c in ours.expected_components} - {c.name for c in theirs.expected_components}
    assert [i.name for i in ours.inputs] == [i.name for i in theirs.inputs]
