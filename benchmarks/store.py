"""How fast a store is: a million rows in its index, and what image files cost as PNG and as WebP.

The rows are made up; the files of the keys that are looked up are real (links to one image): a look-up asks for them.

    python -m benchmarks.store --rows 1000000 --keys 10000 --rounds 5
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pagopt.disk import transaction
from pagopt.store import Store

__all__ = ["main"]

FACTS = {
    "diffusers": "0.42", "dtype": "float32", "height": 1024, "model": "e6a3270c051f48eeb1efc5d99abb2577", "pagopt": 1,
    "pipeline": "StableDiffusion3Pipeline", "precision": "bf16-true", "prompt": "flat, a butterfly on a flower",
    "recipe": {"cfg": 1.0, "heads": ["L1.H3", "L6.H3", "L6.H4"], "interval": [0.0, 1.0], "scale": 2.0, "strength": 1.0},
    "scheduler": "FlowMatchEulerDiscreteScheduler@0123456789ab", "steps": 28, "torch": "2", "width": 1024,
}  # fmt: skip
START = "import time; t, c = time.perf_counter(), time.process_time(); from pagopt.store import Store; "
START += "s = Store({folder!r}); s.has_image('0' * 64); print(time.perf_counter() - t, time.process_time() - c)"
FORMATS: dict[str, dict[str, Any]] = {
    "PNG, level 1": {"format": "PNG", "compress_level": 1},
    "PNG, level 6": {"format": "PNG"},
    "WebP, method 0": {"format": "WEBP", "lossless": True, "method": 0, "quality": 0},
    "WebP, method 1": {"format": "WEBP", "lossless": True, "method": 1, "quality": 0},
    "WebP, method 4": {"format": "WEBP", "lossless": True, "method": 4, "quality": 80},
}


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000, help="images and scores in the index")
    parser.add_argument("--keys", type=int, default=10_000, help="keys of one look-up")
    parser.add_argument("--rounds", type=int, default=5, help="look-ups, each of other keys")
    parser.add_argument("--folder", type=Path, help="where to make the store; kept, and used again if it is there")
    parser.add_argument("--files", action="store_true", help="measure image files instead")
    options = parser.parse_args(argv)
    if options.files:
        for line in files():
            print(line)
        return 0
    with tempfile.TemporaryDirectory() as temporary:
        measure(options.folder or Path(temporary) / "store", options.rows, options.keys, options.rounds)
    return 0


def measure(folder: Path, rows: int, count: int, rounds: int) -> None:
    """Make the store if it is not there, and look keys up in it."""
    keys = [key(number) for number in range(rows)]
    with Store(folder) as store:
        if store.counts()["images"] != rows:
            print(f"made {rows:,} rows in {clock(lambda: fill(store, keys)):.1f} s")
        print(f"index: {store.index.stat().st_size / 1e6:,.0f} MB")
    starts: list[tuple[float, float]] = []
    images: list[tuple[float, float]] = []
    scores: list[tuple[float, float]] = []
    for number in range(rounds):
        some = random.Random(number).sample(keys, count)
        link(folder, some)
        starts.append(start(folder))
        with Store(folder) as store:
            begin = now()
            missing = store.missing_images(some)
            images.append(since(begin))
            begin = now()
            known = store.get_scores("clip@1", some)
            scores.append(since(begin))
            if missing or len(known) != len(some):
                raise SystemExit("the store did not find what it has")
    print(f"load: {' '.join(f'{load:.1f}' for load in os.getloadavg())} on {os.cpu_count()} cores")
    told("start-up (import, open, first look-up; a new process)", starts)
    told(f"look-up of {count:,} images, rows and files", images)
    told(f"look-up of {count:,} scores", scores)


def key(number: int) -> str:
    """Of a made-up image."""
    return Store.key({"number": number})


def fill(store: Store, keys: Sequence[str]) -> None:
    """Made-up rows of the usual length, in the order of their keys, which is quick."""
    text = json.dumps(FACTS, separators=(",", ":"))
    database: sqlite3.Connection = store._database()
    with transaction(database):
        rows = ((one, text) for one in sorted(keys))
        database.executemany("INSERT OR IGNORE INTO images VALUES (?, ?, 4348, 1.8e9)", rows)
        scores = ((one,) for one in sorted(keys))
        database.executemany("INSERT OR IGNORE INTO scores VALUES (?, 'clip@1', 0.5)", scores)


def link(folder: Path, keys: Sequence[str]) -> None:
    """Give these keys a file."""
    whole = folder / "image.webp"
    if not whole.exists():
        Image.new("RGB", (8, 8)).save(whole, lossless=True)
    for one in keys:
        path = folder / "images" / one[:2] / f"{one}.webp"
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            os.link(whole, path)


def start(folder: Path) -> tuple[float, float]:
    """What a new process takes to the first answer, its own start left out: seconds, and processor seconds."""
    words = [sys.executable, "-c", START.format(folder=str(folder))]
    wall, busy = subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()
    return float(wall), float(busy)


def clock(work: Callable[[], object]) -> float:
    """Seconds."""
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def now() -> tuple[float, float]:
    """Seconds, and processor seconds of this process, which other processes hardly change."""
    return time.perf_counter(), time.process_time()


def since(begin: tuple[float, float]) -> tuple[float, float]:
    """The same, from then on."""
    wall, busy = now()
    return wall - begin[0], busy - begin[1]


def told(what: str, times: Sequence[tuple[float, float]]) -> None:
    """Print a line: median, least, most."""
    seconds, busy = zip(*times, strict=True)
    low, high = min(seconds), max(seconds)
    spent = f"processor {statistics.median(busy):.3f} s"
    print(f"{what}: {statistics.median(seconds):.3f} s (of {len(seconds)}: {low:.3f} to {high:.3f}), {spent}")


def files() -> Iterator[str]:
    """Bytes and processor time of image files: a smooth picture with noise, of 1024 x 1024 pixels, and one of 64."""
    draw = np.random.default_rng(0)
    sizes = {4: 0.5, 16: 0.25, 64: 0.12, 256: 0.06, 1024: 0.03}
    parts = [
        weight * np.asarray(noise(draw, size).resize((1024, 1024), Image.Resampling.BICUBIC), dtype=float)
        for size, weight in sizes.items()
    ]
    pixels = np.sum(parts, axis=0) + draw.normal(0, 2, (1024, 1024, 3))
    large = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
    for name, picture, times in (("1024 x 1024", large, 2), ("64 x 64", large.resize((64, 64)), 50)):
        for title, how in FORMATS.items():
            begin = time.process_time()
            for _ in range(times):
                buffer = io.BytesIO()
                picture.save(buffer, **how)
            spent = (time.process_time() - begin) / times
            yield f"{name}  {title}: {buffer.tell():,} bytes, {spent * 1e3:.2f} ms"
    yield into_a_store(large, 16)


def into_a_store(picture: Image.Image, count: int) -> str:
    """What a batch of images costs the program that drew them, one by one and together."""
    with tempfile.TemporaryDirectory() as folder, Store(Path(folder)) as store:
        entries = [(key(number), picture, {"number": number}) for number in range(2 * count)]
        apart = clock(lambda: deque(map(store.put_images, ([entry] for entry in entries[:count])), maxlen=0))
        together = clock(lambda: store.put_images(entries[count:]))
    size = " x ".join(map(str, picture.size))
    took = f"{apart:.2f} s one by one, {together:.2f} s together"
    return f"{count} of {size} into a store, {os.cpu_count()} cores: {took} ({apart / together:.2f} times as fast)"


def noise(draw: np.random.Generator, size: int) -> Image.Image:
    """A picture of random pixels."""
    return Image.fromarray(draw.integers(0, 256, (size, size, 3), dtype=np.uint8))


if __name__ == "__main__":
    sys.exit(main())
