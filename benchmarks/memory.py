"""How much memory guidance takes, against a plain batch of the same number of rows.

Every guided image has a perturbed copy from the first block on, so that a guided batch of B images has the 2 B rows of
the plain batch that it is compared with. On a GPU the peak is what PyTorch's allocator had in use; on a CPU (Linux) it
is the peak of the resident set, in a fresh process for every variant.

    python -m benchmarks.memory --model emoji --batch 8 --steps 2
    python -m benchmarks.memory --model sd3-medium --counted --dtype bfloat16 --batch 8 --steps 2

With ``--counted`` nothing is computed: the tensors of a pretended GPU have shapes only, and their bytes are counted.
That leaves out what kernels and the allocator take for themselves, and supposes a fused attention.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.common import Model, options_of, tasks
from benchmarks.report import Report
from pagopt.recipe import Recipe

TARGETS: dict[str, dict[str, Any]] = {
    "identity": {},
    "uniform": {"target": "uniform"},
    "blur": {"target": "blur"},
    "row_maximum": {"target": "row_maximum"},
    "identity, fisher_rao": {"path": "fisher_rao", "strength": 0.5},
}
PLAIN = "unguided, twice the images"


def add(parser: Any) -> None:
    """Options of this benchmark alone."""
    parser.add_argument("--targets", nargs="+", choices=TARGETS, default=list(TARGETS))
    parser.add_argument("--counted", action="store_true", help="count the bytes of tensors, and compute nothing")
    parser.add_argument("--one", choices=[PLAIN, *TARGETS], help="measure this one alone and print it as JSON")


def draw(model: Model, pipe: Any, variant: str, batch: int) -> None:
    """One batch of 2 B rows."""
    if variant == PLAIN:
        model.draw(None, tasks(2 * batch), pipe)
    else:
        recipe = Recipe([model.heads[0]], scale=2.0, **TARGETS[variant])
        model.draw([recipe] * batch, tasks(batch), pipe)


def resident(field: str) -> int:
    """Bytes of this process's resident set: ``VmRSS`` now, or ``VmHWM`` at its peak (Linux)."""
    found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    if found is None:
        raise SystemExit(f"this system does not say {field}")
    return 1024 * int(found[1])


def peak(model: Model, pipe: Any, variant: str, options: Any) -> tuple[int, int]:
    """The peak in bytes, and how much of it was there before."""
    gpu = options.device.startswith("cuda")
    model.encoded(tasks(1)[0].prompt)  # kept, and no part of the batch
    # Libraries' workspaces and the compiler's memory are not the batch's.
    if (gpu and not options.counted) or options.compile:
        draw(model, pipe, variant, options.batch)
    if gpu:
        torch.cuda.synchronize(options.device)
        torch.cuda.reset_peak_memory_stats(options.device)
        before = torch.cuda.memory_allocated(options.device)
        draw(model, pipe, variant, options.batch)
        return torch.cuda.max_memory_allocated(options.device), before
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    before = resident("VmRSS")
    draw(model, pipe, variant, options.batch)
    return resident("VmHWM"), before


def in_fresh_process(variant: str, argv: Sequence[str]) -> tuple[int, int]:
    """The same in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.memory", *argv, "--one", variant]
    found = subprocess.run(command, cwd=Path(__file__).parents[1], stdout=subprocess.PIPE, text=True, check=True)
    total, before = json.loads(found.stdout.splitlines()[-1])
    return int(total), int(before)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print."""
    given = list(sys.argv[1:] if argv is None else argv)
    options = options_of(__doc__, given, add)
    if not options.counted:
        return measure(options, given)
    from tools.pretended_gpu import pretended_gpu  # slow to import, and the other way starts many processes

    options.device, options.rounds = "cuda", 1
    with pretended_gpu(shapes_only=True):
        return measure(options, given)


def measure(options: Any, given: Sequence[str]) -> int:
    """Draw the batches, and print the table."""
    gpu = options.device.startswith("cuda")
    peaks: dict[str, list[tuple[int, int]]] = {name: [] for name in (PLAIN, *options.targets)}
    if gpu or options.one:
        model = Model(options)
        pipe = model.compile(options) if options.compile else model.pipe
    if options.one:
        print(json.dumps(peak(model, pipe, options.one, options)))
        return 0
    for _ in range(options.rounds):
        for name, found in peaks.items():
            found.append(peak(model, pipe, name, options) if gpu else in_fresh_process(name, given))
    middle = {name: sorted(found)[len(found) // 2] for name, found in peaks.items()}
    own = {name: total - before for name, (total, before) in middle.items()}
    rows = [
        {
            "batch": name,
            "peak MB": total / 1e6,
            "x plain": total / middle[PLAIN][0],
            "MB above the loaded model": own[name] / 1e6,
            "x plain (above the model)": own[name] / own[PLAIN],
        }
        for name, (total, _) in middle.items()
    ]
    report = Report(f"Memory, {options.model}", options)
    report.table(f"{options.batch} guided images, and {2 * options.batch} plain ones", rows)
    report.notes[0] = "Medians over rounds; one head of the first block is perturbed in every row, a seed for each."
    report.finish()
    return 0


if __name__ == "__main__":
    sys.exit(main())
