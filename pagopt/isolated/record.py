"""What one file says about a package that needs an environment of its own: pins, repairs, how it is called."""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from importlib import resources
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import yaml

from pagopt.errors import RewardError, UnknownName
from pagopt.reward.identity import canonical

__all__ = ["Record", "available_records", "read_record"]

GROUP = "pagopt.isolated"
TEXTS = {"name", "scorer", "python", "summary"}
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._]*(-[A-Za-z0-9._]+)*")


@dataclass(frozen=True)
class Record:
    """A package that needs an environment of its own. Read from a YAML file with :func:`read_record`.

    Args:
        name: What ``pagopt rewards install`` calls it.
        scorer: ``file.py:name`` beside the record, or ``package.module:name`` in the environment. The name stands for
            a function ``f(images, prompts, **args) -> scores`` or for a class with ``__call__(images, prompts)`` that
            is made once with the arguments. A parameter called ``device`` is filled in: "cpu", "cuda:1".
        requirements: What pip installs, with its dependencies. ``./x.whl`` or ``./folder`` lies beside the record.
        no_deps: What pip installs after that without dependencies: packages whose own pins are too strict.
        copy: Pairs of paths in site-packages, a file and where it is missing, for packages that lack one.
        before: Python files beside the record that the worker runs before it loads the scorer: repairs.
        python: Which Python it needs, ">=3.8,<3.12"; empty for any.
        inherit: Whether the environment also sees the packages of pagopt's own, behind those it has itself.
        variables: Environment variables of the worker.
        summary: One line for people.
        path: The file it was read from.

    Raises:
        RewardError: If a value makes no sense.
    """

    name: str
    scorer: str
    requirements: tuple[str, ...] = ()
    no_deps: tuple[str, ...] = ()
    copy: tuple[tuple[str, str], ...] = ()
    before: tuple[str, ...] = ()
    python: str = ""
    inherit: bool = False
    variables: Mapping[str, str] = field(default_factory=dict)
    summary: str = ""
    path: Path = Path()

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            raise RewardError(f"{self.path}: the name {self.name!r} must be letters, digits, '-', '_' and '.'")
        where, _, name = self.scorer.rpartition(":")
        if not where or not name.isidentifier():
            raise RewardError(
                f"{self.path}: the scorer is {self.scorer!r}; write 'file.py:name' (beside the record) or "
                "'package.module:name'"
            )
        for file in self.files():
            if not file.is_file():
                raise RewardError(f"{self.path}: there is no file {file}; paths are relative to the record")
        for line in (*self.requirements, *self.no_deps):
            if line.startswith("-"):
                raise RewardError(f"{self.path}: {line!r} is an option of pip, not a requirement; give it on the call")
            if _is_path(line) and not self._beside(line).exists():
                raise RewardError(f"{self.path}: there is no {self._beside(line)}; paths are relative to the record")
        for source, target in self.copy:
            for part in (Path(source), Path(target)):
                if part.is_absolute() or ".." in part.parts:
                    raise RewardError(f"{self.path}: copy takes paths inside site-packages, not {part}")

    @property
    def target(self) -> str:
        """The scorer as the worker takes it: the file by its absolute path."""
        where, _, name = self.scorer.rpartition(":")
        return f"{self._beside(where)}:{name}" if where.endswith(".py") else self.scorer

    def files(self) -> list[Path]:
        """The Python files beside the record that the worker runs: those of ``before``, then the scorer's."""
        where = self.scorer.rpartition(":")[0]
        return [self._beside(name) for name in (*self.before, *([where] if where.endswith(".py") else []))]

    def start(self, args: Mapping[str, Any], device: str) -> dict[str, Any]:
        """What a worker is told before it scores."""
        before = [str(file) for file in self.files()[: len(self.before)]]
        return {"scorer": self.target, "before": before, "args": dict(args), "device": device}

    def resolved(self, lines: tuple[str, ...]) -> list[str]:
        """Requirements as pip takes them in any folder."""
        return [str(self._beside(line)) if _is_path(line) else line for line in lines]

    def digest(self) -> str:
        """12 hexadecimal digits of what is *installed*; an edit of the scorer needs no new environment.

        An inheriting environment belongs to one Python installation, so that is part of it.
        """
        made_of: list[Any] = [self.requirements, self.no_deps, self.copy, self.python, self._local()]
        made_of += [[sys.prefix, sys.version_info[:2]]] if self.inherit else []
        return hashlib.sha256(canonical(made_of).encode()).hexdigest()[:12]

    def identity(self) -> str:
        """sha256 over everything in the record that can change a score: its values and its Python files."""
        values = [self.scorer, self.requirements, self.no_deps, self.copy, self.before, dict(self.variables)]
        digest = hashlib.sha256(canonical([*values, self.inherit, self._local()]).encode())
        for file in self.files():
            digest.update(hashlib.sha256(file.read_bytes()).digest())
        return digest.hexdigest()

    def _local(self) -> list[str]:
        """sha256 of each requirement that lies beside the record: its version may stay while its content changes."""
        return [_content(self._beside(line)) for line in (*self.requirements, *self.no_deps) if _is_path(line)]

    def _beside(self, line: str) -> Path:
        return (self.path.parent / Path(line).expanduser()).resolve()


def read_record(name: str) -> Record:
    """A record by name or file.

    Args:
        name: The name of one that an installed package brings ("image-reward"), or the path of a YAML file.

    Raises:
        UnknownName: If no package brings one of that name.
        RewardError: If the file cannot be read, or says what a record cannot.
    """
    path = Path(name).expanduser()
    if path.suffix not in {".yaml", ".yml"}:
        known = available_records()
        if name not in known:
            raise UnknownName("record", name, known, "A path to a YAML file works, too.")
        path = known[name]
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RewardError(f"cannot read the record {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RewardError(f"{path} is no YAML: {error}") from error
    return _record(data, path.resolve())


def available_records() -> dict[str, Path]:
    """The records that installed packages bring, by name; entry points of the group ``pagopt.isolated`` name the
    packages that hold them.

    Raises:
        RewardError: If two packages bring one of the same name, or one that is named cannot be imported.
    """
    found: dict[str, Path] = {}
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.value):
        try:
            files = list(resources.files(entry.value).iterdir())
        except (ImportError, TypeError) as error:
            whose = f" of {entry.dist.name}" if entry.dist else ""
            raise RewardError(
                f"the entry point {entry.name!r}{whose} in the group {GROUP} names {entry.value!r}, which is no "
                f"package with records: {type(error).__name__}: {error}. Mend that package, or uninstall it."
            ) from error
        for file in files:
            if file.name.endswith(".yaml"):
                name, path = file.name.removesuffix(".yaml"), Path(str(file))
                if found.setdefault(name, path) != path:
                    raise RewardError(f"two records are called {name!r}: {found[name]} and {path}. Give the path.")
    return dict(sorted(found.items()))


def _record(data: Any, path: Path) -> Record:
    known = {item.name for item in fields(Record)} - {"path"}
    if not isinstance(data, Mapping):
        raise RewardError(f"{path} holds a {type(data).__name__}, not a record: {', '.join(sorted(known))}")
    for key in data:
        if key not in known:
            raise RewardError(f"{path}: {UnknownName('field', str(key), sorted(known))}")
    for key in ("name", "scorer"):
        if key not in data:
            raise RewardError(f"{path}: a record needs a {key}")
    values: dict[str, Any] = {}
    for key, value in data.items():
        if key in TEXTS:
            fits = isinstance(value, str)
        elif key == "inherit":
            fits = isinstance(value, bool)
        elif key == "variables":
            fits = isinstance(value, Mapping) and all(isinstance(x, str) for pair in value.items() for x in pair)
        elif key == "copy":
            fits = isinstance(value, list) and all(isinstance(pair, list) and len(pair) == 2 for pair in value)
            value = tuple((str(a), str(b)) for a, b in value) if fits else value
        else:
            fits = isinstance(value, list) and all(isinstance(line, str) for line in value)
            value = tuple(value) if fits else value
        if not fits:
            kinds = {"variables": "names with texts", "inherit": "true or false", "copy": "a list of pairs of paths"}
            kind = kinds.get(key, "a text" if key in TEXTS else "a list of texts")
            raise RewardError(f"{path}: {key} is {value!r}; it must be {kind}")
        values[key] = value
    return Record(**values, path=path)


def _is_path(line: str) -> bool:
    return line.startswith((".", "/", "~"))


def _content(path: Path) -> str:
    """sha256 of a file, or of the files of a folder."""
    digest = hashlib.sha256()
    files = [path] if path.is_file() else sorted(item for item in path.rglob("*") if item.is_file())
    for file in files:
        relative = file.relative_to(path.parent)
        if not any(part == "__pycache__" or part.startswith(".") for part in relative.parts):
            digest.update(f"{relative}\n".encode() + hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()
