"""Finding, loading and telling apart models."""

from __future__ import annotations

import copy
import json
import shutil

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, StableDiffusion3Pipeline
from peft import LoraConfig
from tiny_sd3 import noise
from tokenizers import normalizers

import pagopt.models as models
from pagopt.cli import main
from pagopt.embedded import scorer_folder
from pagopt.errors import ModelError, UnknownName
from pagopt.heads import Head, HeadMap, Site
from pagopt.models import family_of, fingerprint, fingerprints, head_map_of, load_pipeline, loading, resolve_model


@pytest.fixture(scope="module")
def stock(pipelines):
    """The pipelines with a scheduler that diffusers can load again."""
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    return {
        name: StableDiffusion3Pipeline(**(pipe.components | {"scheduler": scheduler}))
        for name, pipe in pipelines.items()
    }


@pytest.fixture(scope="module")
def folders(stock, tmp_path_factory):
    base = tmp_path_factory.mktemp("models")
    for name, pipe in stock.items():
        pipe.save_pretrained(base / name)
    return base


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    """No test may ask the network."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


def test_names(tmp_path, folders):
    assert resolve_model("sd3-medium") == "stabilityai/stable-diffusion-3-medium-diffusers"
    assert resolve_model("someone/their-model") == "someone/their-model"
    assert resolve_model(str(folders / "sd3")) == str(folders / "sd3")
    with pytest.raises(UnknownName, match=r"unknown model 'sd3-medum'. Did you mean 'sd3-medium'"):
        resolve_model("sd3-medum")
    with pytest.raises(UnknownName, match="emoji, sd3-medium"):
        resolve_model("/no/such/folder")
    with pytest.raises(ModelError, match=r"no model_index\.json"):
        resolve_model(str(tmp_path))


def test_the_embedded_model_is_named_when_it_is_missing(tmp_path, monkeypatch):
    monkeypatch.setitem(models.ALIASES, "emoji", str(tmp_path / "gone"))
    with pytest.raises(ModelError, match="make emoji"):
        resolve_model("emoji")


def test_scorers(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    assert scorer_folder(str(tmp_path)) == tmp_path
    with pytest.raises(UnknownName, match=r"unknown scorer 'emojy'\. Did you mean 'emoji'"):
        scorer_folder("emojy")


@pytest.mark.parametrize("variant", ["sd3", "qk_norm", "dual"])
def test_loading_what_was_saved(folders, stock, variant):
    loaded = load_pipeline(str(folders / variant), dtype=torch.float64)
    original = stock[variant]
    assert type(loaded) is type(original)
    for name, tensor in original.transformer.state_dict().items():
        assert torch.equal(loaded.transformer.state_dict()[name], tensor)
    inputs = (noise(1), torch.ones(1, 4, 32).double(), torch.ones(1, 16).double(), torch.tensor([500.0]))
    with torch.no_grad():
        assert torch.equal(loaded.transformer(*inputs).sample, original.transformer(*inputs).sample)


def test_head_maps(folders, pipelines):
    expected = {
        "sd3": [(0, "attn"), (1, "attn"), (2, "attn")],
        "dual": [(0, "attn"), (0, "attn2"), (1, "attn"), (1, "attn2"), (2, "attn")],
    }
    for variant, sites in expected.items():
        pipe = pipelines[variant]
        family = family_of(pipe)
        wanted = HeadMap(tuple(Site(block, name, 3) for block, name in sites))
        assert family.head_map(pipe.transformer) == wanted
        assert head_map_of(str(folders / variant)) == wanted
        assert [site.key for site in family.attentions(pipe.transformer)] == sites
        assert family_of(pipe.transformer) is family
    assert Head(1, 2, "attn2") in head_map_of(str(folders / "dual"))


def test_the_published_configurations():
    """Stable Diffusion 3 medium has 24 x 24 heads (paper); 3.5-medium has a second site in its first 13 blocks."""
    family = models.FAMILIES[0]
    medium = family.head_map_from_config({"num_layers": 24, "num_attention_heads": 24})
    assert (len(medium), medium.blocks) == (576, 24)
    dual = {"num_layers": 24, "num_attention_heads": 24, "dual_attention_layers": list(range(13))}
    assert len(family.head_map_from_config(dual)) == 576 + 13 * 24


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("flux-dev", ["0-56    attn       24     L0-56.H0-23", "1368 heads in 57 blocks"]),
        ("black-forest-labs/FLUX.1-schnell", ["0-56    attn       24     L0-56.H0-23", "1368 heads in 57 blocks"]),
        (
            "sd3.5-medium",
            [
                "0-23    attn       24     L0-23.H0-23",
                "0-12    attn2      24     L0-12.attn2.H0-23",
                "888 heads in 24 blocks",
            ],
        ),
    ],
)
def test_heads_of_models_that_ask_for_a_login(name, rows, capsys, monkeypatch):
    monkeypatch.setattr(loading, "read_index", lambda source: pytest.fail("the hub is asked"))
    assert main(["heads", name]) == 0
    assert [line.strip() for line in capsys.readouterr().out.splitlines()[1:]] == rows


@pytest.mark.parametrize("pipeline", ["KolorsPipeline", "StableDiffusionPipeline", ["their_code", "Pipeline"], None])
def test_other_families_are_refused_before_anything_is_loaded(tmp_path, pipeline):
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": pipeline}))
    for load in (load_pipeline, head_map_of):
        with pytest.raises(ModelError, match="no supported family") as caught:
            load(str(tmp_path))
        assert "StableDiffusion3Pipeline" in str(caught.value)


def test_damaged_folders(tmp_path, folders):
    (tmp_path / "model_index.json").write_text("{")
    with pytest.raises(ModelError, match="cannot load the model"):
        load_pipeline(str(tmp_path))
    (tmp_path / "model_index.json").write_text((folders / "sd3" / "model_index.json").read_text())
    with pytest.raises(ModelError, match="cannot load the model"):
        load_pipeline(str(tmp_path))
    with pytest.raises(ModelError, match="cannot load the model"):
        head_map_of(str(tmp_path))


def test_weights_that_are_pickles_are_not_read(tmp_path, folders, pipelines):
    shutil.copytree(folders / "sd3", tmp_path / "pickled")
    weights = tmp_path / "pickled" / "transformer" / "diffusion_pytorch_model.safetensors"
    weights.unlink()
    torch.save(pipelines["sd3"].transformer.state_dict(), weights.with_suffix(".bin"))
    with pytest.raises(ModelError, match="cannot load the model"):
        load_pipeline(str(tmp_path / "pickled"))


def test_a_hub_model_without_the_hub():
    with pytest.raises(ModelError, match="needs network access"):
        load_pipeline("someone/their-model")


def test_the_fingerprint_stays(folders, stock):
    for variant, pipe in stock.items():
        name = fingerprint(pipe)
        assert len(name) == 32
        assert int(name, 16) >= 0
        assert fingerprint(load_pipeline(str(folders / variant), dtype=torch.float64)) == name
    assert len({fingerprint(pipe) for pipe in stock.values()}) == 3


def test_the_fingerprint_changes_with_whatever_changes_images(pipe):
    names = {fingerprint(pipe)}
    own = copy.deepcopy(pipe)
    own.transformer.proj_out.bias.data[0] += 1e-9
    names.add(fingerprint(own))
    own.scheduler.register_to_config(shift=2.0)
    names.add(fingerprint(own))
    own.tokenizer.model_max_length = 5
    names.add(fingerprint(own))
    names.add(fingerprint(own.to(torch.float32)))
    assert len(names) == 5
    own.transformer.to("meta")
    with pytest.raises(ModelError, match="before offloading"):
        fingerprint(own)


def test_what_a_tokenizer_does_with_a_text_counts_and_what_a_call_leaves_in_it_does_not():
    pipe = load_pipeline("emoji")
    names = {fingerprint(pipe)}
    pipe("flat, sun", num_inference_steps=1, output_type="latent")
    assert {fingerprint(pipe)} == names
    rules = pipe.tokenizer.backend_tokenizer
    before, exchange = rules.normalizer, normalizers.Replace("red", "blue")
    for changed in ([exchange, before], [before, exchange]):
        rules.normalizer = normalizers.Sequence(changed)
        names.add(fingerprint(pipe))
    rules.normalizer = before
    assert fingerprint(pipe) in names
    pipe.tokenizer.truncation_side = "left"
    names.add(fingerprint(pipe))
    assert len(names) == 4


def test_the_rules_of_the_embedded_tokenizers_are_those_that_do_not_count(monkeypatch):
    """Recipes and stores know its fingerprint from before rules counted."""
    pipe = load_pipeline("emoji")
    now = fingerprint(pipe)
    monkeypatch.setattr(fingerprints, "_rules", lambda tokenizer: "")
    assert fingerprint(pipe) == now


def test_a_single_head_that_is_cut_off_makes_another_model():
    """Whichever columns or rows of a large matrix change: pruning changes a few of them alone."""
    pipe = load_pipeline("emoji")
    names, weight = {fingerprint(pipe)}, pipe.transformer.transformer_blocks[3].attn.to_out[0].weight.data
    for part in [weight[:, head * 32 : (head + 1) * 32] for head in range(6)] + [weight[7:10]]:
        kept = part.clone()
        part.zero_()
        names.add(fingerprint(pipe))
        part.copy_(kept)
    assert len(names) == 8
    assert fingerprint(pipe) in names


def test_adapters_count_as_they_act():
    pipe = load_pipeline("emoji")
    base, latents = fingerprint(pipe), torch.randn(1, 8, 16, 16, generator=torch.Generator().manual_seed(0))

    def drawn():
        with torch.no_grad():
            return pipe(
                "flat, sun", num_inference_steps=1, guidance_scale=1, latents=latents, output_type="latent"
            ).images

    plain, seen = drawn(), {}
    pipe.transformer.add_adapter(LoraConfig(r=2, init_lora_weights=False, target_modules=["to_q", "to_out.0"]), "one")
    for weight in (1.0, 0.3, 0.0):
        pipe.transformer.set_adapters(["one"], [weight])
        seen[fingerprint(pipe)] = drawn()
    assert len(seen) == 3
    assert torch.equal(seen.pop(base), plain), "with weight 0 it is the model as it was"
    assert not any(torch.equal(latent, plain) for latent in seen.values())
    pipe.transformer.set_adapters(["one"], [0.3])
    assert list(seen).index(fingerprint(pipe)) == 1
    pipe.transformer.disable_adapters()
    assert fingerprint(pipe) == base
    pipe.transformer.enable_adapters()
    pipe.transformer.delete_adapters("one")
    assert fingerprint(pipe) == base
