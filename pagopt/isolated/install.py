"""Building an environment: a Python of its own, pins, repairs, and a look whether the scorer loads."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.machinery import PathFinder
from pathlib import Path

from pagopt.errors import RewardError
from pagopt.files import write_text
from pagopt.isolated.client import Worker
from pagopt.isolated.environment import (
    INHERIT,
    MARK,
    Environment,
    clear,
    environment_in,
    find_environment,
    inherited,
    site_packages,
)
from pagopt.isolated.process import clean_variables
from pagopt.isolated.record import Record

__all__ = ["install"]


def install(
    record: Record,
    *,
    folder: str | Path | None = None,
    python: str | None = None,
    pins: Sequence[str] = (),
    constraint: str | Path | None = None,
    installer: str = "auto",
    force: bool = False,
    say: Callable[[str], None] = print,
) -> Environment:
    """Build a record's environment; what pip says goes to this process's output.

    Args:
        record: What to build.
        folder: Instead of :func:`home`.
        python: The interpreter to build it with; by default the first that the record allows: this one, then
            python3.N of the PATH.
        pins: Requirements that replace the record's of the same package: ``["torch==2.6.0"]``.
        constraint: A constraints file for pip.
        installer: "pip", "uv", or "auto": uv where there is one.
        force: Build it again, though it is ready.
        say: Gets one line for each step.

    Returns:
        The environment, ready.

    Raises:
        RewardError: If a step fails. An environment that is not finished is removed, also after Ctrl-C.
    """
    from filelock import FileLock, Timeout

    made = find_environment(record, folder)
    try:
        made.folder.parent.mkdir(parents=True, exist_ok=True)
        held = FileLock(made.folder.parent / f".{made.folder.name}.lock").acquire(timeout=0)
    except Timeout:
        raise RewardError(f"another process is building {made.folder}; wait until it has finished") from None
    except OSError as error:
        raise RewardError(
            f"cannot make an environment in {made.folder.parent}: {error.strerror}. Give another folder with --home, "
            "or in the variable PAGOPT_HOME."
        ) from error
    with held:
        made = environment_in(made.folder)
        if made.ready and not force:
            say(f"{record.name} is ready in {made.folder} (--force builds it again)")
            return made
        # First, so that a slip in an option does not cost the environment that is there.
        uv, interpreter = _uv(record, installer), _interpreter(record, python)
        if constraint and not Path(constraint).is_file():
            raise RewardError(f"there is no constraints file {constraint}")
        with _whole(made.folder):
            return _build(record, made, interpreter, list(pins), constraint, uv, say)


def _build(
    record: Record,
    made: Environment,
    interpreter: str,
    pins: list[str],
    constraint: str | Path | None,
    uv: str | None,
    say: Callable[[str], None],
) -> Environment:
    began = time.monotonic()
    say(f"{record.name} 1/4: an environment with {interpreter} in {made.folder}")
    venv = [uv, "venv", "--python", interpreter] if uv else [interpreter, "-I", "-m", "venv"]
    venv += ["--without-pip"] if record.inherit and PathFinder.find_spec("pip") else []  # it inherits pip, too
    _run([*venv, str(made.folder)], record)
    if record.inherit:
        lines = "".join(f"import site; site.addsitedir({str(path)!r})\n" for path in inherited())
        write_text(site_packages(made.folder) / INHERIT, lines)
    pip = [str(made.python), "-I", "-m", "pip", "install", "--disable-pip-version-check"]
    pip = [uv, "pip", "install", "--python", str(made.python)] if uv else pip
    pip += ["--constraint", str(Path(constraint).absolute())] if constraint else []
    needed, alone = _pinned(record.resolved(record.requirements), record.resolved(record.no_deps), pins)
    say(f"{record.name} 2/4: {len(needed)} requirements with what they need" + (" (uv)" if uv else ""))
    if needed:
        _run([*pip, *needed], record, made.python)
    say(f"{record.name} 3/4: {', '.join(alone) or 'nothing'} without dependencies; {len(record.copy)} repairs")
    if alone:
        _run([*pip, "--no-deps", *alone], record, made.python)
    for source, target in record.copy:
        _copy(site_packages(made.folder), source, target, record)
    say(f"{record.name} 4/4: does {record.scorer} load?")
    Worker(record.name, made.python, record.start({}, "cpu"), record.variables).check()
    facts = {"record": str(record.path), "python": str(interpreter), "pins": pins, "packages": made.packages}
    write_text(made.folder / MARK, json.dumps({**facts, "seconds": round(time.monotonic() - began, 1)}, indent=1))
    say(f"{record.name} is ready after {time.monotonic() - began:.0f} s")
    return environment_in(made.folder)


@contextlib.contextmanager
def _whole(folder: Path) -> Iterator[None]:
    """Start from nothing, and leave nothing where the work does not come to its end."""
    clear(folder)
    try:
        yield
    except BaseException:
        clear(folder)
        raise


def _uv(record: Record, installer: str) -> str | None:
    """The program uv, if it is to install."""
    uv = shutil.which("uv")
    if installer not in {"auto", "pip", "uv"} or (installer == "uv" and not uv):
        raise RewardError(f"installer is {installer!r}; it must be auto, pip, or uv where uv is on the PATH")
    return None if installer == "pip" or record.inherit else uv  # uv does not see what is inherited


def _interpreter(record: Record, asked: str | None) -> str:
    """The Python that was asked for, or the first that the record allows."""
    from packaging.specifiers import InvalidSpecifier, SpecifierSet

    if asked and record.inherit:
        raise RewardError(f"{record.name} inherits pagopt's own packages, so it takes pagopt's own Python, not {asked}")
    try:
        allowed = SpecifierSet(record.python)
    except InvalidSpecifier as error:
        raise RewardError(f"{record.path}: python is {record.python!r}: {error}") from error
    tried: dict[str, None] = {}
    names = [asked] if asked else [sys.executable, *(f"python3.{minor}" for minor in range(20, 5, -1))]
    for name in names[:1] if record.inherit else names:
        found = shutil.which(name)
        version = _version(found) if found else None
        if found and version:
            if allowed.contains(version):
                return found
            tried[version] = None
    advice = "Install one and name it with `--python`."
    if record.inherit:
        advice = "It inherits pagopt's own packages, so that has to be pagopt's own Python."
    known = ", ".join(tried) or f"{asked} is none" if asked else ", ".join(tried)
    raise RewardError(f"{record.name} needs Python {record.python or 'of any version'}; here: {known}. {advice}")


def _version(program: str) -> str | None:
    """Which Python a program is, if it is one that can make environments."""
    code = "import sys, venv; print('.'.join(map(str, sys.version_info[:3])))"
    try:
        done = subprocess.run([program, "-I", "-c", code], capture_output=True, text=True)
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _run(command: Sequence[str], record: Record, python: Path | None = None) -> None:
    variables = clean_variables(python) if python else None
    try:
        done = subprocess.run(command, env=variables, stdin=subprocess.DEVNULL)
    except OSError as error:
        raise RewardError(f"{record.name}: cannot run {command[0]}: {error.strerror}") from error
    if done.returncode:
        raise RewardError(
            f"{record.name}: a step ended with status {done.returncode}; what it said is above. Nothing of the "
            f"environment is left. The step: {' '.join(command)}"
        )


def _pinned(requirements: list[str], no_deps: list[str], pins: Sequence[str]) -> tuple[list[str], list[str]]:
    """Both lists, with those replaced whose package ``pins`` name; other pins become requirements."""

    def package(line: str) -> str:
        return re.sub(r"[-_.]+", "-", re.split(r"[\s<>=!~;\[@]", line, maxsplit=1)[0]).lower()

    by_name = {package(pin): pin for pin in pins}
    alone = [by_name.pop(package(line), line) for line in no_deps]
    needed = [by_name.pop(package(line), line) for line in requirements]
    return needed + list(by_name.values()), alone


def _copy(packages: Path, source: str, target: str, record: Record) -> None:
    place = packages / target
    place = place / Path(source).name if target.endswith("/") or place.is_dir() else place
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(packages / source, place)
    except OSError as error:
        raise RewardError(f"{record.path}: cannot copy {source} to {target}: {error}") from error
