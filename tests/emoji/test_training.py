"""Training on a tiny configuration with synthetic pictures: it runs, it resumes exactly, its shortcuts are exact."""

import math

import pytest
import torch
from diffusers.models.attention_processor import JointAttnProcessor2_0

from tools.emoji.artwork import concepts, held_out
from tools.emoji.augment import reduce_area, shift_scale, to_unit
from tools.emoji.denoiser import CountedPadding, DenoiserStage, training_times
from tools.emoji.pipeline import Anatomy
from tools.emoji.training import fit, rate

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

TINY = Anatomy(layers=2, heads=2, head_dim=16, text_width=24, text_heads=2, latent_channels=4, latent_size=8)


def stage(tokenizer, steps=4, start=None):
    latents = torch.randn(2, 3, 2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    return DenoiserStage(
        latents, ["ink", "flat"], ["cat", "dog", "red-bus"], [(0, 1)], tokenizer,
        steps=steps, batch=4, anatomy=TINY, start=start, compiled=False,
    )  # fmt: skip


def test_a_resumed_run_equals_an_uninterrupted_one(tokenizer, tmp_path):
    whole, first, second = (stage(tokenizer) for _ in range(3))
    assert fit(whole, tmp_path / "whole", quiet=True) == 4
    assert fit(first, tmp_path / "parts", steps=2, quiet=True) == 2
    assert fit(second, tmp_path / "parts", quiet=True) == 4
    expected = whole.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in second.state_dict().items())
    assert any(not torch.equal(value, expected[name]) for name, value in first.state_dict().items())


def test_one_counted_row_equals_many_equal_rows(tokenizer):
    model = stage(tokenizer).model
    transformer = model.transformer.double()
    for parameter in transformer.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    x, text, pooled = torch.randn(2, 4, 8, 8), torch.randn(2, 5, 48), torch.randn(2, 48)
    inputs = {
        "hidden_states": x.double(),
        "pooled_projections": pooled.double(),
        "timestep": torch.tensor([1.0, 500.0]),
    }
    text = torch.nn.functional.pad(text.double(), (0, 0, 0, 1))
    bias = torch.zeros(2, 1, 1, 16 + 6, dtype=torch.float64)
    bias[..., -1] = math.log(7)
    transformer.set_attn_processor(CountedPadding())
    counted = transformer(encoder_hidden_states=text, joint_attention_kwargs={"padding": bias}, **inputs).sample
    transformer.set_attn_processor(JointAttnProcessor2_0())
    plain = transformer(encoder_hidden_states=torch.nn.functional.pad(text, (0, 0, 0, 6)), **inputs).sample
    torch.testing.assert_close(counted, plain, rtol=1e-10, atol=1e-10)


def test_what_is_held_out_is_little_and_spread():
    names = concepts()
    kept = held_out(names)
    assert len(kept.pairs) == len({name for _, name in kept.pairs}) >= 0.04 * 5 * len(names)
    assert {style for style, _ in kept.pairs} == set(range(5))
    assert len(kept.names) == len(set(kept.names)) >= 0.03 * len(names)
    assert not {name for _, name in kept.pairs} & set(kept.names)
    assert len(kept.from_model()) == len(kept.pairs) + 5 * len(kept.names)
    assert held_out(["red-apple"]).from_model() == []


def test_the_grid_is_large_and_has_no_name_twice():
    names = concepts()
    assert len(names) == len(set(names)) >= 850


def test_training_can_start_from_a_saved_folder(tokenizer, tmp_path):
    trained = stage(tokenizer)
    fit(trained, tmp_path / "run", quiet=True)
    for name in ("text_encoder", "text_encoder_2", "transformer"):
        getattr(trained.model, name).save_pretrained(tmp_path / "folder" / name)
    fresh = stage(tokenizer, start=tmp_path / "folder")
    expected = trained.model.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in fresh.model.state_dict().items())
    assert all(
        torch.equal(a, b) for a, b in zip(fresh.average.module.parameters(), fresh.model.parameters(), strict=True)
    )


def test_held_out_pairs_never_occur_in_training(tokenizer):
    assert [0, 1] not in stage(tokenizer).pairs.tolist()


def test_the_rate_does_not_depend_on_the_end_before_the_decay():
    assert [rate(s, 1000) for s in range(600)] == [rate(s, 5000) for s in range(600)]
    assert rate(0, 1000) < rate(50, 1000) < rate(500, 1000) == 1.0
    assert rate(999, 1000) < 0.05


def test_times_are_shifted_towards_noise():
    times = training_times(4000, torch.Generator().manual_seed(0))
    assert times.min() > 0
    assert times.max() < 1
    assert times.median() > 0.55


def test_moved_pictures_stay_on_white():
    black = torch.zeros(4, 3, 128, 128, dtype=torch.uint8)
    moved = shift_scale(to_unit(black), torch.Generator().manual_seed(0), shift=6, scale=(0.5, 0.6))
    assert moved.shape == (4, 3, 64, 64)
    assert torch.allclose(moved[:, :, 0, 0], torch.ones(4, 3))
    assert moved[:, :, 32, 32].max() < -0.99
    assert torch.allclose(reduce_area(to_unit(black)), -torch.ones(4, 3, 64, 64))
