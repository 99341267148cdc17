"""One process of a worker, from its start to its end; and what it is told, and what it says."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pagopt.errors import RewardError
from pagopt.isolated import worker

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = ["Died", "Life", "clean_variables", "say"]

SCRIPT = Path(worker.__file__)
KEPT = 40  # lines of what the package said that an error repeats
PIPE = 2**20  # bytes, where the system allows it: on a busy machine every filling of a pipe waits for its turn
GRACE = 2.0  # seconds beyond the limit, in which the worker shows where it hangs and ends by itself


class Died(Exception):
    """A worker's process ended; the text says how, and repeats its last words."""


class Life:
    """One process.

    Args:
        name: How messages call it.
        python: Its interpreter.
        variables: Environment variables on top of this process's own.

    Attributes:
        owner: The id of the process that started it; after a fork the pipes are still that one's.
        end: Ends it with all that it started; called at the latest when nothing refers to this object, or at exit.

    Raises:
        RewardError: If it cannot be started.
    """

    end: Callable[[], object]

    def __init__(self, name: str, python: Path, variables: Mapping[str, str]) -> None:
        self.name, self.owner = name, os.getpid()
        try:
            # A group of its own: Ctrl-C goes to us, and we end it with all that it started.
            # -I: no PYTHON* variable and no user's site-packages leak in.
            self.process = subprocess.Popen(
                [str(python), "-I", str(SCRIPT)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env={**clean_variables(python), **variables},
                start_new_session=True,
            )
        except OSError as error:
            raise RewardError(
                f"{name}: cannot start {python}: {error.strerror}. Build its environment again: "
                f"pagopt rewards install {name} --force"
            ) from error
        _widen(self.process)
        self.words: deque[str] = deque(maxlen=KEPT)
        # Not a method: a running thread would keep this object, and with it the process, alive.
        self.threads = [threading.Thread(target=_listen, args=(name, self.process, self.words), daemon=True)]
        self.threads[0].start()
        self.end = weakref.finalize(self, _end, self.process, self.threads, self.owner)

    def ask(self, header: dict[str, Any], parts: list[bytes], limit: float) -> dict[str, Any]:
        """Send a request and wait for its reply; TimeoutError or Died where none comes."""
        answers: queue.Queue[dict[str, Any] | None] = queue.Queue()
        # In a thread, since also the sending can block for ever.
        talk = threading.Thread(target=_exchange, args=(self.process, header, parts, answers), daemon=True)
        self.threads[1:] = [talk]
        talk.start()
        until = time.monotonic() + limit
        over = False  # where it ended, a child of it may still hold the pipe
        while True:
            try:
                reply = answers.get(timeout=1 if over else 0.1)
            except queue.Empty:
                reply = None
                if over:
                    break
                over = self.process.poll() is not None
                if time.monotonic() > until + GRACE:
                    raise TimeoutError from None
                continue
            if reply is not None:
                return reply
            break
        if time.monotonic() > until:
            raise TimeoutError  # it ended itself
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(GRACE)
        raise Died(_how(self.process.returncode) + "." + self.last_words())

    def last_words(self) -> str:
        """What it said last, for an error message."""
        self.threads[0].join(GRACE if self.process.poll() is not None else 0)
        return "\nIts last words:\n" + "\n".join(f"  {line}" for line in self.words) if self.words else ""


def _widen(process: subprocess.Popen[bytes]) -> None:
    """Make its pipes larger; where the system refuses, as when this user's have their share already, they stay."""
    resize = getattr(fcntl, "F_SETPIPE_SZ", None)
    if fcntl is None or resize is None:
        return
    for stream in (process.stdin, process.stdout):
        with contextlib.suppress(OSError):
            fcntl.fcntl(stream, resize, PIPE)  # type: ignore[arg-type]


def _listen(name: str, process: subprocess.Popen[bytes], words: deque[str]) -> None:
    """Pass on what the package says, and keep the end of it."""
    assert process.stderr is not None
    with contextlib.suppress(OSError, ValueError):
        for raw in process.stderr:
            for line in raw.decode("utf-8", "replace").replace("\r", "\n").splitlines():
                if line.strip():
                    words.append(line)
                    say(name, line)


def _exchange(
    process: subprocess.Popen[bytes],
    header: dict[str, Any],
    parts: list[bytes],
    answers: queue.Queue[dict[str, Any] | None],
) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    frame = None
    with contextlib.suppress(OSError, ValueError):  # a broken or closed pipe: it died, or we gave up
        worker.send(process.stdin, header, parts)
        frame = worker.receive(process.stdout)
    answers.put(frame[0] if frame else None)


def _end(process: subprocess.Popen[bytes], threads: list[threading.Thread], owner: int) -> None:
    """End a worker and what it started, now."""
    if os.getpid() != owner:
        return
    with contextlib.suppress(OSError):  # it is gone
        if os.name == "posix":
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
    process.wait()
    for thread in threads:  # its last words come before ours
        thread.join(GRACE)
    if any(thread.is_alive() for thread in threads):
        return  # a process that left the group holds the pipes; closing them would wait for it
    for stream in (process.stdin, process.stdout, process.stderr):
        with contextlib.suppress(OSError):
            if stream is not None:
                stream.close()


def _how(status: int | None) -> str:
    if status is None:
        return "closed its pipe"
    if status >= 0:
        return f"ended with status {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    hint = " (perhaps for want of memory)" if name == "SIGKILL" else ""
    return f"was ended by {name}{hint}"


def clean_variables(python: Path) -> dict[str, str]:
    """This process's environment variables, less those that lead a Python to another one's packages."""
    variables = {key: value for key, value in os.environ.items() if key not in {"PYTHONPATH", "PYTHONHOME"}}
    variables["VIRTUAL_ENV"] = str(python.parent.parent)
    variables["PATH"] = os.pathsep.join([str(python.parent), variables.get("PATH", os.defpath)])
    return variables


def say(name: str, line: str) -> None:
    """Put a line of a worker on standard error."""
    with contextlib.suppress(OSError, ValueError):  # the last lines may come when our own stderr is closed
        sys.stderr.write(f"[{name}] {line}\n")
