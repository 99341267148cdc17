"""``pagopt plan STUDY``: what a search will cost, before it is paid."""

from __future__ import annotations

import tempfile
from pathlib import Path

from jsonargparse import ArgumentParser
from rich.console import Console
from rich.table import Table

from pagopt.cli.search import Request, parse, requested
from pagopt.cli.search import parser as search_parser
from pagopt.errors import UnknownName
from pagopt.experiment import Run, configuration
from pagopt.folder import Folder
from pagopt.plan import GPUS, SHARE, Plan, make_plan
from pagopt.study import find_study

__all__ = ["main", "parser"]

SMALL = 1e12
"""Operations an image: below, a GPU waits for the program."""

DESCRIPTION = """What `pagopt search STUDY` with the same options will cost: images, block evaluations, time on this
machine (from a few batches that are drawn now), time on other GPUs, memory, and what the folder's store already has.

examples:
  pagopt plan vivid
  pagopt plan vivid --search racing --batch_size 32
  pagopt plan my_style.yaml --budget 2h --out runs/mine
"""


def parser() -> ArgumentParser:
    """Those of ``pagopt search``, and the GPU to estimate for."""
    command = search_parser()
    command.prog, command.description = "pagopt plan", DESCRIPTION
    command.add_argument("--gpu", type=str, default="h100", help=f"Estimate for this GPU: {', '.join(GPUS)}.")
    return command


def main(words: list[str]) -> None:
    """Plan the study that ``words`` name."""
    command = parser()
    name, options, made = parse(words, command, find_study)
    asked, gpu = requested(name, options, made), options.gpu
    if gpu not in GPUS:
        raise UnknownName("GPU", gpu, GPUS)
    with tempfile.TemporaryDirectory() as empty:
        out = asked.out if (asked.out / "config.yaml").exists() else Path(empty) / "run"
        folder = Folder(out, configuration(asked.study, asked.name, asked.trainer))
        if folder.results() is not None:
            Console().print(f"{out} holds the finished run of this study: `pagopt search` with these words returns it.")
            return
        run = Run(asked.study, asked.name, folder, asked.batch_size, asked.trainer, quiet=True, store=asked.store)
        try:
            show(make_plan(run), asked, gpu)
        finally:
            run.close()


def show(plan: Plan, asked: Request, gpu: str) -> None:
    """Print the stages and the sums."""
    console = Console()
    table = Table(title=f"{asked.name}: what it will cost", title_justify="left", box=None, pad_edge=False)
    table.add_column("stage")
    for column in ("images", "in the store", "block evaluations an image", "seconds an image", "time left"):
        table.add_column(column, justify="right")
    at_most = "" if plan.exact else "at most "
    for stage in plan.stages:
        left = (stage.images - stage.stored) * stage.seconds / plan.processes
        cells = (f"{stage.images:,}", f"{stage.stored:,}", f"{stage.evaluations:,.0f}", f"{stage.seconds:.3g}")
        table.add_row(stage.name, *cells, duration(left))
    total = (f"{plan.images:,}", f"{plan.stored:,}", "", "", duration(plan.seconds))
    table.add_row("all", *total, style="bold")
    console.print(table)
    small = " (a model as small as this one is not)" if plan.operations < SMALL else ""
    many = f" on {plan.processes} processes" if plan.processes > 1 else ""
    where = asked.store or f"of {asked.out}"
    console.print()
    for what, text in (
        (
            "images",
            f"{at_most}{plan.images:,}, of which the store {where} has {plan.stored:,}",
        ),
        ("blocks", f"{at_most}{plan.evaluations:,.0f} evaluations left, {plan.blocks} for an unguided image"),
        ("work", f"{plan.operations / 1e12:.3g} TFLOP for an unguided image, decoding included"),
        ("time", f"{at_most}{duration(plan.seconds)} here{many}, from batches of {asked.batch_size}"),
        (
            gpu,
            f"{at_most}{duration(plan.seconds_on(gpu))} on one, were it busy at {SHARE:.0%} of its bf16 rate{small}",
        ),
        ("memory", memory(plan)),
    ):
        console.print(f"{what:8}{text}", highlight=False, soft_wrap=True)


def memory(plan: Plan) -> str:
    """Weights, and what the batches took where that can be told."""
    weights = f"{plan.weights / 2**30:.2g} GiB of weights"
    return weights if plan.peak is None else f"{weights}, {plan.peak / 2**30:.2g} GiB at the peak of the trial batches"


def duration(seconds: float) -> str:
    """As a person says it: 42 s, 7 min, 2 h 05 min."""
    if seconds < 100:
        return f"{seconds:.0f} s" if seconds >= 1 or not seconds else f"{seconds:.1g} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02} min"
