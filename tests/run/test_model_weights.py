"""How weights are held: dtypes, quantisation, and networks kept off the GPU; through whole commands."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import accelerate
import numpy as np
import pytest
import torch
import yaml
from diffusers import PipelineQuantizationConfig, StableDiffusion3Pipeline, TorchAoConfig
from PIL import Image
from torchao.quantization import Int8WeightOnlyConfig
from transformers import TorchAoConfig as TextTorchAoConfig

from pagopt.cli import main
from pagopt.cli.init import template
from pagopt.errors import ModelError, RecipeError, StudyError, UnknownName
from pagopt.guide import guided
from pagopt.models import Weights, load_pipeline
from pagopt.models.outline import outline_of
from pagopt.models.weights import DTYPES, bytes_of
from pagopt.recipe import PLAIN, Provenance, Recipe, load_recipe
from pagopt.render import Job, Renderer, Task
from pagopt.results import load_results
from pagopt.room import check_offload
from pagopt.store import Store

RECIPE = Recipe("L0.H1 L2.H0", strength=0.6, scale=2.0)
JOBS = [Job(recipe, Task(prompt, seed)) for recipe in (PLAIN, RECIPE) for seed, prompt in enumerate(("cat", "a dog"))]
CPU = ["--trainer.accelerator", "cpu"]


@pytest.fixture
def study(tiny_model: Path, tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    data = {
        "model": str(tiny_model), "prompts": ["cat", "dog"], "held_out_prompts": ["tree", "house"], "steps": 2,
        "reward": "colorfulness", "heads": "L1.H*", "rounds": 1, "heads_per_round": 1, "cfg_scales": [2.0],
    }  # fmt: skip
    path.write_text(yaml.safe_dump(data))
    return path


def stock(folder: Path, **arguments: Any) -> StableDiffusion3Pipeline:
    pipe = StableDiffusion3Pipeline.from_pretrained(folder, **arguments)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def drawn_by(pipe: Any, job: Job, steps: int = 2) -> Image.Image:
    with guided(pipe, job.recipe):
        return pipe(
            job.task.prompt,
            num_inference_steps=steps,
            guidance_scale=1.0,
            max_sequence_length=1,  # as many as the tokenizer of this model's T5 can fill
            generator=torch.Generator().manual_seed(job.task.seed),
        ).images[0]


def furthest(one: list[Image.Image], other: list[Image.Image]) -> int:
    """The largest difference of a pixel's value."""
    pairs = zip(one, other, strict=True)
    return max(int(np.abs(np.asarray(a, int) - np.asarray(b, int)).max()) for a, b in pairs)


@pytest.mark.parametrize("dtype", list(DTYPES))
def test_every_network_is_of_the_dtype(tiny_model: Path, dtype: str) -> None:
    pipe = load_pipeline(str(tiny_model), dtype)
    for name, part in Renderer(pipe, 1).modules().items():
        kinds = {key: parameter.dtype for key, parameter in part.named_parameters()}
        exempt = dtype == "float16" and name == "text_encoder_3"
        for key, kind in kinds.items():
            # A T5 overflows in float16 unless these stay, which is why nothing is converted after loading.
            assert kind == (torch.float32 if exempt and key.endswith(".wo.weight") else DTYPES[dtype]), key


@pytest.mark.parametrize("words", [["--dtype", "float16"], ["--trainer.precision", "16-true"]])
def test_a_search_in_half_precision_draws_what_diffusers_draws(
    study: Path, tiny_model: Path, tmp_path: Path, words: list[str]
) -> None:
    out = tmp_path / "run"
    assert main(["search", str(study), "--out", str(out), *CPU, *words]) == 0
    results = load_results(out / "results.json")
    assert results.weights == {"dtype": "float16"}
    pipe = stock(tiny_model, dtype=torch.float16)
    with Store(out / "store") as store:
        for method in (results.methods[0], results.methods[-1]):
            recipe = Recipe.from_dict(method.recipe)
            for key, task in zip(method.images, results.held_out_tasks, strict=True):
                want = drawn_by(pipe, Job(recipe, Task(*task)))
                assert furthest([store.get_image(key)], [want]) <= 8  # in batches it rounds otherwise


def test_both_ways_to_ask_for_a_dtype_share_a_store(study: Path, tmp_path: Path) -> None:
    store = ["--store", str(tmp_path / "store")]
    assert main(["search", str(study), "--out", str(tmp_path / "a"), *CPU, *store, "--dtype", "float64"]) == 0
    words = ["--trainer.precision", "64-true"]
    assert main(["search", str(study), "--out", str(tmp_path / "b"), *CPU, *store, *words]) == 0
    assert load_results(tmp_path / "b" / "results.json").images_generated == 0


def test_what_comes_after_a_search_holds_the_model_as_it_did(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, file = tmp_path / "run", tmp_path / "run" / "recipe.json"
    assert main(["search", str(study), "--out", str(out), *CPU, "--dtype", "bfloat16", "--quantize", "int8"]) == 0
    _, provenance = load_recipe(file)
    assert provenance is not None
    assert Weights.of(provenance) == Weights("bfloat16", "int8")
    capsys.readouterr()

    one, other = tmp_path / "one.png", tmp_path / "other.png"
    words = ["generate", "--recipe", str(file), "--prompt", "cat", "--device", "cpu"]
    assert main([*words, "--out", str(one)]) == 0
    assert "note:" not in capsys.readouterr().err
    assert main([*words, "--out", str(other), "--quantize", "none", "--dtype", "float32"]) == 0
    assert "in another dtype" in capsys.readouterr().err
    assert furthest([Image.open(one)], [Image.open(other)]) > 0

    prompts = tmp_path / "new.txt"
    prompts.write_text("apple\npear\n")
    words = ["evaluate", str(file), "--prompts", str(prompts), "--best_of", "false", "--cfg_scales", "[2.0]", *CPU]
    assert main([*words, "--out", str(tmp_path / "fair")]) == 0
    assert json.loads((tmp_path / "fair" / "comparison.json").read_text())["fingerprint"] == provenance.fingerprint
    assert main([*words, "--out", str(tmp_path / "unfair"), "--dtype", "float32"]) == 2
    assert "held in another form, which --dtype and --quantize say" in capsys.readouterr().err

    words = ["tune", str(study), "--recipe", str(file), "--trials", "2", "--out", str(tmp_path / "tuned"), *CPU]
    assert main(words) == 2
    said = capsys.readouterr().err
    assert "(bfloat16, int8) with fingerprint" in said
    assert f"({Weights()}) has" in said
    assert main([*words, "--dtype", "bfloat16", "--quantize", "int8"]) == 0
    _, tuned = load_recipe(tmp_path / "tuned" / "recipe.json")
    assert Weights.of(tuned) == Weights("bfloat16", "int8")


def test_quantised_weights_are_those_of_diffusers_and_a_half(tiny_model: Path) -> None:
    pipe = load_pipeline(str(tiny_model), "bfloat16", "int8")
    kinds = {"transformer": TorchAoConfig, "text_encoder_3": TextTorchAoConfig}
    mapping = {name: kind(Int8WeightOnlyConfig()) for name, kind in kinds.items()}
    config = PipelineQuantizationConfig(quant_mapping=mapping)
    own = stock(tiny_model, dtype=torch.bfloat16, quantization_config=config)
    images = Renderer(pipe, 2).render(JOBS)
    assert furthest(images, [drawn_by(own, job) for job in JOBS]) <= 16
    whole = load_pipeline("emoji", "bfloat16")
    eighth = load_pipeline("emoji", "bfloat16", "int8")
    assert bytes_of(eighth.transformer) < 0.52 * bytes_of(whole.transformer)
    assert bytes_of(eighth.text_encoder) == bytes_of(whole.text_encoder)


@pytest.mark.parametrize("quantize", ["int8", "float8"])
def test_quantised_pictures_are_near(tiny_model: Path, quantize: str) -> None:
    whole, eighth = (Renderer(load_pipeline("emoji", "float32", each), 4) for each in (None, quantize))
    jobs = [Job(recipe, Task("flat, red apple", 0)) for recipe in (PLAIN, Recipe("L4.H2", scale=2.0))]
    pictures = whole.render(jobs)
    away = np.abs(np.stack(pictures).astype(int) - np.stack(eighth.render(jobs)).astype(int)).mean()
    assert 0 < away < 4
    assert away < np.abs(np.asarray(pictures[0], int) - np.asarray(pictures[1], int)).mean()


@pytest.mark.parametrize("held", [Weights(), Weights("bfloat16"), Weights("bfloat16", "int8")], ids=str)
def test_bytes_from_the_configuration(held: Weights) -> None:
    pipe = load_pipeline("emoji", held.dtype, held.quantize)
    outline = outline_of("emoji")
    loaded = bytes_of(pipe.transformer) + bytes_of(pipe.vae)
    scales = 0.02 if held.quantize else 0  # and a scale for each row
    assert held.bytes_in(outline.transformer, (outline.vae,)) == pytest.approx(loaded, rel=scales or 1e-12)


@pytest.mark.parametrize("offload", ["model", "sequential"])
@pytest.mark.parametrize("batch", [1, 4])
def test_offloaded_networks_draw_the_same(tiny_model: Path, offload: str, batch: int) -> None:
    """diffusers' own hooks, and here they move networks from the CPU to the CPU."""
    plain = Renderer(load_pipeline(str(tiny_model)), 2)
    pipe = load_pipeline(str(tiny_model))
    renderer = Renderer(pipe, 2, offload=offload)
    if offload == "sequential":  # diffusers says cpu:0, and accelerate takes that for another device

        def layer_by_layer(device: torch.device) -> None:
            for module in renderer.modules().values():
                accelerate.cpu_offload(module, device)

        pipe.enable_sequential_cpu_offload = layer_by_layer
    renderer.at_steps(1).place(torch.device("cpu"))
    hooks = [module._hf_hook for module in renderer.modules().values()]
    for one in (renderer, renderer.at_steps(3)):  # they share the pipeline, which is offloaded once
        one.place(torch.device("cpu"))
    assert all(module._hf_hook is hook for module, hook in zip(renderer.modules().values(), hooks, strict=True))
    assert renderer.fingerprint == plain.fingerprint
    for start in range(0, len(JOBS), batch):
        jobs = JOBS[start : start + batch]
        assert furthest(renderer.render(jobs), plain.render(jobs)) <= 1
        assert furthest(renderer.at_steps(3).render(jobs), plain.at_steps(3).render(jobs)) <= 1
    assert renderer.at_steps(3).fingerprint == plain.fingerprint


def test_a_search_with_offloaded_networks(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On the CPU it is refused, since nothing is gained there; without that rule it finds the same."""
    (tmp_path / "prompts.txt").write_text("key\nbus\n", encoding="utf-8")
    Recipe("L1.H0").save(tmp_path / "recipe.json")
    known = ["--prompts", str(tmp_path / "prompts.txt"), "--reward", "brightness", "--steps", "2", "--cfg_scales", "[]"]
    for command in (
        ["search", str(study)],
        ["plan", str(study)],
        ["atlas", "emoji"],
        ["evaluate", str(tmp_path / "recipe.json"), *known],
        ["generate", "--prompt", "cat", "--device", "cpu"],
    ):
        words = [*command, *(CPU if command[0] != "generate" else [])]
        assert main([*words, "--out", str(tmp_path / f"{command[0]}.png"), "--offload", "model"]) == 2
        told = capsys.readouterr().err
        assert told.startswith("error: offload keeps networks off the GPU"), "no bar before it"
        assert "and this runs on the CPU" in told
    assert main(["search", str(study), "--out", str(tmp_path / "whole"), *CPU]) == 0
    for room in ("evaluate.evaluator", "experiment"):
        monkeypatch.setattr(f"pagopt.{room}.check_offload", lambda offload, device: None)
    assert main(["search", str(study), "--out", str(tmp_path / "offloaded"), "--offload", "model", *CPU]) == 0
    whole, offloaded = (load_recipe(tmp_path / name / "recipe.json") for name in ("whole", "offloaded"))
    assert whole == offloaded
    words = ["--out", str(tmp_path / "tuned"), "--offload", "model", "--recipe", "L1.H0", "--trials", "2"]
    assert main(["tune", str(study), *words, "--space", "{steps: [1, 2]}", *CPU]) == 0


def test_large_pictures_are_decoded_one_by_one(tiny_model: Path) -> None:
    pipe = load_pipeline(str(tiny_model))
    want = Renderer(pipe, 2).render(JOBS)
    assert not pipe.vae.use_slicing
    Renderer(pipe, 2, 512, 512)
    assert pipe.vae.use_slicing
    assert furthest(Renderer(pipe, 2).render(JOBS), want) <= 1


@pytest.mark.parametrize("part", ["transformer", "vae"])
def test_a_picture_of_no_numbers_is_an_error(tiny_model: Path, part: str) -> None:
    """diffusers makes it black, with a warning."""
    pipe = load_pipeline(str(tiny_model), "bfloat16")
    module = pipe.transformer.proj_out if part == "transformer" else pipe.vae.decoder.conv_out
    torch.nn.init.constant_(module.bias, float("nan"))
    with pytest.raises(ModelError, match=r"no numbers \(NaN\) in bfloat16; another dtype may do \(try float32\)"):
        Renderer(pipe, 1).render(JOBS[:1])


def test_what_is_refused(study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UnknownName, match="Did you mean 'bfloat16'"):
        Weights("bf16")
    with pytest.raises(UnknownName, match="unknown quantization 'int4'"):
        Weights(quantize="int4")
    with pytest.raises(UnknownName, match="unknown way to offload 'models'"):
        check_offload("models", torch.device("cuda"))
    for evidence in ({"dtype": 16}, {"dtype": ["float32"]}, {"quantize": {}}, {"quantize": "nf4"}):
        with pytest.raises(RecipeError, match="how its model was held, but unknown"):
            Weights.of(Provenance("emoji", "", evidence=evidence))
    for words, said in (
        (["--dtype", "half"], "unknown dtype 'half'"),
        (["--quantize", "int4"], "unknown quantization 'int4'"),
        (["--dtype", "float16", "--trainer.precision", "64-true"], "contradict each other"),
    ):
        assert main(["search", str(study), "--out", str(tmp_path / "none"), *CPU, *words]) == 2
        assert said in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_sequential_offloading_and_compiled_blocks_exclude_each_other(tiny_model: Path) -> None:
    with pytest.raises(StudyError, match="take offload: model"):
        Renderer(load_pipeline(str(tiny_model)), 2, compile=True, offload="sequential")


def test_what_quantisation_needs(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not torch.cuda.is_available():
        with pytest.raises(ModelError, match="takes a GPU that can"):
            load_pipeline(str(tiny_model), quantize="float8_dynamic")
    monkeypatch.setitem(sys.modules, "torchao.quantization", None)
    with pytest.raises(ModelError, match=r"needs torchao: pip install 'pagopt\[quantize\]'"):
        load_pipeline(str(tiny_model), quantize="int8")


def test_a_new_study_of_a_large_model_asks_for_half_precision() -> None:
    assert yaml.safe_load(template(Path("a.yaml"), model="sd3.5-medium"))["dtype"] == "bfloat16"
    assert "dtype" not in yaml.safe_load(template(Path("a.yaml")))


def test_what_is_not_quantised_is_in_bfloat16_unless_asked(study: Path, tmp_path: Path) -> None:
    assert Weights.asked(None, None) == Weights("float32")
    assert Weights.asked("float32", "int8") == Weights("float32", "int8")
    assert main(["search", str(study), "--quantize", "int8", "--out", str(tmp_path / "run"), *CPU]) == 0
    assert Weights.of(load_recipe(tmp_path / "run" / "recipe.json")[1]) == Weights("bfloat16", "int8")
