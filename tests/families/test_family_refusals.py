"""What the families say about models, and what they refuse."""

from __future__ import annotations

import copy

import diffusers
import pytest
import torch
from diffusers import ChromaPipeline, QwenImage21Transformer2DModel, QwenImageEditPipeline, QwenImagePipeline
from diffusers.models.transformers.transformer_flux2 import Flux2KVAttnProcessor, Flux2KVParallelSelfAttnProcessor
from explicit import error
from tiny_families import (
    BLOCKS,
    CHANNELS,
    GRID,
    HEADS,
    VARIANTS,
    WIDTH,
    at,
    call,
    inputs,
    make_pipeline,
    make_transformer,
    normal,
    schedule,
)

from pagopt.errors import GuidanceError, ModelError
from pagopt.guide import guided
from pagopt.models import ALIASES, FAMILIES, family_of, resolve_model
from pagopt.recipe import Recipe

NAMES = {
    "flux": "flux",
    "flux_schnell": "flux",
    "flux2": "flux2",
    "flux2_klein": "flux2-klein",
    "qwen": "qwen-image",
    "chroma": "chroma",
    "zimage": "z-image",
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_family_and_heads(transformers, variant):
    transformer = transformers[variant]
    family = family_of(make_pipeline(variant, transformer))
    assert family.name == NAMES[variant]
    heads = family.head_map(transformer)
    assert (heads.blocks, len(heads)) == (BLOCKS[variant], BLOCKS[variant] * HEADS[variant])
    sites = family.attentions(transformer)
    assert [(site.block, site.site, site.heads) for site in sites] == [(s.block, s.name, s.heads) for s in heads.sites]
    assert type(family_of(transformer)) in type(family).__mro__


def test_names():
    assert len({family.name for family in FAMILIES}) == len(FAMILIES)
    assert resolve_model("qwen-image") == "Qwen/Qwen-Image"
    assert resolve_model("flux2-dev") == "black-forest-labs/FLUX.2-dev"
    assert resolve_model("flux2-klein") == "black-forest-labs/FLUX.2-klein-4B"
    assert resolve_model("chroma") == "lodestones/Chroma1-HD"
    assert {"flux-dev", "flux-schnell"} <= set(ALIASES)


def test_editing_models_of_qwen():
    pipe = make_pipeline("qwen", make_transformer("qwen", zero_cond_t=True))
    with pytest.raises(GuidanceError, match="zero_cond_t"), guided(pipe, Recipe("L0.H0")):
        pass
    with pytest.raises(ModelError, match="doubles the batch"):
        family_of(pipe).head_map(pipe.transformer)


def test_pipelines_that_join_pictures_to_the_latents(transformers):
    parts = {"vae": None, "text_encoder": None, "tokenizer": None, "processor": None, "scheduler": None}
    pipe = QwenImageEditPipeline(transformer=transformers["qwen"], **parts)
    with pytest.raises(GuidanceError, match="QwenImageEditPipeline belongs to no supported family"):
        guided(pipe, Recipe("L0.H0")).__enter__()


def test_qwen_image_21_is_no_qwen_image():
    """Its text looks back only, and its keys and values are kept from the first step on."""
    model = QwenImage21Transformer2DModel(num_layers=1, attention_head_dim=8, num_attention_heads=1, context_in_dim=8)
    with pytest.raises(ModelError, match="QwenImage21Transformer2DModel belongs to no supported family"):
        family_of(model)


def call_guided(variant, transformer, recipe, gradients=False, **changes):
    pipe = make_pipeline(variant, transformer)
    arguments = inputs(variant, 1) | {"timestep": at(variant, schedule(pipe)[0], 1)} | changes
    with torch.set_grad_enabled(gradients), guided(pipe, recipe):
        return call(transformer, arguments)


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (Recipe("L0.H0", strength=1e-300), "changes nothing in the prediction for image 0"),
        (Recipe("L0.H9"), "L0.H9"),
        (Recipe("L0.H0", interval=(0.9, 0.95)), "holds none of the 4"),
    ],
)
@pytest.mark.parametrize("variant", VARIANTS)
def test_doing_nothing_is_an_error(transformers, variant, recipe, message):
    with pytest.raises(GuidanceError, match=message):
        call_guided(variant, transformers[variant], recipe)


@pytest.mark.parametrize("mode", ["extract", "cached"])
def test_cached_keys_and_values(transformers, mode):
    with pytest.raises(GuidanceError, match="kv_cache_mode"):
        call_guided("flux2", transformers["flux2"], Recipe("L0.H0"), kv_cache_mode=mode, num_ref_tokens=2)


@pytest.mark.parametrize("head", ["L0.H0", "L3.H0"])
def test_processors_with_a_cache(transformers, head):
    transformer = copy.deepcopy(transformers["flux2"])
    for block in transformer.transformer_blocks:
        block.attn.set_processor(Flux2KVAttnProcessor())
    for block in transformer.single_transformer_blocks:
        block.attn.set_processor(Flux2KVParallelSelfAttnProcessor())
    with pytest.raises(GuidanceError, match="computed by Flux2KV"):
        call_guided("flux2", transformer, Recipe(head))


@pytest.mark.parametrize("variant", ["flux", "flux2", "qwen"])
def test_caches_of_diffusers(transformers, variant):
    """They take blocks from an earlier step, with rows that are not there in this one."""
    model = copy.deepcopy(transformers[variant])
    model.enable_cache(diffusers.FirstBlockCacheConfig(threshold=0.3))
    with pytest.raises(GuidanceError, match=r"call pipe\.transformer\.disable_cache\(\)"):
        call_guided(variant, model, Recipe("L1.H0"))
    model.disable_cache()
    call_guided(variant, model, Recipe("L1.H0"))
    diffusers.apply_first_block_cache(model, diffusers.FirstBlockCacheConfig(threshold=0.3))
    with pytest.raises(GuidanceError, match="hook 'fbc_leader_block_hook' changes what runs"):
        call_guided(variant, model, Recipe("L1.H0"))


@pytest.mark.parametrize("variant", ["flux", "flux2", "qwen", "chroma", "zimage"])
def test_gradient_checkpointing(transformers, variant):
    """Without gradients it does nothing."""
    model = copy.deepcopy(transformers[variant])
    model.enable_gradient_checkpointing()
    model.train()
    found, want = (call_guided(variant, each, Recipe("L1.H0")) for each in (model, transformers[variant]))
    assert torch.equal(found, want)
    with pytest.raises(GuidanceError, match=r"disable_gradient_checkpointing\(\)"):
        call_guided(variant, model, Recipe("L1.H0"), gradients=True)
    assert call_guided(variant, transformers[variant], Recipe("L1.H0"), gradients=True).requires_grad


@pytest.mark.parametrize("variant", ["flux", "flux2"])
def test_masks_from_outside(transformers, variant):
    """FLUX's processors take them, and neither targets nor copies know them."""
    tokens = inputs(variant, 1)["encoder_hidden_states"].shape[1] + inputs(variant, 1)["hidden_states"].shape[1]
    kwargs = {"attention_mask": torch.ones(1, 1, tokens, tokens, dtype=torch.bool)}
    with pytest.raises(GuidanceError, match="attention_mask in joint_attention_kwargs"):
        call_guided(variant, transformers[variant], Recipe("L1.H0", target="uniform"), joint_attention_kwargs=kwargs)


def test_reference_images(transformers):
    """Their tokens have a time of their own, ten and more."""
    plain = inputs("flux2", 1)
    ids = torch.cat([plain["img_ids"], plain["img_ids"] + torch.tensor([10, 0, 0, 0])], dim=1)
    states = torch.cat([plain["hidden_states"]] * 2, dim=1)
    with pytest.raises(GuidanceError, match="reference images"):
        call_guided("flux2", transformers["flux2"], Recipe("L0.H0"), img_ids=ids, hidden_states=states)


def test_several_pictures_in_a_row(transformers):
    states = torch.cat([inputs("qwen", 1)["hidden_states"]] * 2, dim=1)
    with pytest.raises(GuidanceError, match="several pictures"):
        call_guided("qwen", transformers["qwen"], Recipe("L0.H0"), img_shapes=[[(1, *GRID)] * 2], hidden_states=states)


# Prompts. The text encoders are far too large to build here: a table of letters stands for what they give.


def letters(prompt):
    """(tokens, WIDTH)."""
    return torch.stack([normal(WIDTH, seed=ord(letter)) for letter in prompt or " "])


class SpellingQwen(QwenImagePipeline):
    def _get_qwen_prompt_embeds(self, prompt=None, device=None, dtype=None):
        rows = [letters(text) for text in prompt]
        longest = max(map(len, rows))
        embeds = torch.stack([torch.cat([row, row.new_zeros(longest - len(row), WIDTH)]) for row in rows])
        return embeds, torch.stack([(torch.arange(longest) < len(row)).long() for row in rows])


class SpellingChroma(ChromaPipeline):
    """Eight tokens for every text; the mask is of numbers, 1 for the letters and one token more."""

    def _get_t5_prompt_embeds(self, prompt=None, num_images_per_prompt=1, max_sequence_length=512, device=None):
        assert (num_images_per_prompt, max_sequence_length) == (1, 512)
        texts = [text.strip() for text in prompt]
        masks = [(torch.arange(8) <= len(text)).double() for text in texts]
        return torch.stack([letters(f"{text:.<8}") for text in texts]), torch.stack(masks)


def spelling(variant, transformer):
    kind = {"qwen": SpellingQwen, "chroma": SpellingChroma}[variant]
    pipe = kind(**make_pipeline(variant, transformer).components)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.mark.usefixtures("precise")
@pytest.mark.parametrize(("variant", "lengths"), [("qwen", [3, 1, 4]), ("chroma", [8, 8, 8])])
def test_encoded_prompts(transformers, variant, lengths):
    """What is encoded apart and joined draws the same as the prompts themselves, also beside longer ones."""
    pipe = spelling(variant, transformers[variant])
    family, prompts = family_of(pipe), ["cat", "a", "owl?"]
    encoded = family.encode(pipe, prompts)
    assert [row["prompt_embeds"].shape[1] for row in encoded] == lengths
    assert torch.equal(family.encode(pipe, ["a"])[0]["prompt_embeds"], encoded[1]["prompt_embeds"])
    latents = normal(3, GRID[0] * GRID[1], CHANNELS, seed=5)
    size = pipe.vae_scale_factor * 2
    common = {
        "latents": latents,
        "height": GRID[0] * size,
        "width": GRID[1] * size,
        "num_inference_steps": 2,
        "output_type": "latent",
        **family.cfg_arguments(pipe, 2.0),
    }
    wanted = pipe(prompts, negative_prompt=[" "] * 3, **common).images
    arguments = family.join(encoded)
    nothing = family.join([family.encode(pipe, [""])[0]] * 3)
    arguments |= {f"negative_{name}": rows for name, rows in nothing.items()}
    assert error(pipe(**arguments, **common).images, wanted) < 1e-12


def cfg_arguments(pipe, cfg):
    return family_of(pipe).cfg_arguments(pipe, cfg)


def test_arguments_for_classifier_free_guidance(transformers):
    pipes = {variant: make_pipeline(variant, transformers[variant]) for variant in VARIANTS}
    assert cfg_arguments(pipes["qwen"], 3.0) == {"true_cfg_scale": 3.0}
    assert cfg_arguments(pipes["chroma"], 3.0) == cfg_arguments(pipes["flux2_klein"], 3.0) == {"guidance_scale": 3.0}
    assert cfg_arguments(pipes["zimage"], 3.0) == {"guidance_scale": 2.0}
    assert cfg_arguments(pipes["flux2"], 1.0) == {}
    with pytest.raises(ModelError, match=r"FLUX\.2-dev does no classifier-free guidance"):
        cfg_arguments(pipes["flux2"], 3.0)
    pipes["flux2_klein"].register_to_config(is_distilled=True)
    with pytest.raises(ModelError, match="distilled model"):
        cfg_arguments(pipes["flux2_klein"], 3.0)
    assert [family_of(pipe).pixels(pipe) for pipe in pipes.values()] == [16, 16, 16, 4, 16, 16, 16]
