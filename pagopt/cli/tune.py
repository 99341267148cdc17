"""``pagopt tune STUDY``: how strongly, how long and with which scale, by Optuna."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser
from rich.table import Table
from rich.text import Text

from pagopt.cli.columns import compared, estimates
from pagopt.cli.parsing import add_offload, new_parser
from pagopt.cli.printing import new_console
from pagopt.cli.search import parse
from pagopt.cli.trainer import add_trainer, trainer_options
from pagopt.recipe import Recipe
from pagopt.report.reading import counted, shown_test
from pagopt.report.story import ALPHA, unseen
from pagopt.results import Estimate, PairedTest
from pagopt.study import Study
from pagopt.tuning import TrialRow, Tuned, Tuning, available_tunings, find_tuning
from pagopt.tuning.words import NOTHING_BETTER

__all__ = ["Request", "main", "parser", "read", "requested"]

DESCRIPTION = """Tune how a recipe perturbs: strength, scale, CFG, interval, number of heads, target, steps.

STUDY is the name of a shipped tuning ({tunings}), of a study of `pagopt search` together with --recipe, or the path
of a YAML file with any of the options below. The folder (runs/tune-STUDY, or --out) gets recipe.json, trials.csv,
sheet.png, report.html, results.json, the exact configuration, the Optuna study and the store of all images. The same
command again goes on where it stopped; more --trials go on from a finished one.

examples:
  pagopt tune strength
  pagopt tune flat --recipe runs/flat/recipe.json --store runs/flat/store
  pagopt tune my_tuning.yaml --trials 100 --sampler gp
  pagopt tune my_tuning.yaml --storage postgresql://me@host/base      several workers may run this at once
"""


def parser() -> ArgumentParser:
    """All options, typed; the study's come from :class:`pagopt.study.Study`, those of the tuning from its class."""
    command = new_parser("pagopt tune", "STUDY [options]", DESCRIPTION.format(tunings=", ".join(available_tunings())))
    add = command.add_argument
    add("--config", action="config", help="Further YAML files; later ones win.")
    add("--out", type=Path | None, help="Folder of the run. Default: runs/tune-STUDY.")
    add("--store", type=Path | None, help="Folder of images and scores, shared with other runs. Default: OUT/store.")
    add(
        "--storage",
        type=str | None,
        help="Optuna's: a URL, or the file of a journal or of SQLite. Default: OUT/tuning.db.",
    )
    add("--study_name", type=str | None, help="Of the Optuna study in the storage. Default: STUDY.")
    add(
        "--artifacts",
        type=Path | None,
        help="Folder of trials' pictures, for optuna-dashboard. Default: OUT/artifacts.",
    )
    add("--batch_size", type=int, default=16, help="Images in one batch, on each process.")
    add_offload(command)
    command.add_class_arguments(Tuning, None, skip={"study"})
    command.add_class_arguments(Study, None)
    add_trainer(command)
    return command


@dataclass(frozen=True)
class Request:
    """What the words of a command ask for.

    Attributes:
        name: What the tuning is called.
        tuning: The tuning, with the options given beside it.
        out: The folder of its run.
        options: The other arguments of :func:`pagopt.tuning.tune`.
    """

    name: str
    tuning: Tuning
    out: Path
    options: dict[str, Any]


def read(words: list[str], command: ArgumentParser) -> Request:
    """The tuning that ``words`` name."""
    return requested(*parse(words, command, find_tuning))


def requested(name: str, options: Any, made: Any) -> Request:
    """What :func:`pagopt.cli.search.parse` found, as a request."""
    study = Study(**{key: getattr(made, key) for key in Study.__dataclass_fields__})
    fields = {key: getattr(made, key) for key in Tuning.__dataclass_fields__ if key != "study"}
    names = ("batch_size", "store", "storage", "study_name", "artifacts", "offload")
    further = {key: getattr(options, key) for key in names}
    out = options.out or Path("runs") / f"tune-{name}"
    return Request(name, Tuning(study, **fields), out, {**further, "trainer": trainer_options(options)})


def main(words: list[str]) -> None:
    """Tune what ``words`` name, and print a table."""
    asked = read(words, parser())
    file = asked.out / "results.json"
    before = file.stat().st_mtime_ns if file.exists() else None
    from pagopt.tuning import tune

    tuned = tune(asked.tuning, asked.name, asked.out, **asked.options)
    finished = before == file.stat().st_mtime_ns
    drawn = f"{counted(tuned.images_generated, 'new image')} in {tuned.seconds:.0f} s"
    if os.environ.get("LOCAL_RANK", "0") == "0":
        show(tuned, asked.out, f"nothing: this run was finished before (it drew {drawn})" if finished else drawn)


def show(tuned: Tuned, out: Path, drawn: str) -> None:
    """Print the trials in short, the comparison, where to look, and what was drawn."""
    console = new_console(piped=140)
    states = Counter(row.state for row in tuned.trials)
    counts = ", ".join(f"{number} {state}" for state, number in states.items())
    console.print(Text(f"{tuned.tuning}: {counted(len(tuned.trials), 'trial')} ({counts})", "bold"))
    trials = Table(box=None, pad_edge=False)
    for column in ("trial", "", *(goal.name for goal in tuned.goals), "parameters"):
        trials.add_column(column, justify="left" if column in {"", "parameters"} else "right", overflow="fold")
    shown = [tuned.trial(number) for number in tuned.best]
    first = [row for row in tuned.trials if row.label and row not in shown]
    for row in [*first, *shown]:
        values = [f"{value:.4g}" for value in row.values] or [row.state] + [""] * (len(tuned.goals) - 1)
        words = [row.label, "best" if row in shown else "", "" if row.is_feasible else "misses a constraint"]
        name = ", ".join(word for word in words if word)
        cells = (str(row.number), name, *values, _parameters(row))
        trials.add_row(*map(Text, cells), style="bold" if row in shown else None)
    console.print(trials)
    for name, why in tuned.left_out.items():
        console.print(Text(f"not tried: {name}: {why}", "dim"), soft_wrap=True)
    console.print()
    held_out = tuned.held_out_tasks != tuned.search_tasks
    new = unseen(tuned.search_tasks, tuned.held_out_tasks, "the trials")
    title = f"on {new}" if held_out else "on the trials' own tasks: optimistic"
    console.print(Text(title, "bold"))
    console.print(_comparison(tuned))
    if len(tuned.goals) == 1:
        console.print("p: paired t-test, one-sided: the tuned recipe is better than this method", style="dim")
    console.print()
    for sentence in _notices(tuned):
        console.print(Text("note: ", "bold yellow") + Text(sentence), soft_wrap=True)
    files = {"report": "report.html", "recipe": "recipe.json", "trials": "trials.csv", "sheet": "sheet.png"}
    if len(tuned.goals) > 1:
        files["front"] = "front"
    for what, text in {**{key: str(out / file) for key, file in files.items()}, "drawn": drawn}.items():
        console.print(f"{what:8}{text}", highlight=False, soft_wrap=True)


def _comparison(tuned: Tuned) -> Table:
    table = Table(box=None, pad_edge=False)
    one = tuned.methods[-1].method
    terms = [term["label"] for term in tuned.objective]
    same = [label for label in terms if all(m.method.objective == m.method.rewards[label] for m in tuned.methods)][:1]
    labels = [label for label in one.rewards if label not in same]
    columns = ["method", *(same or ["objective"]), *labels, "blocks an image"]
    single = _tests(tuned)
    for number, column in enumerate(
        [*columns, *(["tuned - this", "wins", "p"] if single else ["gain over as it was"])]
    ):
        table.add_column(column, justify="right" if number else "left", overflow="fold")
    methods, prompts = [method.method for method in tuned.methods], tuned.held_out_prompts
    names = [method.name for method in methods]
    cells = [names, estimates([Estimate.of(method.objective, prompts) for method in methods])]
    cells += [estimates([Estimate.of(method.rewards[label], prompts) for method in methods]) for label in labels]
    cells.append([str(method.cost) for method in tuned.methods])
    if single:
        cells += map(list, zip(*compared(names, single), strict=True))
    else:
        gains = [
            replace(test, against=name)
            for name in names
            for test in tuned.tests.get(name, [])
            if test.against == "as it was"
        ]
        cells.append([difference for difference, _, _ in compared(names, gains)])
    for method, row in zip(tuned.methods, zip(*cells, strict=True), strict=True):
        table.add_row(*row, style="bold" if method.trial is not None else None)
    return table


def _tests(tuned: Tuned) -> list[PairedTest]:
    """Those of the only result; not against itself, where it is the recipe as it was."""
    tests = tuned.tests["tuned"] if len(tuned.goals) == 1 else []
    shown = [test for test in tests if not (tuned.is_unchanged and test.against == "as it was")]
    return [shown_test(test, tuned.held_out_prompts) for test in shown]


def _notices(tuned: Tuned) -> list[str]:
    """What a reader should not overlook."""
    words = []
    if tuned.missed:
        words.append(f"no trial kept to all constraints; the one shown misses: {', '.join(tuned.missed)}")
    failed = [row for row in tuned.trials if row.state == "fail"]
    if failed:
        words.append(f"{counted(len(failed), 'trial')} failed, the last one: {failed[-1].cause}")
    tests = _tests(tuned)
    if tuned.is_unchanged:
        words.append(NOTHING_BETTER)
    if tests and Recipe.from_dict(tuned.methods[-1].method.recipe).is_plain:
        return [*words, "nothing that was tried does better than no guidance, and that is what the recipe is"]
    for test in tests:
        if not test.p_value <= ALPHA:
            words.append(f"on these tasks the tuned recipe is not shown to be better than {test.against}")
    return words


def _parameters(row: TrialRow) -> str:
    return ", ".join(f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.parameters.items())
