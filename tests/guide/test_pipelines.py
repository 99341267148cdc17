"""Everything a stock pipeline offers keeps working under guidance."""

from __future__ import annotations

import copy

import accelerate
import diffusers
import pytest
import torch
from accelerate.hooks import remove_hook_from_module
from explicit_reference import predict, sample
from PIL import Image
from tiny_sd3 import SIZE, Euler64, make_pipeline, noise, run

from pagopt.guide import guided
from pagopt.recipe import Recipe

RECIPE = Recipe("L1.H0 L2.H1", strength=(0.5, 1.0), scale=2.0)
PROMPTS = ["red apple", "cat"]


@pytest.fixture
def own_pipe(pipe):
    """A copy that a test may change."""
    return copy.deepcopy(pipe)


def encoded(pipe):
    embeds, negative, pooled, negative_pooled = pipe.encode_prompt(
        PROMPTS, None, None, max_sequence_length=2, do_classifier_free_guidance=True
    )
    return (embeds, pooled), (negative, negative_pooled)


def close(got, want, tolerance=1e-10):
    return ((got - want).norm() / want.norm()).item() < tolerance


def quiet(pipe):
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.mark.parametrize("g", [1.0, 2.0])
def test_img2img_runs_the_interval_over_its_own_steps(pipe, g):
    img2img = quiet(diffusers.StableDiffusion3Img2ImgPipeline(**pipe.components))
    recipe = RECIPE.replace(interval=(0.5, 1.0))
    with guided(img2img, recipe) as guidance:
        got = img2img(
            PROMPTS,
            image=Image.new("RGB", (2 * SIZE, 2 * SIZE), "red"),
            strength=0.5,
            num_inference_steps=8,
            guidance_scale=g,
            latents=noise(2),
            max_sequence_length=2,
            output_type="latent",
        ).images
    assert (guidance.calls, guidance.steps) == (4, 2)
    prompt, negative = encoded(pipe)
    assert close(got, sample(pipe, [recipe] * 2, 8, g, noise(2), prompt, negative, begin=4))


def test_inpainting(text_parts):
    wide = make_pipeline(text_parts, channels=16)  # the pipeline insists on it
    inpaint = quiet(diffusers.StableDiffusion3InpaintPipeline(**wide.components))

    def paint():
        return inpaint(
            PROMPTS,
            image=Image.new("RGB", (2 * SIZE, 2 * SIZE), "red"),
            mask_image=Image.new("L", (2 * SIZE, 2 * SIZE), 255),
            height=2 * SIZE,
            width=2 * SIZE,
            strength=0.75,
            num_inference_steps=4,
            guidance_scale=2.0,
            generator=torch.Generator().manual_seed(0),
            max_sequence_length=2,
            output_type="latent",
        ).images

    plain = paint()
    with guided(inpaint, [Recipe(), RECIPE]) as guidance:
        got = paint()
    assert guidance.steps == 3
    assert close(got[0], plain[0])
    assert not close(got[1], plain[1], 1e-3)


def test_controlnet(pipe):
    torch.manual_seed(4)
    config = {key: pipe.transformer.config[key] for key in ("sample_size", "patch_size", "in_channels")}
    net = diffusers.SD3ControlNetModel(
        **config,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=3,
        joint_attention_dim=32,
        caption_projection_dim=24,
        pooled_projection_dim=16,
        out_channels=4,
        pos_embed_max_size=SIZE,
    ).double()
    for parameter in net.controlnet_blocks.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    control = quiet(diffusers.StableDiffusion3ControlNetPipeline(**pipe.components, controlnet=net))

    def draw(**arguments):
        return control(
            PROMPTS,
            control_image=Image.new("RGB", (2 * SIZE, 2 * SIZE), "red"),
            height=2 * SIZE,
            width=2 * SIZE,
            num_inference_steps=2,
            guidance_scale=2.0,
            latents=noise(2),
            generator=torch.Generator().manual_seed(0),
            max_sequence_length=2,
            output_type="latent",
            **arguments,
        ).images

    plain = draw()
    with guided(control, [Recipe(), RECIPE]):
        got = draw()
    assert close(got[0], plain[0])
    assert not close(got[1], plain[1], 1e-3)
    with guided(control, RECIPE):
        uncontrolled = draw(controlnet_conditioning_scale=0.0)
    with guided(pipe, RECIPE):
        assert close(uncontrolled, run(pipe, PROMPTS, steps=2, g=2.0))


def test_skip_layer_guidance_adds_to_it(pipe):
    """In one step from the same latents all guidance terms add up."""
    skip = {
        "skip_guidance_layers": [1],
        "skip_layer_guidance_start": -1.0,
        "skip_layer_guidance_stop": 1.0,
        "skip_layer_guidance_scale": 1.5,
    }
    plain, skipped = run(pipe, PROMPTS, steps=1, g=2.0), run(pipe, PROMPTS, steps=1, g=2.0, **skip)
    with guided(pipe, [Recipe(), RECIPE]):
        guided_only, both = run(pipe, PROMPTS, steps=1, g=2.0), run(pipe, PROMPTS, steps=1, g=2.0, **skip)
    assert close(both - plain, (guided_only - plain) + (skipped - plain))
    assert not close(skipped, plain, 1e-3)
    assert not close(guided_only[1], plain[1], 1e-3)


def test_callbacks_may_change_the_guidance_scale(pipe):
    """CFG switched off half way, the diffusers way: conditional rows alone from then on."""

    def stop_cfg(pipe, step, timestep, tensors):
        if step == 1:
            pipe._guidance_scale = 1.0
            tensors["prompt_embeds"] = tensors["prompt_embeds"].chunk(2)[1]
            tensors["pooled_prompt_embeds"] = tensors["pooled_prompt_embeds"].chunk(2)[1]
        return tensors

    with guided(pipe, RECIPE) as guidance:
        got = run(
            pipe,
            PROMPTS,
            steps=4,
            g=2.0,
            callback_on_step_end=stop_cfg,
            callback_on_step_end_tensor_inputs=["prompt_embeds", "pooled_prompt_embeds"],
        )
    assert guidance.block_evaluations == 2 * (4 * 3 + 2 * 2) + 2 * (2 * 3 + 2 * 2)
    prompt, negative = encoded(pipe)
    first = RECIPE.replace(interval=(0.0, 0.5))
    half = sample_part(pipe, first, 2.0, noise(2), prompt, negative, range(2))
    assert close(got, sample_part(pipe, RECIPE, 1.0, half, prompt, None, range(2, 4)))


def sample_part(pipe, recipe, g, latents, prompt, negative, steps):
    """Some of four steps, by the reference."""
    pipe.scheduler.set_timesteps(4)
    for i in steps:
        timestep = pipe.scheduler.timesteps[i]
        cond = predict(pipe.transformer, [None] * 2, latents, timestep, *prompt)
        velocity = cond + recipe.scale * (cond - predict(pipe.transformer, [recipe] * 2, latents, timestep, *prompt))
        if g > 1:
            uncond = predict(pipe.transformer, [None] * 2, latents, timestep, *negative)
            velocity = velocity + (g - 1) * (cond - uncond)
        latents = latents + (pipe.scheduler.sigmas[i + 1] - pipe.scheduler.sigmas[i]) * velocity
    return latents


def test_a_scheduler_that_calls_the_model_twice_a_step(own_pipe):
    own_pipe.scheduler = diffusers.FlowMatchHeunDiscreteScheduler()
    with guided(own_pipe, RECIPE.replace(interval=(0.25, 0.5))) as guidance:
        run(own_pipe, PROMPTS, steps=4)
    assert (guidance.calls, guidance.steps) == (7, 2)  # one noise level of four, visited twice


def test_two_calls_in_one_block_and_different_sizes(pipe):
    with guided(pipe, RECIPE) as guidance:
        first = run(pipe, PROMPTS, g=2.0)
        run(pipe, ["a", "b", "c"], steps=2)
        again = run(pipe, PROMPTS, g=2.0)
    assert torch.equal(first, again)
    assert guidance.calls == 8


def test_fused_projections(own_pipe, pipe):
    with guided(pipe, RECIPE):
        want = run(pipe, PROMPTS, g=2.0)
    own_pipe.transformer.fuse_qkv_projections()
    with guided(own_pipe, RECIPE):
        assert close(run(own_pipe, PROMPTS, g=2.0), want)
    own_pipe.transformer.unfuse_qkv_projections()
    with guided(own_pipe, RECIPE):
        assert close(run(own_pipe, PROMPTS, g=2.0), want)


def test_a_forward_replaced_by_accelerate(own_pipe, pipe):
    """What ``enable_model_cpu_offload`` does to a module."""
    with guided(pipe, RECIPE):
        want = run(pipe, PROMPTS, g=2.0)
    accelerate.cpu_offload_with_hook(own_pipe.transformer, execution_device="cpu")
    with guided(own_pipe, RECIPE):
        assert torch.equal(run(own_pipe, PROMPTS, g=2.0), want)
    remove_hook_from_module(own_pipe.transformer)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_other_dtypes(own_pipe, pipe, dtype):
    with guided(pipe, [RECIPE, Recipe()]):
        exact = run(pipe, PROMPTS, g=2.0)
    own_pipe.to(dtype)
    with guided(own_pipe, [RECIPE, Recipe()]):
        got = run(own_pipe, PROMPTS, g=2.0, latents=noise(2).to(dtype))
    plain = run(own_pipe, PROMPTS, g=2.0, latents=noise(2).to(dtype))
    assert got.dtype == dtype
    assert close(got.double(), exact, 1e-4 if dtype == torch.float32 else 0.1)
    assert not close(got[0].double(), plain[0].double(), 0.05)


def test_autocast(own_pipe, pipe):
    with guided(pipe, RECIPE):
        exact = run(pipe, PROMPTS, g=2.0)
    own_pipe.to(torch.float32)
    with torch.autocast("cpu", torch.bfloat16), guided(own_pipe, RECIPE):
        got = run(own_pipe, PROMPTS, g=2.0, latents=noise(2).float())
    plain = run(own_pipe, PROMPTS, g=2.0, latents=noise(2).float())
    assert close(got.double(), exact, 0.2)
    assert not close(got.double(), plain.double(), 0.2)


def test_joint_attention_kwargs_and_tuples_pass_through(pipe):
    with guided(pipe, RECIPE):
        want = run(pipe, PROMPTS, g=2.0)
        got = run(pipe, PROMPTS, g=2.0, joint_attention_kwargs={"per_row": torch.zeros(4, 2)}, output_type="latent")
        as_tuple = pipe(
            PROMPTS,
            num_inference_steps=3,
            guidance_scale=2.0,
            latents=noise(2),
            max_sequence_length=2,
            output_type="latent",
            return_dict=False,
        )[0]
    assert torch.equal(got, want)
    assert torch.equal(as_tuple, want)


def test_gradients_flow_through_a_guided_prediction(pipe):
    run(pipe, PROMPTS, steps=2)
    prompt, _ = encoded(pipe)
    latents = noise(2).requires_grad_()
    timestep = pipe.scheduler.timesteps[0].expand(2)
    with torch.enable_grad(), guided(pipe, RECIPE):
        pipe.transformer(latents, *prompt, timestep).sample.sum().backward()
    assert latents.grad is not None
    assert latents.grad.abs().sum() > 0
    pipe.transformer.zero_grad()


def test_the_scheduler_of_the_tests_is_the_stock_one_in_float64(own_pipe):
    want = run(own_pipe, PROMPTS)
    own_pipe.scheduler = diffusers.FlowMatchEulerDiscreteScheduler.from_config(own_pipe.scheduler.config)
    assert type(own_pipe.scheduler) is not Euler64
    assert close(run(own_pipe, PROMPTS), want, 1e-5)
