"""The scorer's folder: read by transformers and by open_clip (`make openclip` runs the second for real)."""

import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import CLIPModel

from tools.emoji.artwork import Artwork
from tools.emoji.imperfect import Bank
from tools.emoji.open_clip import open_clip_config, open_clip_weights
from tools.emoji.scorer import ScorerStage, build_scorer, save_scorer


@pytest.fixture(scope="module")
def model(tokenizer):
    torch.manual_seed(0)
    return build_scorer(tokenizer, width=32, layers=2).eval()


def test_every_weight_has_one_place_in_open_clip(model):
    ours, theirs = model.state_dict(), open_clip_weights(model)
    assert sum(v.numel() for v in theirs.values()) == sum(v.numel() for v in ours.values() if v.is_floating_point())
    for key in ("transformer.resblocks.1.attn.in_proj_weight", "visual.transformer.resblocks.0.mlp.c_fc.bias"):
        assert key in theirs
    queries = theirs["visual.transformer.resblocks.1.attn.in_proj_weight"][:32]
    assert torch.equal(queries, ours["vision_model.encoder.layers.1.self_attn.q_proj.weight"])


def test_the_folder_holds_both_forms(model, tokenizer, tmp_path):
    save_scorer(model, tokenizer, tmp_path)
    config = json.loads((tmp_path / "open_clip_config.json").read_text())
    assert config == open_clip_config(model)
    assert config["model_cfg"]["text_cfg"]["eos_id"] == tokenizer.eos_token_id
    weights = load_file(tmp_path / "open_clip_model.safetensors")
    loaded = CLIPModel.from_pretrained(tmp_path)
    expected = open_clip_weights(loaded)
    assert weights.keys() == expected.keys()
    assert all(torch.equal(value.float(), expected[name]) for name, value in weights.items())


def test_a_step_of_training_has_finite_losses_and_gradients(tokenizer):
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (5, 3, 3, 128, 128), dtype=torch.uint8, generator=generator)
    names = ["cat", "red-bus", "sun"]
    bank = Bank(images[:, 0, :, ::2, ::2].contiguous(), torch.tensor([[s, 0] for s in range(5)]))
    stage = ScorerStage(
        Artwork(["flat", "glossy", "ink", "cartoon", "monotone"], names, images),
        [(0, 1)], tokenizer, bank=bank, steps=2, batch=8, synonyms={"cat": ["puss"]},
        model=build_scorer(tokenizer, width=32, layers=1),
    )  # fmt: skip
    losses = stage.loss(0, generator)
    losses["loss"].backward()
    assert set(losses) == {"loss", "content", "style", "pair"}
    assert all(value.isfinite() for value in losses.values())
    assert stage.model.visual_projection.weight.grad.abs().sum() > 0
    assert [0, 1] not in stage.pairs.tolist()
