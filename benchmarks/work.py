"""What guidance costs: block evaluations, floating-point operations and seconds, and how busy the machine is.

Operations are counted in whole calls by PyTorch's own counter; the machine's rate is that of one large matrix product
in the same dtype, measured in the same rounds.

    python -m benchmarks.work --model emoji --batch 16 --steps 12 --rounds 3
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from benchmarks.common import Model, options_of, tasks
from benchmarks.report import Report, ratio, take_turns
from pagopt.recipe import Recipe
from pagopt.render import Task

MATMUL = "matrix product"


def _attention_flops(query: Any, key: Any, value: Any, *rest: Any, out_shape: Any = None, **more: Any) -> int:
    return int(sdpa_flop_count(query, key, value))  # type: ignore[no-untyped-call]


# PyTorch's counter knows the fused attention of GPUs, not that of CPUs.
CPU_ATTENTION = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops}


def operations(work: Callable[[], object]) -> int:
    """Floating-point operations, a multiplication and an addition being two."""
    with FlopCounterMode(display=False, custom_mapping=CPU_ATTENTION) as counter:
        work()
    return int(counter.get_total_flops())


def matrix_product(device: str, dtype: torch.dtype, size: int) -> Callable[[], object]:
    """A product of two square matrices, repeated."""
    left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))

    def work() -> None:
        for _ in range(10):
            left @ right

    return work


def add(parser: Any) -> None:
    """Options of this benchmark alone."""
    parser.add_argument("--matrix", type=int, help="rows of the matrices; 8192 on a GPU, 1024 on a CPU")


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print."""
    options = options_of(__doc__, argv, add)
    model, batch = Model(options), options.batch
    recipes, own = model.random_recipes(batch), tasks(batch)
    first = Recipe([model.heads[0]], scale=2.0)
    batches: dict[str, tuple[list[Recipe] | None, list[Task]]] = {
        "unguided": (None, own),
        "one random head a row": (recipes, own),
        "one random head a row, one prompt and seed": (recipes, tasks(1) * batch),
        "a head of the first block in every row": ([first] * batch, own),
        "unguided, twice the rows": (None, tasks(2 * batch)),
    }
    pipe = model.compile(options) if options.compile else model.pipe
    draws: dict[str, Callable[[], int]] = {
        name: partial(model.draw, given, rows, pipe) for name, (given, rows) in batches.items()
    }
    evaluations = {name: draw() for name, draw in draws.items()}  # a warm-up too
    counted = {name: operations(partial(model.draw, *given)) for name, given in batches.items()}
    size = options.matrix or (8192 if options.device.startswith("cuda") else 1024)
    product = matrix_product(options.device, model.dtype, size)
    product()
    times = take_turns({**draws, MATMUL: product}, options)
    rate = [10 * 2 * size**3 / time for time in times[MATMUL]]
    rows = [
        {
            "batch": name,
            "block evaluations an image": evaluations[name] / batch,
            "x unguided": evaluations[name] / evaluations["unguided"],
            "GFLOP an image": counted[name] / batch / 1e9,
            "x unguided (GFLOP)": counted[name] / counted["unguided"],
            "seconds an image": statistics.median(times[name]) / batch,
            "x unguided (seconds)": ratio(times[name], times["unguided"]),
            "share of the matrix rate": ratio([counted[name] / time for time in times[name]], rate),
        }
        for name in draws
    ]
    report = Report(f"Work, {model.name}", options)
    report.table(f"Batches of {batch} images, {len(rate)} rounds", rows)
    report.notes.append(
        f"The rate of a product of {size} x {size} matrices in {options.dtype} was "
        f"{statistics.median(rate) / 1e12:.3g} TFLOP/s."
    )
    report.notes.append(f"'twice the rows' is given for each of {batch} images: what two whole predictions would cost.")
    report.finish()
    return 0


if __name__ == "__main__":
    sys.exit(main())
