"""Muon: orthogonal updates, torch's own as the reference, and checkpoints of the optimizer before it."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from tools.emoji.muon import Muon, orthogonal


def grads(parameters, seed):
    generator = torch.Generator().manual_seed(seed)
    for p in parameters:
        p.grad = torch.randn(p.shape, generator=generator)


@pytest.mark.parametrize("shape", [(3, 8, 8), (2, 5, 20), (2, 20, 5)])
def test_updates_are_nearly_orthogonal(shape):
    values = torch.linalg.svdvals(orthogonal(torch.randn(shape, generator=torch.Generator().manual_seed(0))))
    assert ((values > 0.3) & (values < 1.3)).all()


def test_matrices_take_the_steps_of_torch():
    """torch's iterates in bfloat16, so the two agree to its digits."""
    ours = [nn.Parameter(torch.randn(6, 10)), nn.Parameter(torch.randn(6, 10)), nn.Parameter(torch.randn(12, 4))]
    theirs = copy.deepcopy(ours)
    mine = Muon([{"params": ours, "orthogonal": True, "weight_decay": 0.1}], lr=0.02)
    reference = torch.optim.Muon(theirs, lr=0.02, weight_decay=0.1, momentum=0.95, adjust_lr_fn="match_rms_adamw")
    for step in range(3):
        grads(ours, step)
        grads(theirs, step)
        mine.step()
        reference.step()
    for a, b in zip(ours, theirs, strict=True):
        assert (a - b).abs().max() < 0.003


def test_the_rest_takes_the_steps_of_adamw_and_goes_on_from_its_checkpoint():
    ours = [nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(2, 2))]
    theirs = copy.deepcopy(ours)
    reference = torch.optim.AdamW(theirs, lr=0.01, betas=(0.9, 0.99), weight_decay=0.05)
    for step in range(3):
        grads(theirs, step)
        reference.step()
    for a, b in zip(ours, theirs, strict=True):
        a.data.copy_(b)
    mine = Muon([{"params": ours, "orthogonal": False, "weight_decay": 0.05}], lr=0.01)
    mine.load_state_dict(copy.deepcopy(reference.state_dict()))
    for step in range(3, 6):
        grads(ours, step)
        grads(theirs, step)
        mine.step()
        reference.step()
    for a, b in zip(ours, theirs, strict=True):
        assert torch.allclose(a, b, rtol=1e-6)
