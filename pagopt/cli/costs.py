"""What a plan says, printed; and what plans of all kinds need before they are made."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser
from rich.table import Table

from pagopt.cli.printing import new_console
from pagopt.errors import UnknownName
from pagopt.models import Weights
from pagopt.plan import GPUS, SHARE, Plan

__all__ = ["Shown", "add_gpu", "check_gpu", "free_folder", "outlined", "show"]

SMALL = 1e12
"""Operations an image: below, a GPU waits for the program."""


@dataclass(frozen=True)
class Shown:
    """What is printed beside a plan.

    Attributes:
        name: Of the study, or the atlas.
        store: Where its images would lie.
        batch_size: Images in one batch.
        gpu: The GPU to estimate for.
        model: Whose weights they are.
        here: Whether they are on this machine.
        held: In what form they are held.
    """

    name: str
    store: str
    batch_size: int
    gpu: str
    model: str
    here: bool
    held: Weights


def add_gpu(command: ArgumentParser) -> None:
    """``--gpu``, the same for all plans."""
    command.add_argument("--gpu", type=str, default="h100", help=f"Estimate for this GPU: {', '.join(GPUS)}.")


def check_gpu(name: str) -> None:
    """Refuse a GPU whose rate is not known.

    Raises:
        UnknownName: If it is not.
    """
    if name not in GPUS:
        raise UnknownName("GPU", name, GPUS)


def outlined(dtype: str | None, quantize: str | None, options: dict[str, Any]) -> tuple[Weights, int]:
    """How a model's weights would be held, and on how many processes it would run.

    Args:
        dtype: As asked for.
        quantize: As asked for.
        options: Of Lightning's ``Trainer``.
    """
    from pagopt.evaluate import at_load, make_trainer

    dtype, rest = at_load(dtype, options)
    return Weights.asked(dtype, quantize), make_trainer(**rest).world_size


@contextmanager
def free_folder(out: Path) -> Iterator[Path]:
    """The folder of a run, if there is one, else a folder that goes again."""
    with tempfile.TemporaryDirectory() as empty:
        yield out if (out / "config.yaml").exists() else Path(empty) / "run"


def show(plan: Plan, shown: Shown) -> None:
    """Print the stages and the sums."""
    console = new_console(piped=140)
    table = Table(title=f"{shown.name}: what it will cost", title_justify="left", box=None, pad_edge=False)
    columns = {"images": True, "in the store": shown.here, "block evaluations an image": True}
    columns |= dict.fromkeys(("seconds an image", "time left"), shown.here)
    table.add_column("stage")
    for column in (column for column, wanted in columns.items() if wanted):
        table.add_column(column, justify="right")

    def row(*cells: str, **style: Any) -> None:
        name, *rest = cells
        table.add_row(name, *(cell for cell, wanted in zip(rest, columns.values(), strict=True) if wanted), **style)

    at_most = "" if plan.exact else "at most "
    for stage in plan.stages:
        seconds, left = stage.seconds or 0.0, plan.seconds_of(stage) or 0.0
        cells = (f"{stage.images:,}", f"{stage.stored:,}", f"{stage.evaluations:,.0f}", f"{seconds:.3g}")
        row(stage.name, *cells, duration(left))
    row("all", f"{plan.images:,}", f"{plan.stored:,}", "", "", duration(plan.seconds or 0.0), style="bold")
    console.print(table)
    console.print()
    for what, text in lines(plan, shown, at_most).items():
        console.print(f"{what:8}{text}", highlight=False, soft_wrap=True)


def lines(plan: Plan, shown: Shown, at_most: str) -> dict[str, str]:
    """The sums, in words."""
    many = f" on {plan.processes} processes" if plan.processes > 1 else ""
    found = {"images": f"{at_most}{plan.images:,}"}
    if shown.here:
        found["images"] += f", of which the store {shown.store} has {plan.stored:,}"
    found["blocks"] = f"{at_most}{plan.evaluations:,.0f} evaluations left, {plan.blocks} for an unguided image"
    if plan.operations is None:
        found["work"] = f"not known without the weights of {shown.model}"
    else:
        found["work"] = f"{number(plan.operations / 1e12)} TFLOP for an unguided image, decoding included"
    if plan.seconds is not None:
        found["time"] = f"{at_most}{duration(plan.seconds)} here{many}, from batches of {shown.batch_size}"
    else:
        found["time"] = f"not told: the weights of {shown.model} are not here, and nothing was downloaded"
    on_gpu = plan.seconds_on(shown.gpu)
    if on_gpu is not None and plan.operations is not None:
        small = " (a model as small as this one is not)" if plan.operations < SMALL else ""
        busy = f"on one, were it busy at {SHARE:.0%} of its bf16 rate{small}"
        found[shown.gpu] = f"{at_most}{duration(on_gpu)} {busy}"
        if not shown.here:
            found[shown.gpu] += "; text encoders and rewards come on top"
    found["memory"] = memory(plan, shown)
    return found


def number(value: float) -> str:
    """Three digits, and none as a power of ten."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def memory(plan: Plan, shown: Shown) -> str:
    """Weights, in which form, and what the batches took where that can be told."""
    what = "" if shown.here else " of transformer and decoder"
    weights = f"{plan.weights / 2**30:.2g} GiB of weights{what} ({shown.held})"
    return weights if plan.peak is None else f"{weights}, {plan.peak / 2**30:.2g} GiB at the peak of the trial batches"


def duration(seconds: float) -> str:
    """As a person says it: 42 s, 7 min, 2 h 05 min."""
    if seconds < 100:
        return f"{seconds:.0f} s" if seconds >= 1 or not seconds else f"{seconds:.1g} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02} min"
