"""Where an Optuna study is kept: a database or a journal file, and errors that say what to do."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import optuna
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from pagopt.errors import StudyError

__all__ = ["guarded", "is_alive", "open_storage", "open_study", "worker"]

CONFIG = "pagopt"
TRIES = 3
PAUSE = 1.0  # seconds before the second try


def open_storage(address: str) -> BaseStorage:
    """A storage by its address.

    Args:
        address: A URL of a database, as Optuna takes it (``sqlite:///file.db``, ``postgresql://...``), or the path of a
            journal file.

    Raises:
        StudyError: If it cannot be reached, after three tries.
    """
    with guarded(address):
        if "://" not in address:
            Path(address).expanduser().parent.mkdir(parents=True, exist_ok=True)
            return JournalStorage(JournalFileBackend(str(Path(address).expanduser())))
        for attempt in range(1, TRIES + 1):
            try:
                options = {"pool_pre_ping": True} if not address.startswith("sqlite") else {}
                return RDBStorage(address, engine_kwargs=options)
            except (SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
                if isinstance(error, ArgumentError) or attempt == TRIES:
                    raise
                time.sleep(PAUSE * attempt)
    raise AssertionError("the last try returns or raises")


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
            study.set_user_attr(CONFIG, dict(config))
            return study, True
        except optuna.exceptions.DuplicatedStudyError:
            study = optuna.load_study(storage=storage, study_name=name, sampler=sampler, pruner=pruner)
        known = study.user_attrs.get(CONFIG)
        for _ in range(20):  # another worker may have made it a moment ago
            if known is not None:
                break
            time.sleep(0.1)
            known = study.user_attrs.get(CONFIG)
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


@contextmanager
def guarded(address: str) -> Iterator[None]:
    """Say what to do where the storage fails."""
    try:
        yield
    except ImportError as error:
        package = error.name or str(error)
        raise StudyError(
            f"the storage {shown(address)} needs the Python package {package}, which is not installed: pip install it "
            "(psycopg2-binary for PostgreSQL, pymysql for MySQL)"
        ) from error
    except (ArgumentError, ValueError) as error:
        raise StudyError(
            f"the storage {shown(address)} cannot be used: {_first(error)}. Give a URL such as sqlite:///tuning.db or "
            "postgresql://user@host/base, or the path of a journal file"
        ) from error
    except (SQLAlchemyError, optuna.exceptions.StorageInternalError, OSError) as error:
        raise StudyError(
            f"the storage {shown(address)} cannot be reached: {_first(error.__cause__ or error)}. Finished trials in "
            "it and all images and scores in the store are kept; the same command goes on once it is there again"
        ) from error


def shown(address: str) -> str:
    """The address without a password."""
    if "://" not in address:
        return address
    try:
        return make_url(address).render_as_string(hide_password=True)
    except (ArgumentError, ValueError):
        return address.partition("://")[0] + "://..."


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
        return Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return "-"


def _first(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__
