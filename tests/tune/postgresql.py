"""A PostgreSQL server that lives as long as the tests: started, stopped and started again at will."""

from __future__ import annotations

import contextlib
import getpass
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

PASSWORD = "not to be shown"
WRITTEN = PASSWORD.replace(" ", "%20")


def binary(name: str) -> str | None:
    """Where a program of PostgreSQL lies; Debian keeps them out of the PATH."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: float(path.parts[-3]))
    return shutil.which(name) or (str(found[-1]) if found else None)


def unprivileged() -> tuple[list[str], str | None]:
    """What to put before a command, since PostgreSQL refuses root, and the user that it then runs as."""
    if os.geteuid() != 0:
        return [], None
    names = {entry.pw_name for entry in pwd.getpwall()}
    user = next((name for name in ("postgres", "nobody") if name in names), None)
    if user is None or shutil.which("setpriv") is None:
        pytest.skip("PostgreSQL refuses root, and there is no setpriv or no user postgres or nobody to run it as")
    entry = pwd.getpwnam(user)
    return ["setpriv", "--reuid", str(entry.pw_uid), "--regid", str(entry.pw_gid), "--clear-groups"], user


class Server:
    """A cluster in a folder of its own, on a free port of this machine, with a password."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.process = folder, None
        self.before, user = unprivileged()
        self.user = user or getpass.getuser()
        (folder / "password").write_text(PASSWORD, encoding="utf-8")
        if user is not None:
            for path in (folder, folder / "password"):
                shutil.chown(path, user)
        words = [str(binary("initdb")), "-D", str(folder / "data"), "-U", "tuner", "-A", "scram-sha-256", "--no-sync"]
        self._run([*words, "--pwfile", str(folder / "password"), "-E", "UTF8", "--locale", "C"])
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.start()

    def _run(self, words: list[str]) -> None:
        done = subprocess.run([*self.before, *words], cwd=self.folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    def start(self) -> None:
        """Start it, and wait until it answers."""
        words = [str(binary("postgres")), "-D", str(self.folder / "data"), "-p", str(self.port), "-F"]
        words += ["-c", "listen_addresses=127.0.0.1", "-c", f"unix_socket_directories={self.folder}"]
        log = (self.folder / "log").open("a", encoding="utf-8")
        with log:
            self.process: Any = subprocess.Popen([*self.before, *words], cwd=self.folder, stdout=log, stderr=log)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with contextlib.suppress(Exception), self.connect():
                return
            assert self.process.poll() is None, (self.folder / "log").read_text(encoding="utf-8")
            time.sleep(0.05)
        raise AssertionError("the server does not answer: " + (self.folder / "log").read_text(encoding="utf-8"))

    def stop(self) -> None:
        """Stop it at once, without a farewell to those who are connected; as a crash does."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGQUIT)
            self.process.wait(60)

    def connect(self, base: str = "postgres") -> Any:
        """A connection that commits by itself."""
        import psycopg

        told = {"host": "127.0.0.1", "port": self.port, "user": "tuner", "password": PASSWORD, "dbname": base}
        return psycopg.connect(**told, autocommit=True, connect_timeout=5)  # type: ignore[arg-type]

    def new_base(self, name: str) -> str:
        """An empty database; returns its address."""
        with self.connect() as connection:
            connection.execute(f'CREATE DATABASE "{name}"')
        return self.address(name)

    def address(self, name: str) -> str:
        return f"postgresql://tuner:{WRITTEN}@127.0.0.1:{self.port}/{name}"


@contextlib.contextmanager
def running() -> Iterator[Server]:
    """A server for some tests; they are skipped where PostgreSQL is not installed."""
    pytest.importorskip("psycopg", reason="needs pip install 'pagopt[postgresql]'")
    if binary("initdb") is None or binary("postgres") is None:
        pytest.skip("PostgreSQL is not installed (apt install postgresql)")
    # Not in pytest's own folder, where no other user may go.
    folder = Path(tempfile.mkdtemp(prefix="pagopt-postgresql-"))
    server = None
    try:
        server = Server(folder)
        yield server
    finally:
        if server is not None:
            server.stop()
        shutil.rmtree(folder, ignore_errors=True)
