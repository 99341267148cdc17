"""Which code a reward or a target is made of, as a digest: the file that defines it, or what was typed in."""

from __future__ import annotations

import dataclasses
import dis
import functools
import hashlib
import re
import sys
from pathlib import Path
from types import (
    BuiltinFunctionType,
    CellType,
    CodeType,
    FunctionType,
    GetSetDescriptorType,
    MemberDescriptorType,
    MethodDescriptorType,
    MethodType,
    ModuleType,
)
from typing import Any

import numpy as np

from pagopt.errors import RewardError
from pagopt.own_code import LOADED
from pagopt.reward.identity import canonical, plain

__all__ = ["source_of"]

GLOBALS = {"LOAD_GLOBAL", "LOAD_NAME"}
FIXED = {"dataclasses", "typing", "types", "_collections"}  # whose objects say nothing beside their name and type


def source_of(thing: Any) -> str:
    """sha256 of the source that defines a class, function or object: its whole file, or its compiled code.

    The whole file, since a function may call its neighbours. A changed comment costs a scoring, a missed
    change would cost the truth. What was typed in (a notebook, a prompt, standard input) has no file: its code is
    followed to the functions, classes and values of its own that it names.

    Raises:
        RewardError: If it was typed in and depends on something that no key could tell from others.
    """
    if isinstance(thing, functools.partial):
        return source_of(thing.func)
    if isinstance(thing, MethodType):
        return source_of(thing.__func__)
    if not isinstance(thing, (type, FunctionType)):
        return source_of(type(thing))
    module = sys.modules.get(thing.__module__)
    if hasattr(module, LOADED):
        return str(getattr(module, LOADED))
    file = _file_of(thing)
    content = canonical(_Typed(thing).parts).encode() if file is None else file.read_bytes()
    return hashlib.sha256(content).hexdigest()


def _file_of(thing: type | FunctionType) -> Path | None:
    """The file that defines a class or function, if any."""
    file = getattr(sys.modules.get(thing.__module__), "__file__", None)
    if file is None or not Path(file).is_file():
        return None
    if thing.__module__ == "__main__":  # at the prompt of `python -i script.py` it has a file that says nothing
        functions = vars(thing).values() if isinstance(thing, type) else (thing,)
        names = {one.__code__.co_filename for one in functions if isinstance(one, FunctionType)}
        if any(name.startswith("<") for name in names - {"<string>"}):  # dataclasses make "<string>"
            return None
    return Path(file)


class _Typed:
    """What was typed in, as JSON: code, class attributes and defaults, and what of its own they name.

    It is the same in every process of one Python: no addresses, and sets in order.
    """

    def __init__(self, thing: type | FunctionType) -> None:
        self.name = thing.__qualname__
        self._seen: set[int] = set()
        self.parts = self._of(thing, "itself")

    def _of(self, value: Any, what: str) -> Any:
        """One value; ``what`` names it in an error."""
        if isinstance(value, (staticmethod, classmethod, MethodType)):
            return [type(value).__name__, self._of(value.__func__, what)]
        if isinstance(value, property):
            return [self._of(part, what) for part in (value.fget, value.fset, value.fdel)]
        if isinstance(value, functools.partial):
            return [self._of(part, what) for part in (value.func, list(value.args), value.keywords)]
        if isinstance(value, functools.cached_property):
            return self._of(value.func, what)
        if isinstance(value, (BuiltinFunctionType, MethodDescriptorType)):
            return value.__qualname__
        if isinstance(value, (type, FunctionType)):
            return self._defined(value)
        if isinstance(value, ModuleType):
            return value.__name__
        if isinstance(value, (list, tuple)):
            return [self._of(item, what) for item in value]
        if isinstance(value, (set, frozenset)):
            return sorted(canonical(self._of(item, what)) for item in value)
        if isinstance(value, dict):
            return {str(key): self._of(item, what) for key, item in value.items()}
        if isinstance(value, re.Pattern):
            return [value.pattern, value.flags]
        if hasattr(value, "__wrapped__"):  # functools.cache and its like
            return self._of(value.__wrapped__, what)
        if isinstance(value, np.ufunc) or type(value).__module__ in FIXED:
            return f"{type(value).__qualname__} {getattr(value, '__name__', '')}"
        try:
            return plain(value, what)
        except RewardError:
            raise RewardError(
                f"{self.name} was typed in (in a notebook, at a prompt or on standard input) and depends on {what}, a "
                f"{type(value).__name__}, which cannot be told from another one. Put {self.name} into a file, or make "
                f"the {type(value).__name__} inside it from numbers, strings, lists or mappings; or write a Reward "
                "subclass whose key() says what its scores depend on."
            ) from None

    def _defined(self, thing: type | FunctionType) -> Any:
        """A class or function: what a file or Python itself defines, and what was seen before, by its name."""
        name = f"{thing.__module__}.{thing.__qualname__}"
        module = sys.modules.get(thing.__module__ or "")
        origin = getattr(getattr(module, "__spec__", None), "origin", None)
        if id(thing) in self._seen or origin in {"built-in", "frozen"} or _file_of(thing) is not None:
            return name
        self._seen.add(id(thing))
        return [name, self._class(thing) if isinstance(thing, type) else self._function(thing)]

    def _class(self, kind: type) -> Any:
        attributes = {
            name: self._of(value, f"its attribute {name!r}")
            for name, value in sorted(vars(kind).items())
            if not _is_note(name, value)
        }
        fields = [
            [item.name, self._of(item.default_factory, f"the default of its field {item.name!r}")]
            for item in (dataclasses.fields(kind) if dataclasses.is_dataclass(kind) else ())
        ]
        return [[self._defined(base) for base in kind.__bases__], attributes, fields]

    def _function(self, function: FunctionType) -> Any:
        code, known = function.__code__, function.__globals__
        if known.get("__name__") != function.__module__ and hasattr(function, "__wrapped__"):
            # The wrapper of a library's decorator, such as torch.no_grad().
            return [code.co_name, self._of(function.__wrapped__, "what it wraps")]
        cells = zip(code.co_freevars, function.__closure__ or (), strict=True)
        return [
            _code(code),
            self._of(function.__defaults__, "a default value"),
            self._of(function.__kwdefaults__, "a default value"),
            [self._cell(cell, f"the variable {name!r}") for name, cell in cells],
            {
                name: self._of(known[name], f"the global variable {name!r}")
                for name in sorted(_globals_of(code))
                if name in known
            },
        ]

    def _cell(self, cell: CellType, what: str) -> Any:
        try:
            content = cell.cell_contents
        except ValueError:  # nothing was put into it yet
            return None
        return self._of(content, what)


def _is_note(name: str, value: Any) -> bool:
    """Whether an attribute of a class is what Python itself notes there: its lines, its annotations, its slots."""
    if isinstance(value, (GetSetDescriptorType, MemberDescriptorType)) or name == "_abc_impl":
        return True
    method = isinstance(value, (FunctionType, staticmethod, classmethod, property)) and "annotat" not in name
    return name.startswith("__") and name.endswith("__") and not method


def _code(code: CodeType) -> Any:
    """Compiled code without its lines and its file."""
    parts = [code.co_code.hex(), code.co_exceptiontable.hex(), code.co_flags]
    names = [list(part) for part in (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)]
    return [*parts, names, [_constant(one) for one in code.co_consts]]


def _constant(value: Any) -> Any:
    if isinstance(value, CodeType):
        return _code(value)
    if isinstance(value, tuple):
        return [_constant(item) for item in value]
    if isinstance(value, frozenset):
        return sorted(canonical(_constant(item)) for item in value)
    return repr(value)  # tells 1, 1.0 and True apart


def _globals_of(code: CodeType) -> set[str]:
    """Names of the globals that code reads, its inner functions included."""
    found = {step.argval for step in dis.get_instructions(code) if step.opname in GLOBALS}
    return found.union(*(_globals_of(inner) for inner in code.co_consts if isinstance(inner, CodeType)))
