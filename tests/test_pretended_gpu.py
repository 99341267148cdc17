"""The GPU that is none: it refuses what CUDA refuses, and counts what lies on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import nn

from tools.pretended_gpu import COMPILER, pretended_gpu
from tools.pretended_tensors import Remote, memory

pytestmark = pytest.mark.skipif(torch.cuda.is_available() or COMPILER is None, reason="there is one, or no compiler")
CPU = torch.arange(12.0).reshape(3, 4)


@pytest.fixture
def gpu() -> Iterator[None]:
    with pretended_gpu():
        yield


REFUSED: dict[str, Callable[[torch.Tensor], object]] = {
    "sum": lambda x: x + CPU,
    "concatenation": lambda x: torch.cat([x, CPU]),
    "product": lambda x: nn.functional.linear(x, CPU),
    "choice": lambda x: torch.where(x > 0, x, CPU),
    "values put in": lambda x: x.__setitem__(torch.tensor([0]), CPU[:1]),
    "indices there": lambda x: CPU[torch.tensor([0], device=x.device)],
    "numpy": lambda x: x.numpy(),
    "generator": lambda x: torch.randn(3, device=x.device, generator=torch.Generator()),
    "layer": lambda x: nn.Linear(4, 2)(x),
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("inference", [False, True])
def test_what_cuda_refuses(gpu: None, name: str, inference: bool) -> None:
    with (
        torch.inference_mode(inference),
        pytest.raises((RuntimeError, TypeError), match=r"same device|can't convert|device type for generator"),
    ):
        REFUSED[name](CPU.to("cuda"))


@pytest.mark.parametrize("inference", [False, True])
def test_what_it_computes(gpu: None, inference: bool) -> None:
    with torch.inference_mode(inference):
        there = CPU.to("cuda")
        assert there.device == torch.device("cuda", 0)
        assert torch.equal((there * 2 + torch.tensor(1.0)).cpu(), CPU * 2 + 1)  # a number may be on the CPU
        assert torch.equal(there[torch.tensor([2, 0])].cpu(), CPU[[2, 0]])  # and so may indices
        view = there.t()[1]
        view.mul_(0)
        assert there[:, 1].tolist() == [0, 0, 0]
        assert CPU[1, 1] == 5
        layer = nn.Linear(4, 2)
        want = layer(CPU)
        assert torch.allclose(layer.to("cuda")(CPU.to("cuda")).cpu(), want)
        assert type(layer.weight) is Remote
        assert isinstance(layer.weight, nn.Parameter)
        assert type(layer.to("cpu").weight) is nn.Parameter
        for made in (torch.tensor([1.0], device="cuda"), torch.zeros(1, device="cuda"), there.new_ones(1)):
            assert made.is_cuda


def test_memory(gpu: None) -> None:
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    there = torch.zeros(256, device="cuda")
    view = there[:8]
    assert torch.cuda.memory_allocated() - before == 1024
    del there
    assert torch.cuda.memory_allocated() - before == 1024, "the view keeps it"
    del view
    assert torch.cuda.memory_allocated() == before
    assert torch.cuda.max_memory_allocated() - before == 1024
    torch.cuda.set_per_process_memory_fraction((before + 512) / torch.cuda.get_device_properties(0).total_memory)
    with pytest.raises(torch.OutOfMemoryError):
        torch.zeros(256, device="cuda")
    assert torch.cuda.memory_allocated() == before


def test_shapes_without_numbers() -> None:
    with pretended_gpu(shapes_only=True), torch.no_grad():
        before = memory.now
        with torch.device("cuda"):
            layer = nn.Linear(10**5, 2 * 10**5, bias=False, dtype=torch.bfloat16)  # 40 GB
            x = torch.zeros(8, 10**5, dtype=torch.bfloat16)
        assert memory.now - before == 2 * (2 * 10**10 + 8 * 10**5)
        torch.cuda.reset_peak_memory_stats()
        y = layer(x)
        assert y.shape == (8, 2 * 10**5)
        assert memory.peak - before == 2 * (2 * 10**10 + 8 * 10**5 + 16 * 10**5)
        q = torch.zeros(2, 4, 5000, 64, device="cuda")
        torch.cuda.reset_peak_memory_stats()
        there = memory.now
        nn.functional.scaled_dot_product_attention(q, q, q)
        assert memory.peak - there == q.numel() * 4, "no map of attention"


def test_afterwards_there_is_none() -> None:
    with pretended_gpu():
        assert torch.cuda.is_available()
    assert not torch.cuda.is_available()
    with pytest.raises((RuntimeError, AssertionError), match=r"CUDA|NVIDIA"):
        torch.zeros(1, device="cuda")
