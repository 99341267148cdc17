"""After the ``with`` block, however it is left, the model is bit for bit what it was."""

from __future__ import annotations

import pytest
import torch
from tiny_sd3 import run

from pagopt.errors import GuidanceError
from pagopt.guide import guided
from pagopt.models import fingerprint
from pagopt.recipe import Recipe

RECIPE = Recipe("L0.H0 L1.H2", strength=0.7)


def anatomy(pipe):
    """Everything that guidance might leave behind in a model."""
    found = {}
    for name, module in pipe.transformer.named_modules():
        found[name] = (
            sorted(module.__dict__),
            len(module._forward_hooks),
            len(module._forward_pre_hooks),
            len(module._forward_hooks_with_kwargs),
            len(module._forward_pre_hooks_with_kwargs),
            len(module._backward_hooks),
            id(getattr(module, "processor", None)),
            "forward" in module.__dict__,
        )
    return found


@pytest.fixture
def unchanged(any_pipe):
    """Checks at the end of the test that the pipeline is the one that came in."""
    weights = {name: tensor.clone() for name, tensor in any_pipe.transformer.state_dict().items()}
    before, name = anatomy(any_pipe), fingerprint(any_pipe)
    image = run(any_pipe, ["cat"], g=2.0)
    yield any_pipe
    after = any_pipe.transformer.state_dict()
    assert list(after) == list(weights)
    assert all(torch.equal(after[name], weights[name]) for name in weights)
    assert anatomy(any_pipe) == before
    assert fingerprint(any_pipe) == name
    assert torch.equal(run(any_pipe, ["cat"], g=2.0), image)


def test_after_the_block(unchanged):
    with guided(unchanged, RECIPE):
        run(unchanged, ["cat"])
        assert any(module._forward_hooks for module in unchanged.transformer.modules())


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, torch.OutOfMemoryError])
def test_after_an_exception_between_the_steps(unchanged, error):
    def fail(pipe, step, timestep, tensors):
        raise error("stop")

    with pytest.raises(error, match="stop"), guided(unchanged, RECIPE):
        run(unchanged, ["cat"], g=2.0, callback_on_step_end=fail)


def test_after_an_exception_in_the_middle_of_a_forward(unchanged):
    last = unchanged.transformer.transformer_blocks[2]

    def fail(module, args, kwargs):
        raise MemoryError("in the last block")

    handle = last.register_forward_pre_hook(fail, with_kwargs=True)
    try:
        with pytest.raises(MemoryError, match="last block"), guided(unchanged, RECIPE):
            run(unchanged, ["cat"])
    finally:
        handle.remove()


def test_after_an_error_of_its_own(unchanged):
    with pytest.raises(GuidanceError, match="2 recipes for 1 images"), guided(unchanged, [RECIPE, RECIPE]):
        run(unchanged, ["cat"])
    with pytest.raises(GuidanceError, match="unknown head"), guided(unchanged, Recipe("L7.H0")):
        pass
    with guided(unchanged, RECIPE):  # usable again at once
        run(unchanged, ["cat"])


def test_a_forward_that_failed_does_not_spoil_the_next(unchanged):
    with guided(unchanged, RECIPE):
        want = run(unchanged, ["cat"], g=2.0)

    def fail_once(module, args):
        handle.remove()
        raise MemoryError

    with guided(unchanged, RECIPE):
        handle = unchanged.transformer.proj_out.register_forward_pre_hook(fail_once)
        with pytest.raises(MemoryError):
            run(unchanged, ["cat"], g=2.0)
        assert torch.equal(run(unchanged, ["cat"], g=2.0), want)
