"""The formulas, against the maps that they avoid."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pagopt.perturb import guide, interpolate

ROWS, TOKENS, HEADS, WIDTH = 3, 7, 4, 5


def tensors(seed, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    maps = torch.rand(ROWS, HEADS, TOKENS, TOKENS, generator=generator, dtype=torch.float64).softmax(-1)
    values = torch.randn(ROWS, HEADS, TOKENS, WIDTH, generator=generator, dtype=torch.float64)
    strengths = torch.rand(ROWS, HEADS, generator=generator, dtype=torch.float64)
    return maps.to(dtype), values.to(dtype), strengths.to(dtype)


def joined(per_head):
    """(rows, heads, tokens, width) as attention modules hand it on: (rows, tokens, heads * width)."""
    return per_head.transpose(1, 2).flatten(2)


@given(st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_identity_without_a_map(seed):
    maps, values, strengths = tensors(seed)
    u = strengths[:, :, None, None]
    want = joined(((1 - u) * maps + u * torch.eye(TOKENS, dtype=torch.float64)) @ values)
    got = interpolate(joined(maps @ values), joined(values), strengths)
    assert torch.allclose(got, want, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_the_ends_are_exact(dtype):
    maps, values, _ = tensors(0, dtype)
    output, target = joined(maps @ values), joined(values)
    zeros = torch.zeros(ROWS, HEADS, dtype=dtype)
    assert torch.equal(interpolate(output, target, zeros), output)
    assert torch.equal(interpolate(output, target, zeros + 1), target)
    assert interpolate(output, target, zeros).dtype == dtype


def test_untouched_heads_keep_their_bits():
    maps, values, strengths = tensors(1)
    strengths[:, 2] = 0
    output = joined(maps @ values)
    got = interpolate(output, joined(values), strengths)
    heads = got.unflatten(-1, (HEADS, WIDTH)), output.unflatten(-1, (HEADS, WIDTH))
    assert torch.equal(heads[0][:, :, 2], heads[1][:, :, 2])
    assert not torch.equal(heads[0][:, :, 1], heads[1][:, :, 1])


def test_the_output_sets_the_dtype():
    """Under autocast values and outputs may differ."""
    maps, values, strengths = tensors(2, torch.float32)
    got = interpolate(joined(maps @ values), joined(values).bfloat16(), strengths.double())
    assert got.dtype == torch.float32


def test_guidance():
    original, perturbed = torch.randn(2, 3, 4, 4).double(), torch.randn(2, 3, 4, 4).double()
    scale = torch.tensor([3.0, 0.0]).double()
    got = guide(original, perturbed, scale)
    assert torch.allclose(got[0], (1 + 3.0) * original[0] - 3.0 * perturbed[0], rtol=1e-13)
    assert torch.equal(got[1], original[1])
