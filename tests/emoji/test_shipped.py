"""The shipped folder: complete, small, harmless to load, and able to draw."""

import json
import re
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusion3Pipeline
from transformers import CLIPImageProcessor, CLIPModel, CLIPTokenizer

import pagopt.models

MODEL = Path(pagopt.models.__file__).parent / "emoji"


@pytest.fixture(scope="module")
def pipe():
    pipe = StableDiffusion3Pipeline.from_pretrained(MODEL / "pipeline")
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="module")
def facts():
    return json.loads((MODEL / "styles.json").read_text())


def draw(pipe, prompts, **options):
    generator = [torch.Generator().manual_seed(i) for i in range(len(prompts))]
    defaults = {"num_inference_steps": 12, "guidance_scale": 2.0, "max_sequence_length": 1, "output_type": "np"}
    return pipe(prompts, generator=generator, **{**defaults, **options}).images


def test_only_data_and_not_too_much_of_it():
    files = [path for path in MODEL.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} <= {".safetensors", ".json", ".txt", ".md"}
    in_the_wheel = sum(len(zlib.compress(path.read_bytes())) for path in files)
    assert in_the_wheel <= 32_000_000


def test_everything_loads_as_float32(pipe):
    parts = [pipe.transformer, pipe.vae, pipe.text_encoder, pipe.text_encoder_2, pipe.text_encoder_3]
    assert {part.dtype for part in parts} == {torch.float32}


def test_the_plain_call_draws_64_by_64(pipe):
    image = pipe("flat, red apple", num_inference_steps=2).images[0]
    assert image.size == (64, 64)


def test_the_silent_t5_changes_nothing(pipe):
    bare = StableDiffusion3Pipeline.from_pretrained(MODEL / "pipeline", text_encoder_3=None, tokenizer_3=None)
    bare.set_progress_bar_config(disable=True)
    options = {"num_inference_steps": 2, "max_sequence_length": 7}
    assert np.array_equal(draw(pipe, ["ink, cat face"], **options), draw(bare, ["ink, cat face"], **options))


def test_the_number_of_empty_text_rows_hardly_matters(pipe):
    prompts = ["flat, red apple", "cartoon, balloon"]
    few, many = (
        draw(pipe, prompts, max_sequence_length=1, num_inference_steps=4),
        draw(pipe, prompts, max_sequence_length=256, num_inference_steps=4),
    )
    assert np.abs(few - many).mean() < 0.05


def test_tokens_round_trip_and_the_longest_caption_fits(pipe, facts):
    tokenizer = pipe.tokenizer
    assert tokenizer.model_max_length == 12
    for concept in facts["concepts"]:
        tokens = tokenizer(f"monotone, {concept}").input_ids
        assert len(tokens) <= 12
        # CLIP's tokenizer sets digits apart: "1st" comes back as "1 st".
        expected = re.sub(r"(?<=\d)(?=[a-z])", " ", f"monotone , {concept}")
        assert tokenizer.decode(tokens, skip_special_tokens=True) == expected


def test_facts_are_consistent(facts):
    assert len(facts["styles"]) >= 4
    assert len(set(facts["concepts"])) == len(facts["concepts"]) >= 850
    assert len(facts["held_out_concepts"]) >= 0.03 * len(facts["concepts"])
    assert set(facts["held_out_concepts"]) < set(facts["concepts"])
    pairs = [tuple(pair) for pair in facts["held_out_pairs"]]
    assert len(set(pairs)) == len(pairs)
    assert all(style in facts["styles"] and concept in facts["concepts"] for style, concept in pairs)
    assert abs(len(pairs) / (len(facts["styles"]) * len(facts["concepts"])) - 0.05) < 0.01


def test_the_scorer_knows_the_styles_of_drawn_pictures(pipe, facts):
    concepts = ["red apple", "cat face"]
    labels = [(style, concept) for style in facts["styles"] for concept in concepts]
    images = draw(pipe, [f"{style}, {concept}" for style, concept in labels])
    scorer = CLIPModel.from_pretrained(MODEL / "scorer").eval()
    tokenizer = CLIPTokenizer.from_pretrained(MODEL / "scorer")
    processor = CLIPImageProcessor.from_pretrained(MODEL / "scorer")
    pictures = processor(list((images * 255).round().astype(np.uint8)), return_tensors="pt").pixel_values
    assert pictures.shape == (len(labels), 3, 64, 64)
    words = tokenizer(facts["styles"], padding="max_length", return_tensors="pt").input_ids
    with torch.inference_mode():
        seen = torch.nn.functional.normalize(scorer.get_image_features(pictures).pooler_output, dim=-1)
        said = torch.nn.functional.normalize(scorer.get_text_features(words).pooler_output, dim=-1)
    right = (seen @ said.T).argmax(1) == torch.tensor([facts["styles"].index(style) for style, _ in labels])
    assert right.float().mean() >= 0.8
