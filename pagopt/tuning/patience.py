"""A storage on a server that may be away for a moment: what fails for that is tried again, and said."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from functools import partial
from typing import Any, cast

from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.trial import TrialState
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, TimeoutError

__all__ = ["WAITS", "is_away", "patient"]

WAITS = (1.0, 2.0, 4.0, 8.0, 15.0)
"""Seconds before the second try, the third, and so on: half a minute, in which a server has started again."""

NAMES = tuple(name for name in dir(BaseStorage) if not name.startswith("_") and callable(getattr(BaseStorage, name)))


def patient(storage: BaseStorage, name: str, waits: Sequence[float] | None = None) -> BaseStorage:
    """The same storage, which waits for its server.

    Args:
        storage: A database's or a proxy's.
        name: For messages, without a password.
        waits: Seconds before each further try; default :data:`WAITS`. Once all were of no use, the next call is tried
            once only, until one succeeds.
    """
    calls = _Calls(storage, name, WAITS if waits is None else waits)
    methods = {method: staticmethod(partial(calls, method)) for method in NAMES}
    return cast(BaseStorage, type("PatientStorage", (BaseStorage,), methods)())


def is_away(error: BaseException) -> bool:
    """Whether this error of a storage may pass by itself: the server is away, or a file is locked."""
    grpc = sys.modules.get("grpc")
    if grpc is not None and isinstance(error, grpc.RpcError):
        code = cast(Any, error).code()
        return code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
    if isinstance(error, StorageInternalError) and error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, DBAPIError) and "sqlite3" in type(error.orig).__module__:
        return "locked" in str(error.orig)
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return True
    return isinstance(error, (InterfaceError, OperationalError, TimeoutError))


class _Calls:
    """Calls methods of a storage, and repeats those calls that find nobody there."""

    def __init__(self, storage: BaseStorage, name: str, waits: Sequence[float]) -> None:
        self._storage, self._name, self._waits = storage, name, tuple(waits)
        self._lost = False

    def __call__(self, method: str, *args: Any, **options: Any) -> Any:
        waits = () if self._lost else self._waits
        for number in range(len(waits) + 1):
            try:
                found = getattr(self._storage, method)(*args, **options)
            except UpdateFinishedTrialError:
                # The first try may have been done before the answer was lost.
                if number and method == "set_trial_state_values" and self._is_told(*args, **options):
                    return True
                raise
            except Exception as error:
                if not is_away(error):
                    raise
                self._lost = number == len(waits)
                if self._lost:
                    raise
                again = f"trying again in {waits[number]:g} s"
                print(f"the storage {self._name} does not answer: {again}", file=sys.stderr, flush=True)
                time.sleep(waits[number])
            else:
                self._lost = False
                return found
        raise AssertionError("the last try returns or raises")

    def _is_told(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        trial = self._storage.get_trial(trial_id)
        return trial.state == state and (values is None or list(trial.values or ()) == list(values))
