"""Where an Optuna study is kept: a database, a proxy or a journal file, and errors that say what to do."""

from __future__ import annotations

import json
import os
import re
import socket
import sys
import time
import warnings
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote

import optuna
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage, GrpcStorageProxy, JournalStorage, RDBStorage, get_storage
from optuna.storages.journal import JournalFileBackend
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from pagopt.errors import StudyError
from pagopt.tuning.patience import patient

__all__ = [
    "DATABASE",
    "MAKER",
    "address_of",
    "file_of",
    "guarded",
    "is_alive",
    "open_storage",
    "open_study",
    "shown",
    "worker",
]

DATABASE = "tuning.db"
"""The SQLite file in the folder of a run, where no other storage is given."""

CONFIG = "pagopt"
MAKER = "maker"
TRIES = 3
PAUSE = 1.0  # seconds before the second try
ANSWER = 5.0  # seconds for a proxy to answer
PROXY = re.compile(r"grpc://(?P<host>[^:/@\s]+|\[[0-9a-fA-F:]+\]):(?P<port>[0-9]{1,5})/?")
SQLITE = {".db", ".sqlite", ".sqlite3"}
HEADER = b"SQLite format 3\0"
USER = re.compile(r"(?s)(?P<user>://[^:/]*):(?P<password>.*)@")  # up to the last @: a password may have some
VALUE = re.compile(r"(?s)(?<=[?&])(?P<name>[^?&=]*)=(?P<value>[^&]*)")
SECRET = re.compile(r"(?i)pass|pwd|token|secret|key|auth|cred|odbc")


def address_of(storage: str | Path) -> str:
    """The address of a storage, as :func:`open_storage` takes it.

    Args:
        storage: A URL, or the path of a file: of SQLite if its content says so, or, where there is none yet, its name
            (``.db``, ``.sqlite``, ``.sqlite3``); any other is a journal.

    Raises:
        StudyError: If it is neither.
    """
    if not isinstance(storage, str | Path):
        raise StudyError(
            f"storage is a {type(storage).__name__}, and has to be an address, since every worker opens it for itself: "
            "give a URL such as sqlite:///tuning.db, or the path of a SQLite or a journal file"
        )
    if "://" in str(storage) and isinstance(storage, str):
        return storage
    file = Path(storage).expanduser()
    if not _is_sqlite(file):
        return str(file)
    # Characters such as ? and % mean something in a URL.
    return URL.create("sqlite", database=str(file.resolve())).render_as_string(hide_password=False)


def _is_sqlite(file: Path) -> bool:
    if not file.is_file():
        return file.suffix.lower() in SQLITE
    with file.open("rb") as content:
        return content.read(len(HEADER)) == HEADER


def file_of(address: str) -> Path | None:
    """The file that an address names; ``None`` for a server, and for a database in memory.

    Raises:
        StudyError: If it is no address.
    """
    if "://" not in address:
        return Path(address).expanduser()
    with guarded(address):
        url = make_url(address)
    name = url.database if url.get_backend_name() == "sqlite" else None
    return Path(name) if name and name != ":memory:" else None


def open_storage(address: str) -> BaseStorage:
    """A storage by its address.

    Args:
        address: A URL of a database, as Optuna takes it (``sqlite:///file.db``, ``postgresql://...``); ``grpc://host:port``
            of Optuna's proxy; or the path of a journal file.

    Raises:
        StudyError: If it cannot be reached, after three tries.
    """
    with guarded(address):
        if "://" not in address:
            Path(address).expanduser().parent.mkdir(parents=True, exist_ok=True)
            return JournalStorage(JournalFileBackend(str(Path(address).expanduser())))
        for attempt in range(1, TRIES + 1):
            try:
                return patient(_proxy(address) if address.startswith("grpc:") else _database(address), shown(address))
            except (SQLAlchemyError, optuna.exceptions.StorageInternalError, ConnectionError) as error:
                if isinstance(error, ArgumentError) or attempt == TRIES:
                    raise
                time.sleep(PAUSE * attempt)
    raise AssertionError("the last try returns or raises")


def _database(address: str) -> BaseStorage:
    options = {"pool_pre_ping": True} if not address.startswith("sqlite") else {}
    storage = RDBStorage(address, engine_kwargs=options)
    weakref.finalize(storage, storage.engine.dispose)  # or its connections end with a warning
    return get_storage(storage)


def _proxy(address: str) -> BaseStorage:
    match = PROXY.fullmatch(address)
    if match is None:
        raise ValueError("a proxy's address is grpc://HOST:PORT")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        storage = GrpcStorageProxy(host=match["host"], port=int(match["port"]))
    storage.wait_server_ready(ANSWER)
    return storage


def open_study(
    storage: BaseStorage,
    name: str,
    address: str,
    directions: Sequence[Literal["maximize", "minimize"]],
    config: Mapping[str, Any],
    sampler: BaseSampler,
    pruner: BasePruner,
) -> tuple[optuna.Study, bool]:
    """The study of this name, made where there is none.

    Args:
        storage: Where it is kept.
        name: Of the study.
        address: For messages.
        directions: Of its objectives, "maximize" or "minimize".
        config: What its trials depend on; kept with the study, and compared.
        sampler: For its trials.
        pruner: For its trials.

    Returns:
        The study, and whether it was made now.

    Raises:
        StudyError: If a study of this name was made with something else, or the storage cannot be reached.
    """
    with guarded(address):
        try:
            study = optuna.create_study(
                storage=storage, study_name=name, directions=directions, sampler=sampler, pruner=pruner
            )
            return _signed(study, config), True
        except optuna.exceptions.DuplicatedStudyError:
            study = optuna.load_study(storage=storage, study_name=name, sampler=sampler, pruner=pruner)
        known = study.user_attrs.get(CONFIG)
        for _ in range(20):  # another worker may have made it a moment ago
            if known is not None:
                break
            time.sleep(0.1)
            known = study.user_attrs.get(CONFIG)
        # A process that was killed at its very start leaves an empty one.
        empty = not study.user_attrs.keys() - {MAKER} and not study.get_trials(deepcopy=False)
        if known is None and empty and [one.name.lower() for one in study.directions] == list(directions):
            return _signed(study, config), True
    if known is None:
        raise StudyError(
            f"the storage {shown(address)} has a study {name!r} that pagopt did not make: choose another --study_name"
        )
    wanted = json.loads(json.dumps(config))
    names = sorted(key for key in {**known, **wanted} if known.get(key) != wanted.get(key))
    if names:
        changes = "\n".join(f"  {key}: there {known.get(key)!r}, now {wanted.get(key)!r}" for key in names)
        raise StudyError(
            f"the storage {shown(address)} has a study {name!r} of something else:\n{changes}\n"
            "Its trials cannot be compared with these. Choose another --study_name, or give the same options."
        )
    return study, False


def _signed(study: optuna.Study, config: Mapping[str, Any]) -> optuna.Study:
    study.set_user_attr(MAKER, worker())
    study.set_user_attr(CONFIG, dict(config))
    return study


@contextmanager
def guarded(address: str) -> Iterator[None]:
    """Say what to do where the storage fails."""
    try:
        yield
    except ImportError as error:
        package = error.name or getattr(error.__cause__, "name", None) or str(error).partition("\n")[0]
        raise StudyError(
            f"the storage {shown(address)} needs the Python package {package}, which is not installed: pip install "
            "'pagopt[postgresql]' for PostgreSQL, 'pagopt[grpc]' for a proxy, pymysql for MySQL (mysql+pymysql://...)"
        ) from error
    except (ArgumentError, ValueError) as error:
        raise StudyError(
            f"the storage {shown(address)} cannot be used: {_first(error, address)}. Give a URL such as "
            "sqlite:///tuning.db, postgresql://user@host/base or grpc://host:port, or the path of a journal file"
        ) from error
    except Exception as error:
        if not _is_of_storage(error):
            raise
        raise StudyError(
            f"the storage {shown(address)} cannot be reached: {_first(error, address)}. Finished trials in it and all "
            "images and scores in the store are kept; the same command goes on once it is there again"
        ) from error


def shown(address: str) -> str:
    """The address without a password, nor what a driver is told beside it."""
    return VALUE.sub(r"\g<name>=***", USER.sub(r"\g<user>:***@", address)) if "://" in address else address


def worker() -> str:
    """This process, in a way that tells later whether it still runs."""
    return f"{socket.gethostname()} {os.getpid()} {_started(os.getpid())}"


def is_alive(name: str) -> bool:
    """Whether a :func:`worker` may still run; one on another machine always may."""
    host, process, started = name.rsplit(" ", 2)
    if host != socket.gethostname():
        return True
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return _started(int(process)) == started


def _started(process: int) -> str:
    """When a process began, in the system's ticks; the same number may be given to another process later."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        return "ended" if fields[0] in "ZX" else fields[19]  # its parent has not asked how it ended
    except (OSError, IndexError):
        return "-"


def _is_of_storage(error: Exception) -> bool:
    grpc = sys.modules.get("grpc")
    known = (SQLAlchemyError, optuna.exceptions.StorageInternalError, OSError)
    return isinstance(error, known) or (grpc is not None and isinstance(error, grpc.RpcError))


def _first(error: BaseException, address: str) -> str:
    """What an error says in its first line, without the address's passwords."""
    details = getattr(error, "details", None)  # of gRPC
    said = [details()] if callable(details) else [error.__cause__ or "", error]
    text = next((text for text in map(str, said) if text.strip()), type(error).__name__)
    text = text.strip().partition("\n")[0].rstrip(".")
    for secret in sorted(_secrets(address), key=len, reverse=True):
        text = text.replace(secret, "***")
    return text


def _secrets(address: str) -> set[str]:
    """Passwords in an address, as they are and as they are written there."""
    found = {match["value"] for match in VALUE.finditer(address) if SECRET.search(match["name"])}
    if user := USER.search(address):  # SQLAlchemy takes what follows the first @ for the host
        found |= {user["password"], user["password"].partition("@")[2]}
    return {text for one in found for text in (one, unquote(one)) if text}
