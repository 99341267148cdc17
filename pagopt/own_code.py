"""Code that the user named: ``path/to/file.py:name`` or ``package.module:name``. It is run; nothing is downloaded."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from pagopt.errors import PagoptError, StudyError, UnknownName

__all__ = ["LOADED", "digest_of_own", "is_own", "load_own", "refusal", "said"]

LOADED = "_pagopt_source"  # sha256 of the source that was run; the file may have changed since


def is_own(name: str) -> bool:
    """Whether a name is one of code, and not that of something installed."""
    return ":" in name or name.endswith(".py")


def refusal(where: str, name: str, option: str) -> StudyError:
    """The error where a recipe file, which may come from anywhere, names code.

    Args:
        where: How it begins.
        name: What the file names.
        option: By which the user can name it.
    """
    return StudyError(
        f"{where} {name}, and no code is run because a recipe file names it: say {option} {name} if you trust it"
    )


def load_own(kind: str, name: str, error: Callable[[str], PagoptError]) -> Any:
    """The object that a name stands for.

    Args:
        kind: What it is to be, such as "reward".
        name: As above.
        error: Makes the error of a text.

    Raises:
        PagoptError: What ``error`` makes, if the file, module or object is not there, or its code fails; the cause is
            attached.
    """
    where, attribute = _parts(kind, name, error)
    module = _from_file(kind, name, where, error) if isinstance(where, Path) else _from_module(kind, name, where, error)
    if hasattr(module, attribute):
        return getattr(module, attribute)
    public = {key: value for key, value in vars(module).items() if not key.startswith("_") and callable(value)}
    known = [key for key, value in public.items() if getattr(value, "__module__", None) == module.__name__]
    raise error(f"{module.__file__}: {UnknownName('function or class', attribute, known)}")


def digest_of_own(kind: str, name: str, error: Callable[[str], PagoptError]) -> str:
    """sha256 of the file that the object is in; empty for a module without one.

    Neither file nor module is run; where a module is in a package, Python imports the package.

    Raises:
        PagoptError: What ``error`` makes, if the file or module is not there.
    """
    where, _ = _parts(kind, name, error)
    try:
        if isinstance(where, str):
            spec = importlib.util.find_spec(where)
            if spec is None or not spec.has_location:
                return ""  # if there is none, loading it says so
            file = Path(str(spec.origin))
        else:
            file = where
        return hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError as cause:
        raise error(f"{kind} {name!r}: cannot read {file}: {cause.strerror}") from cause
    except (ImportError, ValueError) as cause:
        raise error(f"{kind} {name!r}: {where} cannot be imported: {said(cause)}") from cause


def _parts(kind: str, name: str, error: Callable[[str], PagoptError]) -> tuple[Path | str, str]:
    """A file, or the name of a module, and what of it."""
    where, colon, attribute = name.rpartition(":")
    if not colon:
        raise error(f'which {kind} of {name}? Write "{name}:function".')
    if not where or not attribute:
        raise error(f'{name!r} names no {kind}: it is "path/to/file.py:name" or "package.module:name"')
    is_file = where.endswith(".py") or "/" in where or os.sep in where
    return Path(os.path.expanduser(where)) if is_file else where, attribute  # which leaves the name of nobody as it is


def _from_file(kind: str, name: str, path: Path, error: Callable[[str], PagoptError]) -> ModuleType:
    try:
        source = path.read_bytes()
    except OSError as cause:
        raise error(f"{kind} {name!r}: cannot read {path}: {cause.strerror}") from cause
    path = path.resolve()
    # A private name, so that neither an installed module nor another file of this name is taken for it.
    private = f"_pagopt_own_{hashlib.sha256(str(path).encode() + source).hexdigest()[:24]}"
    if private in sys.modules:
        return sys.modules[private]
    spec = importlib.util.spec_from_file_location(private, path)
    if spec is None or spec.loader is None:
        raise error(f"{kind} {name!r}: {path} is no Python file (.py)")
    module = importlib.util.module_from_spec(spec)
    setattr(module, LOADED, hashlib.sha256(source).hexdigest())
    sys.modules[private] = module
    try:
        # Not through the loader, whose bytecode cache looks at the time and size of a file only.
        exec(compile(source, str(path), "exec"), module.__dict__)
    except (Exception, SystemExit) as cause:
        del sys.modules[private]
        raise error(f"{kind} {name!r}: {path} cannot be run: {said(cause)}") from cause
    return module


def _from_module(kind: str, name: str, module: str, error: Callable[[str], PagoptError]) -> ModuleType:
    try:
        return importlib.import_module(module)
    except (Exception, SystemExit) as cause:
        hint = ""
        if isinstance(cause, ModuleNotFoundError):
            hint = f" Is it installed in {sys.prefix}? A {kind} in a file is path/to/file.py:name."
        raise error(f"{kind} {name!r}: {module} cannot be imported: {said(cause)}.{hint}") from cause


def said(error: BaseException) -> str:
    """What a library's exception says, with its kind."""
    return f"{type(error).__name__}: {error}"
