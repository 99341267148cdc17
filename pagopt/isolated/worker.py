"""The script that runs in another environment: it loads a package's scorer and answers batches until it is left alone.

It is started as a file by that environment's Python (3.7 or newer), which has PIL and the scored package but no pagopt;
so it imports nothing else. What it says and hears goes through copies of its standard output and input, while the real
ones lead to standard error and to nothing: a package that prints cannot disturb it.

A frame is ``<4sIQ``: b"PGO1", length of a JSON header, length of the bytes after it; both follow. Requests are
``{"kind": "start" | "check", "scorer", "before", "args", "device", "limit"}`` and
``{"kind": "score", "sizes": [[width, height], ...], "prompts", "limit"}`` with the images' RGB bytes one after the
other; limits are seconds. Replies are ``{"kind": "ready", "seconds"}``, ``{"kind": "scores", "scores", "seconds"}`` and
``{"kind": "error", "error", "traceback"}``.
"""

from __future__ import annotations

import faulthandler
import functools
import importlib
import importlib.util
import inspect
import json
import os
import queue
import signal
import struct
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from typing import IO, Any

__all__ = ["HEAD", "MAGIC", "main", "receive", "send"]

HEAD = struct.Struct("<4sIQ")
MAGIC = b"PGO1"


def send(stream: IO[bytes], header: dict[str, Any], parts: Sequence[bytes] = ()) -> None:
    """Write one frame: ``header`` as JSON, then the bytes of ``parts``."""
    text = json.dumps(header).encode("utf-8")
    stream.write(HEAD.pack(MAGIC, len(text), sum(len(part) for part in parts)) + text)
    for part in parts:
        stream.write(part)
    stream.flush()


def receive(stream: IO[bytes]) -> tuple[dict[str, Any], bytes] | None:
    """The next frame as (header, bytes); None at the end of the stream, also in the middle of a frame."""
    head = stream.read(HEAD.size)
    if len(head) < HEAD.size:
        return None
    magic, length, size = HEAD.unpack(head)
    if magic != MAGIC:
        raise ValueError(f"not a frame: {head!r}")
    text = stream.read(length)
    data = stream.read(size)
    if len(text) < length or len(data) < size:
        return None
    return json.loads(text.decode("utf-8")), data


def main() -> None:
    """Answer requests until the other side is gone."""
    requests, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True, errors="backslashreplace")  # type: ignore[union-attr]
    faulthandler.enable()  # a crash in compiled code shows where
    waiting: queue.Queue[tuple[dict[str, Any], bytes]] = queue.Queue()
    for work in (functools.partial(_listen, requests, waiting), functools.partial(_watch, os.getppid())):
        threading.Thread(target=work, daemon=True).start()
    scorer: Any = None
    reply: dict[str, Any]
    while True:
        header, data = waiting.get()
        # Shows where it hangs and ends the process, in a thread that needs no interpreter lock.
        faulthandler.dump_traceback_later(header["limit"], exit=True)
        try:
            if header["kind"] == "score":
                reply = {"kind": "scores", **_scores(scorer, header, data)}
            else:
                start = time.monotonic()
                scorer = _load(header)
                reply = {"kind": "ready", "seconds": time.monotonic() - start}
        except (Exception, SystemExit) as error:
            said = f"{type(error).__name__}: {error}"
            reply = {"kind": "error", "error": said, "traceback": traceback.format_exc()}
        faulthandler.cancel_dump_traceback_later()
        del data
        sys.stdout.flush()
        sys.stderr.flush()
        send(replies, reply)


def _listen(requests: IO[bytes], waiting: queue.Queue[tuple[dict[str, Any], bytes]]) -> None:
    """Pass requests on; end this process at once when the other side is gone, also in the middle of a batch."""
    while True:
        frame = receive(requests)
        if frame is None:
            return _end()
        waiting.put(frame)


def _watch(parent: int) -> None:
    """End with the parent, even if one of its children keeps the pipe open."""
    while os.name == "posix":
        if os.getppid() != parent:
            _end()
        time.sleep(1)


def _end() -> None:
    """End this process and those it started."""
    if os.name == "posix" and os.getpgid(0) == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(0)


def _load(header: dict[str, Any]) -> Any:
    """Import the scorer; make it, unless it is only to be checked."""
    importlib.import_module("PIL.Image")  # now, so that its time counts as loading, and its absence shows
    for index, path in enumerate(header["before"]):
        _run(f"_pagopt_before_{index}", path)
    where, _, name = header["scorer"].rpartition(":")
    module = _run("_pagopt_scorer", where) if where.endswith(".py") else importlib.import_module(where)
    target = getattr(module, name)
    if header["kind"] == "check":
        return None
    arguments = dict(header["args"])
    signature = inspect.signature(target)
    if "device" in signature.parameters:
        arguments.setdefault("device", header["device"])
    try:
        signature.bind(*(() if isinstance(target, type) else ([], [])), **arguments)
    except TypeError as error:
        raise TypeError(f"{name}{signature} got {arguments}: {error}") from None
    return target(**arguments) if isinstance(target, type) else functools.partial(target, **arguments)


def _run(name: str, path: str) -> Any:
    """Run a file as a module of a private name, which no package can have."""
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is no Python file (.py)")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    with open(path, "rb") as file:
        # Not through the loader, whose bytecode cache looks at the time and size of a file only.
        exec(compile(file.read(), path, "exec"), module.__dict__)
    return module


def _scores(scorer: Any, header: dict[str, Any], data: bytes) -> dict[str, Any]:
    """Unpack the images, call the scorer, and make plain numbers of what it returns; its own time in seconds."""
    from PIL import Image

    images, start, view = [], 0, memoryview(data)
    for width, height in header["sizes"]:
        end = start + 3 * width * height
        images.append(Image.frombytes("RGB", (width, height), bytes(view[start:end])))
        start = end
    began = time.monotonic()
    returned = scorer(images, header["prompts"])
    for step in ("detach", "cpu", "tolist"):  # a tensor, an array; a list stays what it is
        returned = getattr(returned, step)() if hasattr(returned, step) else returned
    if not isinstance(returned, (list, tuple)):
        raise TypeError(f"the scorer returned {returned!r:.80}, not one number an image")
    scores = [float(value) for value in returned]
    return {"scores": scores, "seconds": time.monotonic() - began}


if __name__ == "__main__":
    main()
