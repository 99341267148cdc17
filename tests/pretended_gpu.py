"""A GPU that is none: tensors on "cuda" whose numbers lie in the CPU's memory, for machines without one.

Everything computes on the CPU, and refuses what CUDA refuses: tensors of two devices in one operation, a CPU generator
for numbers drawn on the GPU, ``.numpy()``. Memory is counted, and can be short. It shows that code written for a GPU
takes its tensors there and back, and what it keeps there. It shows nothing of a GPU's speed, kernels and rounding.
"""

from __future__ import annotations

import shutil
import subprocess
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
import torch._dynamo  # looks at torch.cuda, and has to do so before it is replaced
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

__all__ = ["COMPILER", "pretended_gpu"]

COMPILER = shutil.which("c++")
DEVICE = torch.device("cuda", 0)
MEMORY = 80 * 2**30
GUARD = """
#include <c10/core/impl/DeviceGuardImplInterface.h>
namespace c10::impl { C10_REGISTER_GUARD_IMPL(CUDA, NoOpDeviceGuardImpl<DeviceType::CUDA>); }
"""
KEY = torch._C._TorchDispatchModeKey.FAKE

aten = torch.ops.aten
INDEXING = {
    aten.index.Tensor,
    aten.index_put.default,
    aten.index_put_.default,
    aten._index_put_impl_.default,
}


class Memory:
    """What lies on the pretended GPU, and how much may."""

    def __init__(self) -> None:
        self._tensors: dict[int, weakref.ref[Remote]] = {}
        self.limit = MEMORY

    def allocated(self, *_: Any) -> int:
        """Bytes of all storages that are in use."""
        alive = [made.inner.untyped_storage() for one in list(self._tensors.values()) if (made := one()) is not None]
        return sum({storage._cdata: storage.nbytes() for storage in alive}.values())

    def add(self, tensor: Remote) -> None:
        number = id(tensor)
        self._tensors[number] = weakref.ref(tensor, lambda _: self._tensors.pop(number, None))
        if self.limit < MEMORY and self.allocated() > self.limit:
            raise torch.OutOfMemoryError("CUDA out of memory, as is pretended")

    def keep_to(self, part: float, *_: Any) -> None:
        self.limit = int(part * MEMORY)


memory = Memory()


class Remote(torch.Tensor):
    """A tensor on the pretended GPU; ``inner`` holds its numbers."""

    inner: torch.Tensor

    @staticmethod
    def __new__(cls, inner: torch.Tensor, requires_grad: bool = False) -> Any:
        if isinstance(inner, Remote) or inner.device.type == "meta":  # as torch.nn.Parameter is called
            return torch.nn.Parameter(inner, requires_grad)
        with torch.inference_mode(False):
            made = torch.Tensor._make_wrapper_subclass(
                cls,
                inner.size(),
                strides=inner.stride(),
                storage_offset=inner.storage_offset(),
                dtype=inner.dtype,
                layout=inner.layout,
                device=DEVICE,
                requires_grad=requires_grad,
            )
        made.inner = inner
        memory.add(made)
        return made

    def __repr__(self, **_: Any) -> str:
        return f"{self.inner!r} on the pretended GPU"

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not _plain(types):
            return NotImplemented
        if func is torch.Tensor.numpy:
            raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first")
        if func in (torch.Tensor.tolist, torch.Tensor.data_ptr):
            return func(args[0].inner)
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **(kwargs or {}))

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {}) if _plain(types) else NotImplemented


class _Mode(TorchDispatchMode):
    """Sees what makes tensors from none. Torch asks for no CUDA while a mode of this key is on."""

    _mode_key = KEY

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {}) if _plain(types) else NotImplemented


mode = _Mode()


def _plain(types: Sequence[type]) -> bool:
    """Whether no other tensor class, of quantised weights say, wants to be asked first."""
    return all(kind in (torch.Tensor, torch.nn.Parameter, torch.nn.Buffer, Remote) for kind in types)


def _is_gpu(value: Any) -> bool:
    return isinstance(value, torch.device | str) and torch.device(value).type == "cuda"


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    leaves = tree_leaves((args, kwargs))
    tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
    remote = any(isinstance(tensor, Remote) for tensor in tensors)
    new_there = _is_gpu(kwargs.get("device"))
    if func._can_decompose() and (remote or any(map(_is_gpu, leaves))):
        with nullcontext() if torch._C._get_dispatch_mode(KEY) else mode:
            result = func.decompose(*args, **kwargs)
        if result is not NotImplemented:
            return result
    _refuse(func, args, kwargs, tensors)

    there = new_there if kwargs.get("device") is not None else isinstance(tensors[0], Remote) if tensors else False
    there |= remote and kwargs.get("device") is None and func is not aten.copy_.default and func not in INDEXING
    known = {id(tensor.inner): tensor for tensor in tensors if isinstance(tensor, Remote)}
    inner_args, inner_kwargs = tree_map(lambda x: x.inner if isinstance(x, Remote) else x, (args, kwargs))
    if new_there:
        inner_kwargs["device"] = torch.device("cpu")

    def outside(value: Any) -> Any:
        if not isinstance(value, torch.Tensor):
            return value
        if id(value) in known:  # in place
            return known[id(value)]
        return Remote(value) if there and value.device.type == "cpu" else value

    return tree_map(outside, func(*inner_args, **inner_kwargs))


def _refuse(func: Any, args: Any, kwargs: dict[str, Any], tensors: Sequence[torch.Tensor]) -> None:
    """Raise what CUDA would."""
    there = _is_gpu(kwargs.get("device")) or any(isinstance(tensor, Remote) for tensor in tensors)
    if there and kwargs.get("generator") is not None:  # of the CPU: there are no others without CUDA
        raise RuntimeError("Expected a 'cuda' device type for generator but found 'cpu'")
    if func in (aten._to_copy.default, aten.copy_.default):
        return
    if func in INDEXING and isinstance(args[0], Remote):
        tensors = [args[0], *args[2:3]]  # indices may be on the CPU
    sized = [tensor for tensor in tensors if tensor.dim() or isinstance(tensor, Remote)]
    if len({tensor.device for tensor in sized}) > 1:
        found = ", ".join(f"{tuple(tensor.shape)} on {tensor.device}" for tensor in sized)
        raise RuntimeError(f"Expected all tensors to be on the same device, but found {found} in {func}")


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
def pretended_gpu() -> Iterator[None]:
    """Inside, ``torch.cuda`` has one device."""
    _let_guards_pass()
    same_kind = torch._has_compatible_shallow_copy_type
    about = SimpleNamespace(total_memory=MEMORY, name="pretended", major=8, minor=0, multi_processor_count=1)
    nothing = mock.Mock(return_value=None)
    cuda = {
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
        "max_memory_allocated": memory.allocated,
        "mem_get_info": lambda *_: (memory.limit - memory.allocated(), MEMORY),
        "set_per_process_memory_fraction": memory.keep_to,
        **dict.fromkeys(("init", "_lazy_init", "set_device", "synchronize", "empty_cache", "ipc_collect"), nothing),
        **dict.fromkeys(("manual_seed", "manual_seed_all", "reset_peak_memory_stats"), nothing),
        **dict.fromkeys(("reset_accumulated_memory_stats",), nothing),
    }
    lifted = torch._C._only_lift_cpu_tensors()
    torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(..., device="cuda") goes through the mode
    try:
        with (
            mock.patch.multiple(torch.cuda, **cuda),
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
        memory.limit = MEMORY
