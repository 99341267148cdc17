"""``pagopt plan STUDY``: what a search or a tuning will cost, before it is paid."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentParser
from rich.table import Table

from pagopt.cli import search, tune
from pagopt.cli.printing import new_console
from pagopt.errors import StudyError, UnknownName
from pagopt.folder import Folder, configuration
from pagopt.models import Weights, has_weights
from pagopt.plan import GPUS, SHARE, Plan
from pagopt.study import Study, available_studies, find_study
from pagopt.tuning import Tuning, available_tunings

__all__ = ["main", "parser"]

SMALL = 1e12
"""Operations an image: below, a GPU waits for the program."""

DESCRIPTION = """What `pagopt search STUDY` or `pagopt tune STUDY` with the same options will cost: images, block
evaluations, time on this machine (from a few batches that are drawn now), time on other GPUs, memory, and what the
folder's store already has.

A file with a recipe or a space is a tuning, as any study is with --recipe. Where the model's weights are not here, the
plan is made from its configuration, and nothing is downloaded: it tells no time here then.

examples:
  pagopt plan vivid
  pagopt plan vivid --search racing --batch_size 32
  pagopt plan my_style.yaml --budget 2h --out runs/mine
  pagopt plan strength --trials 60
  pagopt plan flat --recipe runs/flat/recipe.json --store runs/flat/store
  pagopt plan sd3_quality --gpu h100
"""


def parser() -> ArgumentParser:
    """Those of ``pagopt tune``, which has those of ``pagopt search``, and the GPU to estimate for."""
    command = tune.parser()
    command.prog, command.usage, command.description = "pagopt plan", "pagopt plan STUDY [options]", DESCRIPTION
    command.add_argument("--gpu", type=str, default="h100", help=f"Estimate for this GPU: {', '.join(GPUS)}.")
    return command


@dataclass(frozen=True)
class Shown:
    """What is printed beside a plan.

    Attributes:
        name: Of the study.
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


def main(words: list[str]) -> None:
    """Plan the study or tuning that ``words`` name."""
    command = parser()
    name, options, made = search.parse(words, command, find)
    gpu = options.gpu
    if gpu not in GPUS:
        raise UnknownName("GPU", gpu, GPUS)
    if is_tuning(words):
        return plan_tuning(tune.requested(name, options, made), gpu)
    asked = search.requested(name, options, made)
    from pagopt.experiment import Run
    from pagopt.plan import make_plan, outline_plan

    with free_folder(asked.out) as out:
        folder = Folder(out, configuration(asked.study, asked.name, asked.trainer))
        if folder.finished(asked.study) is not None:
            say_finished(out, "search")
            return
        here = has_weights(asked.study.model)
        if here:
            run = Run(
                asked.study,
                asked.name,
                folder,
                asked.batch_size,
                asked.trainer,
                quiet=True,
                store=asked.store,
                offload=asked.offload,
            )
            held = run.weights
            try:
                plan = make_plan(run)
            finally:
                run.close()
        else:
            held, processes = outlined(asked.study, asked.trainer)
            plan = outline_plan(asked.study, held, processes)
    store = str(asked.store or f"of {asked.out}")
    show(plan, Shown(asked.name, store, asked.batch_size, gpu, asked.study.model, here, held))


def plan_tuning(asked: tune.Request, gpu: str) -> None:
    """Plan a tuning."""
    tuning, options = asked.tuning, asked.options
    from pagopt.tuning.plan import finished_trials, make_tuning_plan, outline_tuning_plan
    from pagopt.tuning.run import TuningRun
    from pagopt.tuning.start import opened

    with free_folder(asked.out) as out:
        here = has_weights(tuning.study.model)
        if here:
            start, space, folder, finished = opened(tuning, asked.name, out, options["trainer"])
            if finished is not None and len(finished.trials) >= tuning.trials:
                say_finished(out, "tune")
                return
            done = finished_trials(options["storage"], out, options["study_name"] or asked.name)
            size, trainer, store = options["batch_size"], options["trainer"], options["store"]
            offload = options["offload"]
            run = TuningRun(tuning, asked.name, folder, start, space, size, trainer, store, quiet=True, offload=offload)
            held = run.run.weights
            try:
                plan = make_tuning_plan(run, min(done, tuning.trials))
            finally:
                run.close()
        else:
            held, processes = outlined(tuning.study, options["trainer"])
            plan = outline_tuning_plan(tuning, held, processes)
    store_name = str(options["store"] or f"of {asked.out}")
    show(plan, Shown(asked.name, store_name, options["batch_size"], gpu, tuning.study.model, here, held))


def outlined(study: Study, options: dict[str, Any]) -> tuple[Weights, int]:
    """How the model's weights are held, and on how many processes it runs."""
    from pagopt.evaluate import at_load, make_trainer

    dtype, rest = at_load(study.dtype, options)
    return Weights.asked(dtype, study.quantize), make_trainer(**rest).world_size


def find(name: str) -> Path:
    """The file of a study or of a tuning.

    Raises:
        StudyError: If there is no such file.
        UnknownName: If it is neither.
    """
    known = {**available_studies(), **available_tunings()}
    if Path(name).suffix in {".yaml", ".yml"} or Path(name).parent != Path("."):
        return find_study(name)
    if name not in known:
        raise UnknownName("study or tuning", name, known, "A path to a YAML file works, too.")
    return known[name]


def is_tuning(words: list[str]) -> bool:
    """Whether the file, or the options beside it, have what only a tuning has."""
    fields = set(Tuning.__dataclass_fields__) - {"study"}
    given = {word.removeprefix("--").partition("=")[0].partition(".")[0] for word in words[1:] if word[:2] == "--"}
    files = [find(words[0])]
    files += [Path(after) for word, after in pairwise(words) if word == "--config"]
    for file in files:
        try:
            data = yaml.safe_load(file.read_text(encoding="utf-8"))
        except (OSError, ValueError, yaml.YAMLError) as error:
            raise StudyError(f"cannot read {file}: {error}") from error
        given |= set(data) if isinstance(data, dict) else set()
    return bool(given & fields)


@contextmanager
def free_folder(out: Path) -> Iterator[Path]:
    """The folder of a run, if there is one, else a folder that goes again."""
    with tempfile.TemporaryDirectory() as empty:
        yield out if (out / "config.yaml").exists() else Path(empty) / "run"


def say_finished(out: Path, command: str) -> None:
    """There is nothing to plan."""
    words = f"{out} holds the finished run of this study: `pagopt {command}` with these words returns it."
    new_console().print(words, soft_wrap=True)


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
        found["work"] = f"{plan.operations / 1e12:.3g} TFLOP for an unguided image, decoding included"
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
