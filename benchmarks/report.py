"""Timing in turns, and the tables that the benchmarks print."""

from __future__ import annotations

import contextlib
import fcntl
import gc
import json
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import diffusers
import torch


def seconds(work: Callable[[], object], device: str) -> float:
    """How long something takes, the GPU's part included and garbage collection left out."""
    gpu = device.startswith("cuda")
    gc.disable()
    try:
        if gpu:
            torch.cuda.synchronize(device)
        start = time.perf_counter()
        work()
        if gpu:
            torch.cuda.synchronize(device)
        return time.perf_counter() - start
    finally:
        gc.enable()


@contextlib.contextmanager
def quiet(busy: Path | None) -> Iterator[None]:
    """Wait until nobody else computes on the machine: the way of ``--busy``."""
    if busy is None:
        yield
        return
    busy.unlink(missing_ok=True)
    lock = busy.parent / "lock"
    with lock.open("w") as file:
        while set(busy.parent.iterdir()) - {lock}:
            time.sleep(0.1)
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def take_turns(variants: Mapping[str, Callable[[], object]], options: Any) -> dict[str, list[float]]:
    """Seconds of every variant in every round."""
    times: dict[str, list[float]] = {name: [] for name in variants}
    with quiet(options.busy):
        start = time.monotonic()
        for number in range(options.rounds):
            if number and time.monotonic() - start > options.seconds:
                break
            gc.collect()
            for name, work in variants.items():
                times[name].append(seconds(work, options.device))
    return times


def ratio(times: Sequence[float], base: Sequence[float]) -> float:
    """The median of the ratios of all rounds."""
    return statistics.median(time / other for time, other in zip(times, base, strict=True))


def device_name(device: str) -> str:
    """The GPU's name, or the processor's."""
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else platform.processor() or "CPU"


class Report:
    """Tables in Markdown on the screen, and in JSON in a file."""

    def __init__(self, title: str, options: Any) -> None:
        self.title, self.options = title, options
        self.tables: list[dict[str, Any]] = []
        self.notes = ["Ratios are medians over rounds in which all variants take turns."]
        if options.model != "emoji":
            self.notes.append("Random weights in the published architecture.")
        if options.whole or options.model == "emoji":
            self.notes.append("Images are decoded, and prompts encoded.")
        else:
            self.notes.append(
                "No text encoders (random embeddings of their shapes, so encoding is counted nowhere), and no decoder "
                "(latents)."
            )

    def table(self, title: str, rows: list[dict[str, Any]]) -> None:
        """Add a table; all rows have the same columns."""
        self.tables.append({"title": title, "rows": rows})

    def finish(self) -> None:
        """Print everything, and write the file."""
        given = self.options
        versions = f"torch {torch.__version__}, diffusers {diffusers.__version__}"
        settings = {"device_name": device_name(given.device), "threads": torch.get_num_threads(), "versions": versions}
        settings |= {name: value for name, value in vars(given).items() if name != "json"}
        print(f"## {self.title}\n\n{', '.join(f'{name} {value}' for name, value in settings.items())}")
        for table in self.tables:
            columns = list(table["rows"][0])
            print(f"\n### {table['title']}\n\n| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
            for row in table["rows"]:
                print(f"| {' | '.join(_cell(row[column]) for column in columns)} |")
        print("\n" + "\n".join(f"- {note}" for note in self.notes))
        if given.json is not None:
            found = {"title": self.title, "settings": settings, "tables": self.tables, "notes": self.notes}
            given.json.parent.mkdir(parents=True, exist_ok=True)
            given.json.write_text(json.dumps(found, indent=1, default=str) + "\n")


def _cell(value: Any) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.2f}" if abs(value) >= 1 else f"{value:.3g}"
