"""Fixtures: the tiny transformers, built once, and rotary embeddings that do not round."""

from __future__ import annotations

import diffusers.models.transformers.transformer_flux as flux_module
import diffusers.models.transformers.transformer_flux2 as flux2_module
import diffusers.models.transformers.transformer_qwenimage as qwen_module
import pytest
import torch
from diffusers.models.transformers.transformer_z_image import ZSingleStreamAttnProcessor
from tiny_families import VARIANTS, doubled, make_transformer

import pagopt.models.flux
import pagopt.models.qwen_image
import pagopt.models.z_image


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Models this small only wait for each other on several threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def transformers():
    """One transformer of each variant. Shared by all tests, which leave them as they are."""
    return {name: make_transformer(name) for name in VARIANTS}


@pytest.fixture
def precise(monkeypatch):
    """The rotary embeddings of diffusers, without their rounding to float32, which would hide errors below 1e-7."""
    for module in (flux_module, flux2_module, pagopt.models.flux):
        monkeypatch.setattr(module, "apply_rotary_emb", _rotary)
    for module in (qwen_module, pagopt.models.qwen_image, pagopt.models.z_image):
        monkeypatch.setattr(module, "apply_rotary_emb_qwen", _complex_rotary)
    monkeypatch.setattr(ZSingleStreamAttnProcessor, "__call__", doubled(ZSingleStreamAttnProcessor.__call__))


def _rotary(x, freqs_cis, sequence_dim):
    """``x`` is (rows, tokens, heads, width)."""
    assert sequence_dim == 1
    cosine, sine = (table.to(x.dtype)[None, :, None] for table in freqs_cis)
    real, imaginary = x.unflatten(-1, (-1, 2)).unbind(-1)
    return x * cosine + torch.stack([-imaginary, real], dim=-1).flatten(-2) * sine


def _complex_rotary(x, freqs_cis, use_real):
    """``x`` is (rows, tokens, heads, width)."""
    assert not use_real
    turned = torch.view_as_complex(x.unflatten(-1, (-1, 2)).contiguous()) * freqs_cis[:, None].to(torch.complex128)
    return torch.view_as_real(turned).flatten(-2)
