"""Guidance that cannot be applied, or would do nothing, says so."""

from __future__ import annotations

import copy
import warnings

import diffusers
import pytest
import torch
from diffusers.hooks import HookRegistry, LayerSkipConfig, ModelHook, apply_layer_skip
from explicit_reference import ExplicitMap
from peft import LoraConfig
from tiny_sd3 import noise, run

from pagopt.errors import GuidanceError, PagoptError
from pagopt.guide import guided
from pagopt.recipe import Recipe

RECIPE = Recipe("L1.H0", strength=0.5)


def refused(pipe, recipe, *words, **arguments):
    """Run under the recipe; it must be refused with a text that has all the words."""
    with pytest.raises(GuidanceError) as caught, guided(pipe, recipe):
        run(pipe, ["a", "b"], **arguments)
    for word in words:
        assert word in str(caught.value), caught.value
    assert isinstance(caught.value, PagoptError)


def test_a_head_outside_the_model(pipe):
    refused(pipe, Recipe("L30.H2"), "unknown head 'L30.H2'", "Did you mean 'L2.H2'", "9 heads in 3 blocks")
    refused(pipe, Recipe("L1.H3"), "Did you mean 'L1.H2'", "L0.H0 to L2.H2")
    refused(pipe, Recipe("L9.H0", scale=0.0), "unknown head")  # a plain recipe is read all the same


def test_a_site_that_only_another_model_has(pipe, pipelines):
    refused(pipe, Recipe("L0.attn2.H0"), "unknown head 'L0.attn2.H0'", "L0.H0")
    refused(pipelines["dual"], Recipe("L2.attn2.H0"), "L0.attn2.H0 to L1.attn2.H2")


def test_an_unknown_target(pipe):
    refused(pipe, Recipe("L0.H0", target="identitty"), "unknown perturbation target", "Did you mean 'identity'")


@pytest.mark.parametrize("count", [1, 3])
def test_a_wrong_number_of_recipes(pipe, count):
    refused(pipe, [RECIPE] * count, f"{count} recipes for 2 images", "num_images_per_prompt", g=2.0)
    refused(pipe, [Recipe()] * count, f"{count} recipes for 2 images")


def test_no_recipe_at_all(pipe):
    refused(pipe, [], "empty list")
    refused(pipe, "recipe.json", "Recipe.load")
    refused(pipe, 3, "Recipe.load")


def test_an_interval_without_a_step(pipe):
    narrow = RECIPE.replace(interval=(0.1, 0.2))
    refused(pipe, narrow, "[0.1, 0.2)", "none of the 4 sampling steps", "take more steps", steps=4)
    with guided(pipe, narrow) as guidance:
        run(pipe, ["a", "b"], steps=10)
    assert guidance.steps == 1


def test_nested_guidance(pipe):
    with guided(pipe, RECIPE):
        refused(pipe, RECIPE, "under guidance already")
        run(pipe, ["a"])
    shares = diffusers.StableDiffusion3Img2ImgPipeline(**pipe.components)
    with guided(pipe, RECIPE):
        refused(shares, RECIPE, "under guidance already")
        run(pipe, ["a"])


def test_pipelines_of_other_families(pipe):
    class KolorsPipeline:
        transformer = None

    refused(KolorsPipeline(), RECIPE, "KolorsPipeline", "StableDiffusion3Pipeline", "FluxPipeline")
    scheduler, unet = diffusers.DDPMScheduler(), torch.nn.Linear(1, 1)
    refused(diffusers.DDPMPipeline(unet, scheduler), RECIPE, "DDPMPipeline", "no supported family")
    refused(pipe.transformer, RECIPE, "whole pipeline")


def test_a_processor_set_by_somebody_else(pipe):
    own = copy.deepcopy(pipe)
    own.transformer.transformer_blocks[1].attn.processor = ExplicitMap()
    refused(own, RECIPE, "attn of block L1", "ExplicitMap", "JointAttnProcessor2_0")
    with guided(own, Recipe("L0.H0")):  # other blocks are not concerned
        run(own, ["a"])


def test_a_processor_replaced_between_the_steps(pipe):
    own = copy.deepcopy(pipe)

    def replace(pipe, step, timestep, tensors):
        pipe.transformer.transformer_blocks[1].attn.processor = ExplicitMap()
        return tensors

    refused(own, RECIPE, "ExplicitMap", callback_on_step_end=replace)


def test_a_site_that_is_never_reached(pipe):
    own = copy.deepcopy(pipe)
    block = own.transformer.transformer_blocks[1]
    block.forward = lambda hidden_states, encoder_hidden_states, **ignored: (encoder_hidden_states, hidden_states)
    refused(own, RECIPE, "attn of block L1 was never reached")


def test_compiled_transformers(pipe):
    own = copy.deepcopy(pipe)
    own.transformer.transformer_blocks[2].compile(backend="eager")
    refused(own, RECIPE, "compiled by torch.compile", "pagopt.compile_blocks(pipe)")
    own = copy.deepcopy(pipe)
    own.transformer = torch.compile(own.transformer, backend="eager")
    refused(own, RECIPE, "compiled by torch.compile")


def between_steps(change):
    """A callback that does it once, after the first step."""

    def callback(pipe, step, timestep, tensors):
        if step == 0:
            change(pipe)
        return tensors

    return callback


def add_lora(pipe):
    pipe.transformer.add_adapter(LoraConfig(r=2, target_modules=["to_v", "add_v_proj", "to_out.0"]))
    pipe.transformer.double()


def cut_off_the_last_block(pipe):
    del pipe.transformer.transformer_blocks[2]


@pytest.mark.parametrize("change", [add_lora, cut_off_the_last_block])
def test_layers_replaced_between_the_steps(pipe, change):
    """Hooks on those that were there before would see, and move, half of what runs."""
    own = copy.deepcopy(pipe)
    said = "were replaced since", "before the `with` block"
    refused(own, Recipe("L1.H0 L2.H0"), *said, callback_on_step_end=between_steps(change))
    if change is add_lora:
        with guided(own, RECIPE):
            run(own, ["a"])
    else:
        refused(own, Recipe("L2.H0"), "no block for L2.H0")


def test_compiled_between_the_steps(pipe):
    own = copy.deepcopy(pipe)
    change = between_steps(lambda pipe: pipe.transformer.transformer_blocks[1].compile(backend="eager"))
    refused(own, RECIPE, "compiled by torch.compile", callback_on_step_end=change)


def test_another_transformer_in_the_middle(pipe):
    own, other = copy.deepcopy(pipe), copy.deepcopy(pipe.transformer)
    change = between_steps(lambda pipe: setattr(pipe, "transformer", other))
    refused(own, RECIPE, "exchanged inside the `with` block", callback_on_step_end=change)
    with guided(own, Recipe()):
        own.transformer = pipe.transformer
        run(own, ["a"])


def test_a_picture_spread_over_gpus(pipe):
    own = copy.deepcopy(pipe)
    own.transformer._parallel_config = diffusers.ContextParallelConfig(ulysses_degree=2)  # as enable_parallelism does
    refused(own, RECIPE, "enable_parallelism", "--trainer.devices")


class Halved(ModelHook):
    """A hook of somebody's own, which is welcome: row by row, it does the same to copies."""

    def post_forward(self, module, output):
        return tuple(part * 0.5 for part in output)


def test_hooks_of_diffusers_that_skip_what_should_run(pipe):
    own = copy.deepcopy(pipe)
    block = own.transformer.transformer_blocks[1]
    HookRegistry.check_if_exists_or_initialize(block).register_hook(Halved(), "mine")
    with guided(own, RECIPE):
        run(own, ["a"])
    apply_layer_skip(own.transformer, LayerSkipConfig(indices=[0], fqn="transformer_blocks"))
    refused(own, RECIPE, "diffusers' hook", "JointTransformerBlock", "remove_hook(")


def test_predictions_that_are_not_finite(pipe):
    own = copy.deepcopy(pipe)

    def spoil(module, given, output):  # the copy of the second image alone
        return torch.cat([output[:3], output[3:] * torch.inf]) if output.shape[0] == 4 else output

    handle = own.transformer.transformer_blocks[2].attn.to_v.register_forward_hook(spoil)
    refused(own, RECIPE, "for image 1 is not finite", "target identity")
    handle.remove()


def test_values_that_cannot_be_seen(pipe):
    own = copy.deepcopy(pipe)
    attention = own.transformer.transformer_blocks[1].attn

    class JointAttnProcessor2_0:  # says so, but goes round the modules
        def __call__(self, attn, hidden_states, encoder_hidden_states, **ignored):
            return attn.to_out[0](hidden_states), attn.to_add_out(encoder_hidden_states)

    attention.processor = JointAttnProcessor2_0()
    refused(own, RECIPE, "attn of block L1", "no values")


def test_a_perturbation_without_any_effect(pipe):
    own = copy.deepcopy(pipe)
    for projection in (own.transformer.transformer_blocks[1].attn.to_out[0],):
        projection.weight.data.zero_()
    own.transformer.transformer_blocks[1].attn.to_add_out.weight.data.zero_()
    refused(own, [Recipe("L0.H0"), RECIPE], "L1.H0", "strength 0.5", "image 1", "changes nothing")
    own = copy.deepcopy(pipe).to(torch.bfloat16)
    tiny = Recipe("L2.H0", strength=1e-30)
    refused(own, tiny, "bfloat16", "larger strength", latents=noise(2).bfloat16())


def test_rounding_is_no_effect(pipe, monkeypatch):
    """The bits of some predictions differ, by what a computation in another row of a batch may differ by."""
    refused(pipe, Recipe("L1.H0", strength=2e-15), "changes nothing", "float64")
    monkeypatch.setattr("pagopt.checks.ROUNDING", 0)
    with guided(pipe, Recipe("L1.H0", strength=2e-15)):
        run(pipe, ["a"])
    monkeypatch.undo()
    with guided(pipe, Recipe("L1.H0", strength=1e-12)):
        run(pipe, ["a"])


def test_a_sibling_that_shares_everything_called_inside(pipe):
    """Its guidance scale and steps are others, and nothing else would tell."""
    sibling = diffusers.StableDiffusion3Pipeline(**pipe.components)
    run(pipe, ["a"], g=7.0)
    refusal = pytest.raises(GuidanceError, match="is not the StableDiffusion3Pipeline that guided")
    with refusal, guided(pipe, RECIPE):
        run(sibling, ["a"], g=2.0)
    with guided(pipe, RECIPE):
        run(pipe, ["a"])
        with refusal:
            run(sibling, ["a"], g=2.0)
    with guided(sibling, RECIPE):
        run(sibling, ["a"], g=2.0)


def test_a_copy_made_inside(pipe):
    """It would be guided for ever."""
    with guided(pipe, RECIPE):
        for part in (pipe, pipe.transformer, pipe.transformer.transformer_blocks[1]):
            with pytest.raises(GuidanceError, match="cannot be copied: copy it before"):
                copy.deepcopy(part)
        want = run(pipe, ["a"])
    own = copy.deepcopy(pipe)
    with guided(own, RECIPE):
        assert torch.equal(run(own, ["a"]), want)


def test_entered_again(pipe):
    block = guided(pipe, RECIPE)
    found = []
    for _ in range(2):
        with block as guidance:
            found.append(run(pipe, ["a"]))
        assert guidance.calls == 3
    assert torch.equal(*found)

    @guided(pipe, RECIPE)
    def draw():
        return run(pipe, ["a"])

    assert torch.equal(draw(), found[0])
    assert torch.equal(draw(), found[0])
    with pytest.raises(GuidanceError, match="under guidance already"), block, block:
        pass
    assert torch.equal(draw(), found[0])


@pytest.mark.parametrize("variant", ["qk_norm", "dual"])
def test_fused_projections_that_lose_the_normalisation(pipelines, variant):
    own = copy.deepcopy(pipelines[variant])
    own.transformer.fuse_qkv_projections()
    refused(own, RECIPE, "leaves out the normalisation", "unfuse_qkv_projections()")


def test_another_pipeline_called_inside(pipe):
    never_ran = diffusers.StableDiffusion3Img2ImgPipeline(**pipe.components)
    with pytest.raises(GuidanceError, match="is not the StableDiffusion3Img2ImgPipeline"), guided(never_ran, RECIPE):
        run(pipe, ["a"])


def test_a_timestep_that_is_not_in_the_schedule(pipe):
    run(pipe, ["a"])
    embeds, _, pooled, _ = pipe.encode_prompt(["a"], None, None, max_sequence_length=2)
    with pytest.raises(GuidanceError, match="timestep 123, which is not in the schedule"), guided(pipe, RECIPE):
        pipe.transformer(noise(1), embeds, pooled, torch.tensor([123.0]))


def test_rows_that_are_no_halves(pipe):
    run(pipe, ["a"], g=2.0)
    embeds, _, pooled, _ = pipe.encode_prompt(["a"], None, None, max_sequence_length=2)
    with pytest.raises(GuidanceError, match="1 rows cannot be halves"), guided(pipe, RECIPE):
        pipe.transformer(noise(1), embeds, pooled, pipe.scheduler.timesteps[:1])


def test_a_block_in_which_nothing_ran(pipe):
    with pytest.raises(GuidanceError, match="never called inside"), guided(pipe, RECIPE):
        pass
    with guided(pipe, Recipe()):
        pass
    with pytest.raises(ZeroDivisionError), guided(pipe, RECIPE):  # the cause goes first
        _ = 1 / 0


def test_another_guidance_scale_than_the_recipe_was_made_for(pipe):
    recipe = RECIPE.replace(cfg=2.0)
    with (
        pytest.warns(UserWarning, match="guidance_scale=2, but the pipeline runs with 1") as caught,
        guided(pipe, recipe),
    ):
        run(pipe, ["a"], g=1.0)
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with guided(pipe, recipe):
            run(pipe, ["a"], g=2.0)
        with guided(pipe, [Recipe(cfg=1.0), RECIPE]):
            run(pipe, ["a", "b"], g=0.0)
