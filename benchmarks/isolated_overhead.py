"""What a worker process costs: the same official model called through it, and in a process of its environment directly.

First ``pagopt rewards install image-reward``; then ``python -m benchmarks.isolated_overhead --reward image-reward``.
Checkpoints are those of ``benchmarks.reward_parity``. The two take turns. On a machine with other work the wall clock
says more of that work than of ours, so processor seconds (of the worker and of this process together) are counted, too.
At the end the worker is killed in the middle of a batch.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.official_checkpoints import save_hps, save_imagereward
from pagopt.isolated import Isolated
from pagopt.reward import load_reward

__all__ = ["main"]

DIRECT = """
import json, sys, time
import numpy as np
from PIL import Image
task = json.loads(sys.argv[1])
began = time.perf_counter()
space = {}
for file in task["files"]:
    space = {"__name__": "scorer"}
    exec(compile(open(file, encoding="utf-8").read(), file, "exec"), space)
scorer = space[task["name"]](**task["args"])
said = [time.perf_counter() - began]
noise = np.random.default_rng(0)
shape = (task["size"], task["size"], 3)
images = [Image.fromarray(noise.integers(0, 256, shape, dtype=np.uint8)) for _ in task["prompts"]]
print("ready", json.dumps(said), flush=True)
for line in sys.stdin:
    began, busy = time.perf_counter(), time.process_time()
    scores = scorer(images, task["prompts"]).tolist()
    print("done", json.dumps([time.perf_counter() - began, time.process_time() - busy, scores]), flush=True)
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--reward", choices=["image-reward", "hpsv2"], default="image-reward")
    parser.add_argument("--weights", type=Path, default=Path("build/parity"))
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--size", type=int, default=512, help="pixels, height and width")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args(argv)
    if options.reward == "hpsv2":
        weights, make = options.weights / "HPS_v2.1_compressed.pt", save_hps
    else:
        weights, make = options.weights / "imagereward" / "ImageReward.pt", save_imagereward
    if not weights.is_file():
        make(weights)
    noise, size = np.random.default_rng(0), options.size
    shape = (size, size, 3)
    images = [Image.fromarray(noise.integers(0, 256, shape, dtype=np.uint8)) for _ in range(options.images)]
    prompts = [f"a photo of thing {index % 4}" for index in range(options.images)]
    reward = load_reward(options.reward, weights=str(weights), device="cpu")
    assert isinstance(reward, Isolated)
    record, python = reward.record, reward.environment.python
    task = {"files": [str(file) for file in record.files()], "name": record.scorer.rpartition(":")[2]}
    task |= {"args": reward.args, "prompts": prompts, "size": options.size}
    command = [str(python), "-I", "-W", "ignore", "-c", DIRECT, json.dumps(task)]
    direct = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        loaded = _answer(direct, "ready")[0]
        reward(images[:1], prompts[:1])  # starts it
        print(f"loading: direct {loaded:.1f} s, worker {reward.worker.load_seconds:.1f} s with the start of its Python")
        times: dict[str, list[float]] = {"direct": [], "worker": [], "inside": []}
        busy: dict[str, list[float]] = {"direct": [], "worker": []}
        for _ in range(options.rounds):
            assert direct.stdin is not None
            direct.stdin.write("again\n")
            direct.stdin.flush()
            taken, used, scores = _answer(direct, "done")
            times["direct"].append(taken)
            busy["direct"].append(used)
            began, before = time.perf_counter(), _busy(reward)
            through = reward(images, prompts)
            times["worker"].append(time.perf_counter() - began)
            busy["worker"].append(_busy(reward) - before)
            times["inside"].append(reward.worker.score_seconds)
            difference = float(np.abs(np.array(scores) - through.numpy()).max())
    finally:
        direct.kill()
        direct.wait()
    for name, values in times.items():
        shown = " ".join(f"{value:.2f}" for value in values)
        print(f"{name:8}{options.images} images: median {statistics.median(values):.2f} s ({shown})")
    for name, values in busy.items():
        shown = " ".join(f"{value:.2f}" for value in values)
        print(f"{name:8}processor: median {statistics.median(values):.2f} s ({shown})")
    ratio = statistics.median(times["direct"]) / statistics.median(times["worker"])
    lean = statistics.median(busy["direct"]) / statistics.median(busy["worker"])
    way = statistics.median(worker - inside for worker, inside in zip(times["worker"], times["inside"], strict=True))
    print(f"throughput through the worker: {ratio:.1%} of direct by the wall clock, {lean:.1%} by processor seconds")
    print(f"way there and back: {way * 1000:.0f} ms a batch")
    print(f"largest difference of the scores {difference:.1e}")
    assert reward.worker._life is not None
    after = min(times["worker"]) / 4  # surely in the middle, also where the machine has become faster
    killer = threading.Timer(after, os.kill, (reward.worker._life.process.pid, signal.SIGKILL))
    killer.start()
    began = time.perf_counter()
    again = reward(images, prompts)
    killer.cancel()
    print(
        f"killed after {after:.1f} s of a batch: scored after {time.perf_counter() - began:.1f} s by start "
        f"{reward.worker.starts}, difference {float((again - through).abs().max()):.1e}"
    )
    return 0


def _busy(reward: Isolated) -> float:
    """Processor seconds of the worker and of this process so far (Linux)."""
    assert reward.worker._life is not None
    stat = Path(f"/proc/{reward.worker._life.process.pid}/stat").read_text(encoding="utf-8")
    ticks = sum(map(int, stat.rpartition(")")[2].split()[11:13]))
    return ticks / os.sysconf("SC_CLK_TCK") + time.process_time()


def _answer(process: subprocess.Popen[str], word: str) -> list[Any]:
    """The next line that begins with ``word``; packages print others."""
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(word + " "):
            return list(json.loads(line[len(word) + 1 :]))
    raise SystemExit("the direct process ended; what it said is above")


if __name__ == "__main__":
    raise SystemExit(main())
