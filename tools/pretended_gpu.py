"""A GPU that is none: tensors on "cuda" or "mps" whose numbers lie in the CPU's memory, for machines without one.

Everything computes on the CPU, and refuses what a GPU refuses: tensors of two devices in one operation, a CPU generator
for numbers drawn on the GPU, ``.numpy()``; Apple's also float64. Memory is counted, and can be short. It shows that
code written for a GPU takes its tensors there and back, and what it keeps there. It shows nothing of a GPU's speed,
kernels and rounding.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
import torch._dynamo  # looks at torch.cuda, and has to do so before it is replaced
from lightning.fabric.accelerators.mps import MPSAccelerator

from tools.pretended_tensors import MEMORY, Remote, memory, mode

__all__ = ["COMPILER", "pretended_gpu"]

COMPILER = shutil.which("c++")
GUARD = """
#include <c10/core/impl/DeviceGuardImplInterface.h>
namespace c10::impl {
C10_REGISTER_GUARD_IMPL(CUDA, NoOpDeviceGuardImpl<DeviceType::CUDA>);
C10_REGISTER_GUARD_IMPL(MPS, NoOpDeviceGuardImpl<DeviceType::MPS>);
}
"""


@cache
def _let_guards_pass() -> None:
    """Torch without CUDA has none of the guards that set a current device; these do nothing."""
    with TemporaryDirectory() as folder:
        source, library = Path(folder, "guard.cpp"), Path(folder, "guard.so")
        source.write_text(GUARD)
        home = Path(torch.__file__).parent
        found = [f"-I{home / 'include'}", f"-L{home / 'lib'}", "-lc10"]
        subprocess.run([str(COMPILER), "-std=c++20", "-shared", "-fPIC", source, *found, "-o", library], check=True)
        torch.ops.load_library(library)


@contextmanager
def pretended_gpu(kind: str = "cuda", shapes_only: bool = False) -> Iterator[None]:
    """Inside, ``torch.cuda``, or ``torch.mps``, has one device.

    Args:
        kind: "cuda" or "mps".
        shapes_only: Large tensors, and what is computed with them, have no numbers: the memory of models can be counted
            that would neither fit nor end here.
    """
    _let_guards_pass()
    same_kind = torch._has_compatible_shallow_copy_type
    memory.device, memory.shapes_only = torch.device(kind, 0), shapes_only
    lifted = torch._C._only_lift_cpu_tensors()
    torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(..., device="cuda") goes through the mode
    try:
        with (
            _cuda() if kind == "cuda" else _mps(),
            # A module's parameter becomes another one where its class changes.
            mock.patch.object(
                torch,
                "_has_compatible_shallow_copy_type",
                lambda one, other: isinstance(one, Remote) == isinstance(other, Remote) and same_kind(one, other),
            ),
            mode,
        ):
            yield
    finally:
        torch._C._set_only_lift_cpu_tensors(lifted)
        memory.limit, memory.shapes_only = MEMORY, False


def _nothing(*_: Any) -> None:
    pass


def _cuda() -> Any:
    about = SimpleNamespace(total_memory=MEMORY, name="pretended", major=8, minor=0, multi_processor_count=1)
    silent = ["init", "_lazy_init", "set_device", "synchronize", "empty_cache", "ipc_collect", "manual_seed"]
    silent += ["manual_seed_all", "reset_accumulated_memory_stats"]
    answers: dict[str, Any] = {
        "is_available": lambda: True,
        "is_initialized": lambda: True,
        "is_bf16_supported": lambda *_, **__: True,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "get_device_properties": lambda *_: about,
        "get_device_capability": lambda *_: (about.major, about.minor),
        "get_device_name": lambda *_: about.name,
        "memory_allocated": memory.allocated,
        "memory_reserved": memory.allocated,
        "max_memory_allocated": memory.most,
        "reset_peak_memory_stats": memory.reset,
        "mem_get_info": lambda *_: (memory.limit - memory.allocated(), MEMORY),
        "set_per_process_memory_fraction": memory.keep_to,
        **dict.fromkeys(silent, _nothing),
    }
    return mock.patch.multiple(torch.cuda, **answers)


@contextmanager
def _mps() -> Iterator[None]:
    answers: dict[str, Any] = {
        "is_available": lambda: True,
        "device_count": lambda: 1,
        "current_allocated_memory": memory.allocated,
        **dict.fromkeys(("empty_cache", "synchronize", "manual_seed"), _nothing),
    }
    with (
        mock.patch.multiple(torch.mps, **answers),
        mock.patch.object(torch.backends.mps, "is_available", return_value=True),
        mock.patch.object(MPSAccelerator, "is_available", return_value=True),
    ):
        yield
