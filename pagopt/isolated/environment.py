"""The environments of isolated rewards: where they lie, how they are built, which are ready."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import site
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pagopt.errors import RewardError, UnknownName
from pagopt.isolated.record import Record, available_records, read_record

__all__ = [
    "INHERIT",
    "MARK",
    "Environment",
    "clear",
    "environment_in",
    "find_environment",
    "find_record",
    "home",
    "inherited",
    "installed",
    "not_installed",
    "remove",
    "site_packages",
]

MARK = "environment.json"  # written last: a folder without it is unfinished
INHERIT = "pagopt_inherit.pth"


def home() -> Path:
    """Where pagopt keeps what it builds: ``PAGOPT_HOME``, or its folder in the platform's cache."""
    if os.environ.get("PAGOPT_HOME"):
        return Path(os.environ["PAGOPT_HOME"]).expanduser().absolute()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", "~")).expanduser() / "pagopt" / "Cache"
    if sys.platform == "darwin":
        return Path("~/Library/Caches/pagopt").expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "pagopt"


@dataclass(frozen=True)
class Environment:
    """One environment in its folder, NAME-DIGEST.

    Attributes:
        folder: A virtual environment.
        facts: What :func:`install` wrote down when it was finished; empty while it is not.
    """

    folder: Path
    facts: dict[str, Any]

    @property
    def name(self) -> str:
        """Its record's."""
        return self.folder.name.rpartition("-")[0]

    @property
    def ready(self) -> bool:
        """Whether it was finished, and its Python is still there."""
        return bool(self.facts) and self.python.exists()

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")

    @property
    def packages(self) -> dict[str, str]:
        """The versions that it sees now, by distribution; its own before inherited ones."""
        found: dict[str, str] = {}
        own = site_packages(self.folder)
        for folder in (own, *(inherited() if (own / INHERIT).is_file() else [])):
            for item in folder.iterdir() if folder.is_dir() else ():
                match = re.fullmatch(r"(.+?)-([^-]+)(?:-.*)?\.(?:dist-info|egg-info)", item.name)
                if match:
                    found.setdefault(re.sub(r"[-_.]+", "-", match[1]).lower(), match[2])
        return dict(sorted(found.items()))


def installed(folder: str | Path | None = None) -> list[Environment]:
    """All environments, also unfinished ones, by name.

    Args:
        folder: Instead of :func:`home`.
    """
    place = Path(folder or home()) / "environments"
    folders = [item for item in place.iterdir() if item.is_dir()] if place.is_dir() else []
    return [environment_in(item) for item in sorted(folders) if not item.name.startswith(".")]


def find_environment(record: Record, folder: str | Path | None = None) -> Environment:
    """Where a record's environment is, or would be; look at ``ready``."""
    return environment_in(Path(folder or home()) / "environments" / f"{record.name}-{record.digest()}")


def find_record(name: str) -> Record:
    """A record by name or file; of one's own file the name will do, once its environment is built.

    Raises:
        RewardError: See :func:`~pagopt.isolated.record.read_record`; or if the file is no longer there.
    """
    try:
        return read_record(name)
    except UnknownName as error:
        files = [item.facts["record"] for item in installed() if item.name == name and item.ready]
        if not files:
            raise RewardError(f"{error} A name of your own is known after `pagopt rewards install FILE`.") from error
        return read_record(files[-1])


def not_installed(record: Record) -> str:
    """What has to be done before a record's environment is ready; empty when it is."""
    if find_environment(record).ready:
        return ""
    brought = available_records().get(record.name) == record.path
    return f"pagopt rewards install {record.name if brought else shlex.quote(str(record.path))}"


def remove(name: str, folder: str | Path | None = None) -> list[Path]:
    """Remove all environments of a record, finished or not.

    Returns:
        Their folders.

    Raises:
        RewardError: If there is none.
    """
    every = installed(folder)
    found = [item.folder for item in every if item.name == name]
    if not found:
        names = ", ".join(sorted({item.name for item in every})) or "none"
        place = Path(folder or home()) / "environments"
        raise RewardError(f"there is no environment of {name!r} in {place}. Known: {names}.")
    for item in found:
        clear(item)
    return found


def environment_in(folder: Path) -> Environment:
    """What lies in a folder, if anything."""
    facts: dict[str, Any] = {}
    with contextlib.suppress(OSError, ValueError):
        facts = json.loads((folder / MARK).read_text(encoding="utf-8"))
    return Environment(folder, facts)


def clear(folder: Path) -> None:
    """Remove an environment's folder, if there is one."""
    (folder / MARK).unlink(missing_ok=True)  # first, so that half of one never looks ready
    shutil.rmtree(folder, ignore_errors=True)


def site_packages(folder: Path) -> Path:
    """Where the packages of an environment lie."""
    if os.name == "nt":
        return folder / "Lib" / "site-packages"
    return next(iter(sorted((folder / "lib").glob("python*/site-packages"))), folder / "lib")


def inherited() -> list[Path]:
    """Where pagopt's own packages lie."""
    return [Path(path) for path in site.getsitepackages()]
