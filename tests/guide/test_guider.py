"""The guider of a modular pipeline gives what ``guided`` gives around the stock one."""

from __future__ import annotations

import copy
import json
import pickle
import warnings

import diffusers
import pytest
import torch
from diffusers.guiders import ClassifierFreeGuidance
from diffusers.modular_pipelines import StableDiffusion3AutoBlocks
from explicit_reference import ExplicitMap
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from test_restoration import anatomy
from tiny_sd3 import SIZE, noise, run

from pagopt.compiled import compile_blocks
from pagopt.errors import GuidanceError, RecipeError
from pagopt.guide import guided
from pagopt.guider import HeadPerturbationGuidance
from pagopt.models import family_of
from pagopt.recipe import Recipe

RECIPE = Recipe("L1.H0 L2.H1", strength=(0.5, 1.0), scale=2.0)
PROMPTS = ["red apple", "cat"]
TOLERANCE = 1e-10

RECIPES = {
    "identity": RECIPE,
    "uniform": Recipe("L0.H1-2 L2.H0", target="uniform", strength=0.7),
    "mean query": Recipe("L1.H2", target="mean_query", interval=(0.3, 1.0)),
    "blur": Recipe("L1.H0 L2.H1", target="blur", target_options={"sigma": 1.5}, scale=4.0),
    "path": Recipe("L0.H0 L1.H1", strength=0.4, target="uniform", path="log_linear", interval=(0.0, 0.5)),
}


def modular(pipe):
    """The modular pipeline of a stock one's components."""
    made = StableDiffusion3AutoBlocks().init_pipeline()
    made.update_components(**{name: part for name, part in pipe.components.items() if hasattr(made, name)})
    made.set_progress_bar_config(disable=True)
    return made


def draw(pipe, guider, prompts=PROMPTS, steps=3, **arguments):
    """Final latents of a modular pipeline; CFG gets the empty prompt, as in the stock one."""
    pipe.update_components(guider=guider)
    negative = {"negative_prompt": ""} if guider.num_conditions == 2 else {}
    call = {"latents": noise(len(prompts)), "max_sequence_length": 2} | negative | arguments
    return pipe(prompt=prompts, num_inference_steps=steps, output_type="latent", output="images", **call)


def relative_error(got, want):
    return ((got - want).norm() / want.norm()).item()


@pytest.fixture
def own_pipe(pipe):
    """A copy that a test may change."""
    return copy.deepcopy(pipe)


# The same result.


@pytest.mark.parametrize("g", [1.0, 3.0])
@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES.keys())
def test_equals_the_stock_pipeline_under_guidance(any_pipe, recipe, g):
    with guided(any_pipe, recipe) as guidance:
        want = run(any_pipe, PROMPTS, g=g)
    guider = HeadPerturbationGuidance(recipe, guidance_scale=g)
    assert relative_error(draw(modular(any_pipe), guider), want) < TOLERANCE
    assert relative_error(run(any_pipe, PROMPTS, g=g), want) > 1e-4
    assert guider.guidance.steps == guidance.steps
    assert guider.guidance.block_evaluations == guidance.block_evaluations


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_equals_the_stock_pipeline_for_random_recipes(pipe, data):
    heads = list(family_of(pipe).head_map(pipe.transformer))
    chosen = data.draw(st.lists(st.sampled_from(heads), min_size=1, max_size=5, unique=True))
    steps = data.draw(st.integers(1, 4))
    start = data.draw(st.integers(0, steps - 1))
    recipe = Recipe(
        chosen,
        strength=[data.draw(st.floats(0.05, 1.0)) for _ in chosen],
        target=data.draw(st.sampled_from(["identity", "uniform", "mean_query", "blur"])),
        scale=data.draw(st.floats(0.1, 5.0)),
        interval=(start / steps, data.draw(st.integers(start + 1, steps)) / steps),
    )
    g = data.draw(st.sampled_from([1.0, 1.5, 7.0]))
    with guided(pipe, recipe):
        want = run(pipe, PROMPTS, steps=steps, g=g)
    got = draw(modular(pipe), HeadPerturbationGuidance(recipe.to_dict(), guidance_scale=g), steps=steps)
    assert relative_error(got, want) < TOLERANCE


def test_the_original_formulation(pipe):
    with guided(pipe, RECIPE):
        want = run(pipe, PROMPTS, g=3.0)
    guider = HeadPerturbationGuidance(RECIPE, guidance_scale=2.0, use_original_formulation=True)
    assert relative_error(draw(modular(pipe), guider), want) < TOLERANCE


def test_classifier_free_guidance_has_an_interval_of_its_own(pipe):
    """It ends after the first of two steps, the perturbation begins with the second."""
    recipe = RECIPE.replace(interval=(0.5, 1.0))
    got = draw(modular(pipe), HeadPerturbationGuidance(recipe, guidance_scale=3.0, stop=0.5), steps=2)

    def stop(pipe, step, timestep, tensors):
        pipe._guidance_scale = 1.0
        return {name: tensor.chunk(2)[1] if "embeds" in name else tensor for name, tensor in tensors.items()}

    names = ["prompt_embeds", "pooled_prompt_embeds"]
    with guided(pipe, recipe):
        want = run(pipe, PROMPTS, steps=2, g=3.0, callback_on_step_end=stop, callback_on_step_end_tensor_inputs=names)
    assert relative_error(got, want) < TOLERANCE


@pytest.mark.parametrize("g", [1.0, 3.0])
def test_plain_recipes_change_no_bit(pipe, g):
    want = draw(modular(pipe), ClassifierFreeGuidance(guidance_scale=g))
    assert torch.equal(draw(modular(pipe), HeadPerturbationGuidance(Recipe(), guidance_scale=g)), want)
    nothing = HeadPerturbationGuidance(RECIPE.replace(scale=0.0), guidance_scale=g)
    assert torch.equal(draw(modular(pipe), nothing), want)


def test_disabled(pipe):
    guider = HeadPerturbationGuidance(RECIPE, guidance_scale=3.0, enabled=False)
    plain = draw(modular(pipe), guider)
    assert relative_error(plain, run(pipe, PROMPTS)) < TOLERANCE
    assert guider.guidance is None
    guider.enable()
    guided_once = draw(modular(pipe), guider)
    assert relative_error(guided_once, plain) > 1e-3
    guider.disable()
    assert torch.equal(draw(modular(pipe), guider), plain)


def test_several_images_per_prompt_and_calls_of_other_sizes(pipe):
    made, guider = modular(pipe), HeadPerturbationGuidance(RECIPE, guidance_scale=3.0)
    for prompts, images in ((["a"], 2), (["a", "b", "c"], 1), (["a"], 1)):
        start = noise(len(prompts) * images)
        with guided(pipe, RECIPE):
            want = run(pipe, prompts, g=3.0, num_images_per_prompt=images)
        got = draw(made, guider, prompts, latents=start, num_images_per_prompt=images)
        assert relative_error(got, want) < TOLERANCE


def test_another_transformer_in_the_middle(pipe, pipelines):
    guider = HeadPerturbationGuidance(RECIPE, guidance_scale=1.0)
    for name in ("sd3", "qk_norm", "sd3"):
        with guided(pipelines[name], RECIPE):
            want = run(pipelines[name], PROMPTS)
        assert relative_error(draw(modular(pipelines[name]), guider), want) < TOLERANCE


@pytest.mark.parametrize("g", [1.0, 3.0])
def test_a_scheduler_that_calls_the_model_twice_a_step(own_pipe, g):
    own_pipe.scheduler = diffusers.FlowMatchHeunDiscreteScheduler()
    recipe = RECIPE.replace(interval=(0.25, 0.75))
    with guided(own_pipe, recipe) as guidance:
        want = run(own_pipe, PROMPTS, steps=4, g=g)
    guider = HeadPerturbationGuidance(recipe, guidance_scale=g)
    assert relative_error(draw(modular(own_pipe), guider, steps=4), want) < 1e-6  # its own steps are in float32
    assert guider.guidance.steps == guidance.steps == 4  # two noise levels, each visited twice


def test_img2img_runs_the_interval_over_its_own_steps(pipe):
    recipe = RECIPE.replace(interval=(0.5, 1.0))
    img2img = diffusers.StableDiffusion3Img2ImgPipeline(**pipe.components)
    img2img.set_progress_bar_config(disable=True)
    picture = Image.new("RGB", (2 * SIZE, 2 * SIZE), "red")
    call = {"image": picture, "strength": 0.5, "num_inference_steps": 8, "max_sequence_length": 2}
    with guided(img2img, recipe) as guidance:
        want = img2img(
            PROMPTS,
            guidance_scale=3.0,
            generator=torch.Generator().manual_seed(0),
            output_type="latent",
            **call,
        ).images
    made, guider = modular(pipe), HeadPerturbationGuidance(recipe, guidance_scale=3.0)
    made.update_components(guider=guider)
    generator = torch.Generator().manual_seed(0)
    images = made(
        prompt=PROMPTS, negative_prompt="", generator=generator, output_type="latent", output="images", **call
    )
    assert guider.guidance.steps == guidance.steps == 2
    assert relative_error(images, want) < TOLERANCE


def test_compiled_blocks(own_pipe):
    torch._dynamo.reset()
    with guided(own_pipe, RECIPE):
        want = run(own_pipe, PROMPTS, steps=1, g=1.0)
    compile_blocks(own_pipe, backend="eager")
    made, guider = modular(own_pipe), HeadPerturbationGuidance(RECIPE, guidance_scale=1.0)
    Failure(own_pipe, RuntimeError, call=1)
    with pytest.raises(RuntimeError, match="stop"):
        draw(made, guider, steps=1)
    assert relative_error(draw(made, guider, steps=1), want) < TOLERANCE
    torch._dynamo.reset()


# Saving and loading, the diffusers way.


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES.keys())
def test_saved_and_loaded(tmp_path, recipe):
    made = HeadPerturbationGuidance(recipe, guidance_scale=2.5, start=0.1, use_original_formulation=True)
    made.save_pretrained(tmp_path)
    written = json.loads((tmp_path / "guider_config.json").read_text())
    assert written["recipe"] == recipe.to_dict()
    loaded = HeadPerturbationGuidance.from_pretrained(tmp_path)
    assert loaded.recipe == recipe
    assert loaded.config == made.config
    assert (loaded.guidance_scale, loaded._start, loaded.use_original_formulation) == (2.5, 0.1, True)
    assert made.new().recipe == recipe
    assert made.new(recipe=RECIPE.to_dict(), guidance_scale=1.0).config["recipe"] == RECIPE.to_dict()


def test_loaded_guiders_draw_the_same(pipe, tmp_path):
    made = HeadPerturbationGuidance(RECIPE, guidance_scale=3.0)
    made.save_pretrained(tmp_path)
    want = draw(modular(pipe), made)
    assert torch.equal(draw(modular(pipe), HeadPerturbationGuidance.from_pretrained(tmp_path)), want)


def test_copied_after_a_run(pipe):
    """A copy knows the recipe, and not the transformer."""
    made = HeadPerturbationGuidance(RECIPE, guidance_scale=3.0)
    want = draw(modular(pipe), made)
    assert len(pickle.dumps(made)) < 20_000
    for copied in (copy.deepcopy(made), copy.copy(made)):
        assert copied.guidance is None
        assert torch.equal(draw(modular(pipe), copied), want)
    assert made.guidance is not None


def test_arguments_that_mean_nothing():
    with pytest.raises(RecipeError, match="unknown recipe key 'head'"):
        HeadPerturbationGuidance({"head": "L0.H0"})
    with pytest.raises(RecipeError, match="JSON object"):
        HeadPerturbationGuidance("recipe.json")
    with pytest.raises(ValueError, match="`stop`"):
        HeadPerturbationGuidance(RECIPE, start=0.5, stop=0.2)


def test_another_guidance_scale_than_the_recipe_was_made_for():
    recipe = RECIPE.replace(cfg=2.0)
    with pytest.warns(UserWarning, match="of scale 2, and this guider has 5: pass guidance_scale=2 "):
        HeadPerturbationGuidance(recipe, guidance_scale=5.0)
    with pytest.warns(UserWarning, match="this guider has 6: pass guidance_scale=1 "):
        HeadPerturbationGuidance(recipe, guidance_scale=5.0, use_original_formulation=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        HeadPerturbationGuidance(recipe, guidance_scale=2.0)
        HeadPerturbationGuidance(recipe, guidance_scale=1.0, use_original_formulation=True)


def test_no_warning_while_it_draws(pipe):
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        draw(modular(pipe), HeadPerturbationGuidance(RECIPE.replace(cfg=3.0), guidance_scale=3.0))


# Doing nothing is an error, and the model is always restored.


def refused(pipe, recipe, *words, **arguments):
    """Draw with the recipe; it must be refused with a text that has all the words, and leave nothing behind."""
    before = anatomy(pipe)
    with pytest.raises(GuidanceError) as caught:
        draw(modular(pipe), HeadPerturbationGuidance(recipe, guidance_scale=3.0), **arguments)
    for word in words:
        assert word in str(caught.value), caught.value
    assert anatomy(pipe) == before


def test_heads_and_targets_that_do_not_exist(pipe):
    refused(pipe, Recipe("L30.H2"), "unknown head 'L30.H2'", "Did you mean 'L2.H2'")
    refused(pipe, Recipe("L9.H0", scale=0.0), "unknown head")
    refused(pipe, Recipe("L0.H0", target="identitty"), "Did you mean 'identity'")


def test_an_interval_without_a_step(pipe):
    refused(pipe, RECIPE.replace(interval=(0.1, 0.2)), "[0.1, 0.2)", "none of the 4 sampling steps", steps=4)


def test_a_processor_set_by_somebody_else(own_pipe):
    own_pipe.transformer.transformer_blocks[1].attn.processor = ExplicitMap()
    refused(own_pipe, RECIPE, "attn of block L1", "ExplicitMap", "JointAttnProcessor2_0")


def test_a_perturbation_without_any_effect(own_pipe):
    attention = own_pipe.transformer.transformer_blocks[1].attn
    attention.to_out[0].weight.data.zero_()
    attention.to_add_out.weight.data.zero_()
    refused(own_pipe, Recipe("L1.H0"), "changes nothing", "L1.H0")


def test_a_site_that_is_never_reached(own_pipe):
    block = own_pipe.transformer.transformer_blocks[1]
    block.forward = lambda hidden_states, encoder_hidden_states, **ignored: (encoder_hidden_states, hidden_states)
    refused(own_pipe, RECIPE, "attn of block L1 was never reached")


def test_compiled_transformers(own_pipe):
    own_pipe.transformer = torch.compile(own_pipe.transformer, backend="eager")
    guider = HeadPerturbationGuidance(RECIPE)
    guider.set_state(0, 1, torch.tensor(1.0))
    guider.prepare_inputs({})
    with pytest.raises(GuidanceError, match="compiled"):
        guider.prepare_models(own_pipe.transformer)


def test_transformers_of_other_families():
    guider = HeadPerturbationGuidance(RECIPE)
    with pytest.raises(GuidanceError, match="Linear belongs to no supported family"):
        guider.prepare_models(torch.nn.Linear(1, 1))


def test_a_transformer_under_guidance_already(pipe):
    with guided(pipe, RECIPE):
        refused(pipe, RECIPE, "under guided() already")
        run(pipe, PROMPTS)


def test_a_loop_that_does_not_say_where_it_is(pipe):
    guider = HeadPerturbationGuidance(RECIPE)
    guider.prepare_models(pipe.transformer)
    embeds, _, pooled, _ = pipe.encode_prompt(["a"], None, None, max_sequence_length=2)
    with pytest.raises(GuidanceError, match="has to call set_state"):
        pipe.transformer(noise(1), embeds, pooled, torch.tensor([100.0]))


class Failure:
    """A hook of the last block that raises an error in its n-th call."""

    def __init__(self, pipe, error, call):
        self.error, self.call, self.calls = error, call, 0
        self.handle = pipe.transformer.transformer_blocks[2].register_forward_pre_hook(self)

    def __call__(self, module, args):
        self.calls += 1
        if self.calls == self.call:
            self.handle.remove()
            raise self.error("stop")


@pytest.fixture
def unchanged(pipe):
    """Checks at the end of the test that the pipeline is the one that came in."""
    before, image = anatomy(pipe), run(pipe, PROMPTS, g=3.0)
    yield pipe
    assert torch.equal(run(pipe, PROMPTS, g=3.0), image)
    assert anatomy(pipe) == before


def test_restored_after_a_run(unchanged):
    before = anatomy(unchanged)
    draw(modular(unchanged), HeadPerturbationGuidance(RECIPE, guidance_scale=3.0))
    assert anatomy(unchanged) == before


@pytest.mark.parametrize("call", [1, 2, 3, 4])  # conditional and unconditional batches of two steps
@pytest.mark.parametrize("error", [RuntimeError, torch.OutOfMemoryError])
def test_restored_after_an_exception(unchanged, error, call):
    before, made, guider = anatomy(unchanged), modular(unchanged), HeadPerturbationGuidance(RECIPE, guidance_scale=3.0)
    want = draw(made, guider)
    Failure(unchanged, error, call)
    with pytest.raises(error, match="stop"):
        draw(made, guider)
    assert anatomy(unchanged) == before
    assert torch.equal(draw(made, guider), want)


def test_restored_when_the_transformer_was_never_called(unchanged):
    before, guider = anatomy(unchanged), HeadPerturbationGuidance(RECIPE)
    guider.set_state(0, 2, torch.tensor(1000.0))
    guider.prepare_models(unchanged.transformer)
    assert anatomy(unchanged) != before
    guider.cleanup_models(unchanged.transformer)
    assert anatomy(unchanged) == before


@pytest.mark.parametrize("call", [1, 2])
def test_an_interrupted_call_has_no_consequences(unchanged, call):
    """Ctrl-C runs no hooks: the next call of the transformer puts things right."""
    made, guider = modular(unchanged), HeadPerturbationGuidance(RECIPE, guidance_scale=3.0)
    want = draw(made, guider)
    Failure(unchanged, KeyboardInterrupt, call)
    with pytest.raises(KeyboardInterrupt):
        draw(made, guider)
    if call == 1:
        assert torch.equal(draw(made, guider), want)
        Failure(unchanged, KeyboardInterrupt, call)
        with pytest.raises(KeyboardInterrupt):
            draw(made, guider)
    # `unchanged` calls the stock pipeline next
