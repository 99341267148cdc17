"""Tensors on a pretended GPU: what they compute, what they refuse, and what they take of its memory."""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from math import prod
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

__all__ = ["MEMORY", "Remote", "memory", "mode"]

MEMORY = 80 * 2**30
LARGE = 5 * 10**4  # elements; fewer than the smallest weights of a big model that take time to compute with
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
        self.limit, self.shapes_only, self.device = MEMORY, False, torch.device("cuda", 0)
        self.now = self.peak = 0
        self._users: Counter[int] = Counter()

    def allocated(self, *_: Any) -> int:
        """Bytes of all storages in use."""
        return self.now

    def most(self, *_: Any) -> int:
        """The peak since the last reset."""
        return self.peak

    def reset(self, *_: Any) -> None:
        self.peak = self.now

    def keep_to(self, part: float, *_: Any) -> None:
        self.limit = int(part * MEMORY)

    def add(self, tensor: Remote) -> None:
        storage = tensor.numbers.untyped_storage()
        if not self._users[storage._cdata]:
            self.now += storage.nbytes()
            self.peak = max(self.peak, self.now)
        self._users[storage._cdata] += 1
        weakref.finalize(tensor, self._drop, storage)
        if self.now > self.limit:
            raise torch.OutOfMemoryError("out of memory, as is pretended")

    def _drop(self, storage: torch.UntypedStorage) -> None:
        self._users[storage._cdata] -= 1
        if not self._users[storage._cdata]:
            del self._users[storage._cdata]
            self.now -= storage.nbytes()


memory = Memory()


class Remote(torch.Tensor):
    """A tensor on the pretended GPU; ``numbers`` hold what is in it."""

    numbers: torch.Tensor

    @staticmethod
    def __new__(cls, numbers: torch.Tensor, requires_grad: bool = False) -> Any:
        if isinstance(numbers, Remote) or (numbers.is_meta and not memory.shapes_only):
            return torch.nn.Parameter(numbers, requires_grad)  # this class called in the place of that
        if memory.device.type == "mps" and numbers.dtype in (torch.float64, torch.complex128):
            raise TypeError("Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64")
        with torch.inference_mode(False):
            made = torch.Tensor._make_wrapper_subclass(
                cls,
                numbers.size(),
                strides=numbers.stride(),
                storage_offset=numbers.storage_offset(),
                dtype=numbers.dtype,
                layout=numbers.layout,
                device=memory.device,
                requires_grad=requires_grad,
            )
        made.numbers = numbers
        memory.add(made)
        return made

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        return f"{self.numbers!r} on the pretended GPU"

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not _plain(types):
            return NotImplemented
        if func is torch.Tensor.numpy:
            raise TypeError(f"can't convert {memory.device} device type tensor to numpy. Use Tensor.cpu() first")
        kwargs = kwargs or {}
        if func is torch.Tensor.tolist and args[0].numbers.is_meta:
            return _made_up(args[0].numbers).tolist()
        if func in (torch.Tensor.tolist, torch.Tensor.data_ptr):
            return func(args[0].numbers)
        # On CUDA torch gets there by itself, autocast included; for Apple's GPUs it asks for a kernel of theirs.
        fused = memory.shapes_only or memory.device.type == "mps"
        if fused and func is torch.nn.functional.scaled_dot_product_attention:
            query, _, value = args[:3] or (kwargs["query"], kwargs["key"], kwargs["value"])
            if memory.shapes_only:  # what a fused kernel needs; on a CPU torch would build the map
                return query.new_empty(*query.shape[:-1], value.shape[-1])
            tensors = [part for part in tree_leaves((args, kwargs)) if isinstance(part, torch.Tensor)]
            _refuse(aten.scaled_dot_product_attention.default, args, kwargs, tensors)
            cast = torch.is_autocast_enabled("mps")
            dtype = torch.get_autocast_dtype("mps") if cast else query.dtype
            own = tree_map(lambda x: _cast(x.numbers, dtype, cast) if isinstance(x, Remote) else x, (args, kwargs))
            return Remote(func(*own[0], **own[1]))
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **kwargs)

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
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
    return isinstance(value, torch.device | str) and torch.device(value).type == memory.device.type


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    leaves = tree_leaves((args, kwargs))
    tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
    remote = [tensor for tensor in tensors if isinstance(tensor, Remote)]
    new_there = _is_gpu(kwargs.get("device"))
    if func._can_decompose() and (remote or any(map(_is_gpu, leaves))):
        with nullcontext() if torch._C._get_dispatch_mode(KEY) else mode:
            result = func.decompose(*args, **kwargs)
        if result is not NotImplemented:
            return result
    _refuse(func, args, kwargs, tensors)

    if kwargs.get("device") is not None:
        there = new_there
    elif func is aten.copy_.default or func in INDEXING:
        there = isinstance(tensors[0], Remote)
    else:
        there = bool(remote)
    known = {id(tensor.numbers): tensor for tensor in remote}
    inner_args, inner_kwargs = tree_map(lambda x: x.numbers if isinstance(x, Remote) else x, (args, kwargs))
    if new_there:
        large = memory.shapes_only and not tensors and prod(x for x in tree_leaves(args[:1]) if type(x) is int) > LARGE
        inner_kwargs["device"] = torch.device("meta" if large else "cpu")
    if any(tensor.numbers.is_meta for tensor in remote):
        if func is aten._local_scalar_dense.default:
            return True
        if func is aten.copy_.default:
            return args[0]
        inner_args, inner_kwargs = tree_map(_shape_of, (inner_args, inner_kwargs))

    def outside(value: Any) -> Any:
        if not isinstance(value, torch.Tensor):
            return value
        if id(value) in known:  # in place
            return known[id(value)]
        return Remote(value) if there and (memory.shapes_only or not value.is_meta) else value

    return tree_map(outside, func(*inner_args, **inner_kwargs))


def _cast(tensor: torch.Tensor, dtype: torch.dtype, cast: bool) -> torch.Tensor:
    return tensor.to(dtype) if cast and tensor.is_floating_point() else tensor


def _shape_of(value: Any) -> Any:
    """The same without numbers: of a tensor its shape, of a device the one without any, and no generator."""
    if isinstance(value, torch.Tensor):
        return value.to("meta")
    return torch.device("meta") if isinstance(value, torch.device) else value


def _made_up(tensor: torch.Tensor) -> torch.Tensor:
    """Numbers for a tensor that has none, no two of them equal; of truth values, none is true."""
    if tensor.dtype is torch.bool:
        return torch.zeros(tensor.shape, dtype=torch.bool)
    return torch.arange(tensor.numel()).reshape(tensor.shape)


def _refuse(func: Any, args: Any, kwargs: dict[str, Any], tensors: Sequence[torch.Tensor]) -> None:
    """Raise what a GPU would."""
    there = _is_gpu(kwargs.get("device")) or any(isinstance(tensor, Remote) for tensor in tensors)
    if there and kwargs.get("generator") is not None:  # of the CPU: there are no others here
        raise RuntimeError(f"Expected a '{memory.device.type}' device type for generator but found 'cpu'")
    if func in (aten._to_copy.default, aten.copy_.default):
        return
    if func in INDEXING and isinstance(args[0], Remote):
        tensors = [args[0], *args[2:3]]  # indices may be on the CPU
    sized = [tensor for tensor in tensors if tensor.dim() or isinstance(tensor, Remote)]
    if len({tensor.device for tensor in sized}) > 1:
        found = ", ".join(f"{tuple(tensor.shape)} on {tensor.device}" for tensor in sized)
        raise RuntimeError(f"Expected all tensors to be on the same device, but found {found} in {func}")
