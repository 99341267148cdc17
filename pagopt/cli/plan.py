"""``pagopt plan STUDY``: what a search or a tuning will cost, before it is paid."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import yaml
from jsonargparse import ArgumentParser

from pagopt.cli import search, tune
from pagopt.cli.costs import Shown, add_gpu, check_gpu, free_folder, outlined, show
from pagopt.cli.printing import new_console
from pagopt.errors import StudyError, UnknownName
from pagopt.folder import Folder, configuration
from pagopt.models import has_weights
from pagopt.study import available_studies, find_study
from pagopt.tuning import Tuning, available_tunings

__all__ = ["main", "parser"]

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
  pagopt atlas sd3-medium --prompt "a lighthouse at dusk" --plan        what an atlas will cost
"""


def parser() -> ArgumentParser:
    """Those of ``pagopt tune``, which has those of ``pagopt search``, and the GPU to estimate for."""
    command = tune.parser()
    command.prog, command.usage, command.description = "pagopt plan", "pagopt plan STUDY [options]", DESCRIPTION
    add_gpu(command)
    return command


def main(words: list[str]) -> None:
    """Plan the study or tuning that ``words`` name."""
    command = parser()
    name, options, made = search.parse(words, command, find)
    gpu = options.gpu
    check_gpu(gpu)
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
            held, processes = outlined(asked.study.dtype, asked.study.quantize, asked.trainer)
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
            held, processes = outlined(tuning.study.dtype, tuning.study.quantize, options["trainer"])
            plan = outline_tuning_plan(tuning, held, processes)
    store_name = str(options["store"] or f"of {asked.out}")
    show(plan, Shown(asked.name, store_name, options["batch_size"], gpu, tuning.study.model, here, held))


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


def say_finished(out: Path, command: str) -> None:
    """There is nothing to plan."""
    words = f"{out} holds the finished run of this study: `pagopt {command}` with these words returns it."
    new_console().print(words, soft_wrap=True)
