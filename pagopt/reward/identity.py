"""What a reward's scores depend on beside its code (`source.py`), as plain JSON: arguments, files, state.

The store keeps scores under it.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
from collections.abc import Callable, Mapping
from pathlib import Path, PurePath
from types import FunctionType, MemberDescriptorType, MethodType
from typing import Any

import numpy as np
import torch

from pagopt.errors import RewardError

__all__ = [
    "add_file",
    "arguments_of",
    "canonical",
    "files_in",
    "named_path",
    "plain",
    "signature_of",
    "state_of",
    "words_in",
]

MIB = 2**20
WHOLE = 64 * MIB  # bytes; of larger files samples are hashed
UNSAID = inspect.Signature(  # what compiled functions take, where they do not say
    [inspect.Parameter(name, inspect.Parameter.POSITIONAL_ONLY) for name in ("images", "prompts")]
    + [inspect.Parameter("args", inspect.Parameter.VAR_KEYWORD)]
)
CARRIERS = (FunctionType, MethodType, functools.partial)


def add_file(digest: hashlib._Hash, path: Path) -> None:
    """Hash a file's size and content; of one above 64 MiB, a checkpoint, the first and last MiB and 4 kB of each.

    So a tensor of a MiB or more is seen, and in torch's own files any, since they end in checksums of all.
    """
    size = path.stat().st_size
    digest.update(f"{size}\n".encode())
    with path.open("rb") as file:
        if size <= WHOLE:
            digest.update(file.read())
            return
        digest.update(file.read(MIB))
        for start in range(MIB, size, MIB):
            file.seek(start)
            digest.update(file.read(4096))
        file.seek(size - MIB)
        digest.update(file.read())


def plain(value: Any, what: str) -> Any:
    """``value`` as JSON: numbers, strings, lists, mappings; paths, devices and dtypes become strings.

    Raises:
        RewardError: For anything else, naming ``what``: no key could tell two such values apart.
    """
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, (PurePath, torch.device, torch.dtype)):
        return str(value)
    if isinstance(value, (list, tuple)):
        return [plain(item, what) for item in value]
    if isinstance(value, Mapping):
        return {str(key): plain(item, what) for key, item in value.items()}
    raise RewardError(
        f"{what} is a {type(value).__name__}, so its scores cannot be told from those of another one. "
        "Use numbers, strings, lists or mappings; or write a Reward subclass whose key() says what its scores "
        "depend on."
    )


def words_in(value: Any) -> list[str]:
    """Every text in JSON data, keys of mappings left out."""
    if isinstance(value, Mapping):
        return [word for item in value.values() for word in words_in(item)]
    if isinstance(value, (list, tuple)):
        return [word for item in value for word in words_in(item)]
    return [value] if isinstance(value, str) else []


def files_in(value: Any) -> dict[str, str]:
    """Digests of the files that texts in JSON data name, by text; of a folder that of the files right in it.

    Raises:
        RewardError: If such a file cannot be read.
    """
    found = {}
    for word in words_in(value):
        digest, files = hashlib.sha256(), _files(named_path(word))
        for file in files:
            digest.update(f"{file.name}\n".encode())
            try:
                add_file(digest, file)
            except OSError as error:
                raise RewardError(f"cannot read {file}, which an argument names: {error.strerror}") from error
        if files:
            found[word] = digest.hexdigest()
    return found


def named_path(word: str) -> Path | None:
    """The file or folder that a text names, if there is one; "~" is one's own folder."""
    try:
        path = Path(word).expanduser()
        return path if word and path.exists() else None
    except (OSError, RuntimeError):  # too long for a name, or in the folder of a user who is not there
        return None


def _files(path: Path | None) -> list[Path]:
    try:
        if path is None or path.is_file():
            return [path] if path else []
        return sorted(filter(Path.is_file, path.iterdir()))
    except OSError:  # a folder that is not to be read
        return []


def canonical(value: Any) -> str:
    """One text for one JSON value: sorted keys, no spaces."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def signature_of(factory: Callable[..., Any]) -> inspect.Signature:
    """The arguments of a class or function, without ``self``."""
    if not isinstance(factory, type):
        try:
            return inspect.signature(factory)
        except ValueError:
            return UNSAID
    init = inspect.getattr_static(factory, "__init__")
    if init is object.__init__:
        return inspect.Signature()
    whole = inspect.signature(init)
    return whole.replace(parameters=list(whole.parameters.values())[1:])


def arguments_of(factory: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Every argument by name, defaults included; empty where the call does not fit (it will say so itself)."""
    try:
        bound = signature_of(factory).bind(*args, **kwargs)
    except TypeError:
        return {}
    bound.apply_defaults()
    return dict(bound.arguments)


def state_of(function: Any) -> Any:
    """What a callable carries: a closure's values, defaults, a partial's arguments, an object's attributes.

    Raises:
        RewardError: If that is not plain JSON.
    """
    return _state(function, ())


def _state(function: Any, around: tuple[Any, ...]) -> Any:
    """See above; ``around`` are the functions that carry this one, which it may name in turn."""
    what = f"a value that {getattr(function, '__qualname__', type(function).__qualname__)} carries"
    if isinstance(function, functools.partial):
        return [_state(function.func, around), plain(function.args, what), plain(function.keywords, what)]
    if isinstance(function, MethodType):
        return _state(function.__self__, around)
    if isinstance(function, FunctionType):
        if function in around:
            return None
        cells = [cell.cell_contents for cell in function.__closure__ or ()]
        carried = [*cells, *(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]
        return [
            _state(value, (*around, function)) if isinstance(value, CARRIERS) else plain(value, what)
            for value in carried
        ]
    if isinstance(function, type):
        return None
    return plain(_attributes(function), what)


def _attributes(thing: Any) -> dict[str, Any]:
    """An object's own attributes, those in slots included."""
    slots = {
        name: getattr(thing, name)
        for kind in type(thing).__mro__
        for name, member in vars(kind).items()
        if isinstance(member, MemberDescriptorType) and not name.endswith("__") and hasattr(thing, name)
    }
    return {**slots, **getattr(thing, "__dict__", {})}
