"""``pagopt search STUDY``: run a study and say what it found."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser
from rich.table import Table
from rich.text import Text

from pagopt.cli.columns import compared, estimates
from pagopt.cli.files import as_config, explained
from pagopt.cli.parsing import add_offload, new_parser
from pagopt.cli.printing import new_console
from pagopt.cli.trainer import add_trainer, trainer_options
from pagopt.errors import PagoptError, UnknownName
from pagopt.report.guards import notice, read_guards
from pagopt.report.reading import counted, objective_name, read_rows, shown_test, value_name
from pagopt.report.story import tell, unseen
from pagopt.results import Estimate, Results
from pagopt.study import Study, available_studies, find_study
from pagopt.summary import held_out_means, missed, passing, thresholds

__all__ = ["Request", "main", "parse", "parser", "requested"]

DESCRIPTION = """Find the attention heads that serve an objective (HeadHunter, arXiv 2506.10978).

STUDY is the name of a shipped study ({studies}) or the path of a YAML file with any of the options below. The folder
(runs/STUDY, or --out) gets recipe.json, report.html, sheet.png, scores.csv, the exact configuration and the store of
all images. The same command again goes on where it stopped.

examples:
  pagopt search flat
  pagopt search flat --out runs/mine --rounds 2 --scale 1.5
  pagopt search my_style.yaml --trainer.devices 2
  pagopt search flat --store /data/store       one store for several searches, which may run at the same time
"""


def parser() -> ArgumentParser:
    """All options, typed; the study's come from :class:`pagopt.study.Study`, the trainer's from Lightning."""
    description = DESCRIPTION.format(studies=", ".join(available_studies()))
    command = new_parser("pagopt search", "STUDY [options]", description)
    command.add_argument("--config", action="config", help="Further YAML files; later ones win.")
    command.add_argument("--out", type=Path | None, help="Folder of the run. Default: runs/STUDY.")
    command.add_argument(
        "--store", type=Path | None, help="Folder of images and scores, shared with other runs. Default: OUT/store."
    )
    command.add_argument("--batch_size", type=int, default=16, help="Images in one batch, on each process.")
    add_offload(command)
    command.add_class_arguments(Study, None)
    add_trainer(command)
    return command


@dataclass(frozen=True)
class Request:
    """What the words of a command ask for.

    Attributes:
        name: What the study is called.
        study: The study, with the options given beside it.
        out: The folder of its run.
        batch_size: Images in one batch.
        trainer: Options of Lightning's ``Trainer``.
        store: Folder of images and scores; ``None`` for the run's own.
        offload: What to keep off the GPU.
    """

    name: str
    study: Study
    out: Path
    batch_size: int
    trainer: dict[str, Any]
    store: Path | None = None
    offload: str | None = None


def parse(words: list[str], command: ArgumentParser, find: Callable[[str], Path]) -> tuple[str, Any, Any]:
    """A command's first word as a file, and what stands in it with the options beside it.

    Args:
        words: A name or path, then options.
        command: Whose options they are.
        find: The file of a name.

    Returns:
        The file's name without its ending, the options, and the same with the study and so on made of them.
    """
    name = next((word for word in words[:1] if not word.startswith("-")), None)
    if name is None:
        # Also serves --help, which needs no study.
        command.parse_args(words or ["--help"])
        raise SystemExit(2)
    try:
        file = find(name)
    except UnknownName as error:
        raise explained(error, name, command.prog.rpartition(" ")[2]) from error
    options = command.parse_args(["--config", as_config(file, command), *words[1:]])
    try:
        return file.stem, options, command.instantiate(options)
    except ValueError as error:  # the parser's, who tried several types; the reason is the one that ours gave
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, PagoptError):
            cause = cause.__cause__ or cause.__context__
        raise cause or error from None


def requested(name: str, options: Any, made: Any) -> Request:
    """What :func:`parse` found, as a request."""
    study = Study(**{key: getattr(made, key) for key in Study.__dataclass_fields__})
    out = options.out or Path("runs") / name
    return Request(name, study, out, options.batch_size, trainer_options(options), options.store, options.offload)


def main(words: list[str]) -> None:
    """Run the study that ``words`` name, and print a table."""
    asked = requested(*parse(words, parser(), find_study))
    before = (asked.out / "results.json").stat().st_mtime_ns if (asked.out / "results.json").exists() else None
    from pagopt.experiment import run_study

    results = run_study(asked.study, asked.name, asked.out, asked.batch_size, asked.trainer, asked.store, asked.offload)
    drawn = f"{counted(results.images_generated, 'new image')} in {results.seconds:.0f} s"
    if os.environ.get("LOCAL_RANK", "0") == "0":  # which has written the results
        finished = before == (asked.out / "results.json").stat().st_mtime_ns
        show(results, asked.out, f"nothing: this run was finished before (it drew {drawn})" if finished else drawn)


def show(results: Results, out: Path, drawn: str) -> None:
    """Print rounds and comparison, where to look, and what was drawn."""
    console = new_console(piped=140)
    rounds = Table(title=f"{results.study}: heads found", title_justify="left", box=None, pad_edge=False)
    kept = list(results.rounds[0].score_parts) if results.rounds else []
    parts = [label for label in kept if any(done.score_parts[label] != done.score for done in results.rounds)]
    for column in ("round", "heads", "score on the search tasks", *parts):
        rounds.add_column(column, overflow="fold")
    if results.limits:
        rounds.add_column("heads that met the thresholds")
    raced = any(done.right is not None for done in results.rounds)
    if raced:
        rounds.add_column("truly among the best, expected")
    scores = [estimates([done.score for done in results.rounds])]
    scores += [estimates([done.score_parts[label] for done in results.rounds]) for label in parts]
    for number, done in enumerate(results.rounds):
        cells = [column[number] for column in scores]
        if results.limits:
            met = passing(results, done)
            cells.append("not known" if met is None else f"{len(met)} of {len(done.scores)}")
        if raced:
            cells.append("" if done.right is None else f"{done.right:.1f} of {len(done.chosen)}")
        rounds.add_row(str(done.number), " ".join(done.chosen), *cells)
    console.print(rounds)
    for done in results.rounds:
        values = {estimate.mean for estimate in done.scores.values()}
        if len(done.scores) > 1 and len(values) == 1:
            why = (
                f"all {len(done.scores)} candidates of round {done.number} have one score, so the choice means nothing"
            )
            console.print(Text("note: ", "bold yellow") + Text(why), soft_wrap=True)
    console.print()
    table = Table(
        title=f"on {unseen(results.search_tasks, results.held_out_tasks, 'the search')}"
        if results.held_out_tasks != results.search_tasks
        else "on the search's own tasks (the study has no held-out prompts): optimistic",
        title_justify="left",
        box=None,
        pad_edge=False,
    )
    found, prompts = results.methods[-1], results.held_out_prompts
    terms = [term["label"] for term in results.objective]
    # A reward that is the objective (alone, or the one that an order ranks by) is shown once.
    same = [label for label in terms if all(m.objective == m.rewards.get(label) for m in results.methods)][:1]
    labels = [label for label in found.rewards if label not in same]
    table.add_column("method", overflow="fold")
    for label in (*(same or ["objective"]), *labels, "found - this", "wins", "p"):
        table.add_column(label, justify="right", overflow="fold")
    if results.held_out_limits:
        table.add_column("thresholds")
    held_out = [[method.objective for method in results.methods]]
    held_out += [[method.rewards[label] for method in results.methods] for label in labels]
    columns = [estimates([Estimate.of(values, prompts) for values in column]) for column in held_out]
    tests = [shown_test(test, prompts) for test in results.tests]
    columns += map(list, zip(*compared([method.name for method in results.methods], tests), strict=True))
    for number, method in enumerate(results.methods):
        words = missed(results.held_out_limits, held_out_means(method, prompts))
        standing = ["missed" if words else "met"] if results.held_out_limits else []
        cells = [column[number] for column in columns]
        table.add_row(method.name, *cells, *standing, style="bold" if method is found else None)
    console.print(table)
    console.print("p: paired t-test, one-sided: the found recipe is better than this method", style="dim")
    story = tell(results, read_rows(results))
    console.print(Text(story.headline, "bold" if story.verdict == "gain" else "bold yellow"), soft_wrap=True)
    if results.combine != "sum":
        name, value = (of(results.objective, results.combine) for of in (objective_name, value_name))
        console.print(Text(f"objective: {name}"), style="dim", soft_wrap=True)
        console.print(Text(f"score, differences, wins and p are those of: {value}"), style="dim", soft_wrap=True)
    console.print()
    verdict = thresholds(results)
    if verdict.sentences:
        colour = "bold" if verdict.met else "bold yellow"
        console.print(Text("thresholds: ", colour) + Text(" ".join(verdict.sentences) + "\n"), soft_wrap=True)
    files = {"recipe": out / "recipe.json", "sheet": out / "sheet.png", "report": out / "report.html"}
    seen = notice(results, read_guards(results))
    if seen.kind == "jump":
        pictures = f"Look at the pictures: {files['sheet']}, and those that changed most in {files['report']}#guards"
        console.print(Text("look closely: ", "bold yellow") + Text(f"{seen.text}\n{pictures}\n"), soft_wrap=True)
    elif seen.text:
        console.print(Text("looks: ", "bold") + Text(f"{seen.text}\n"), soft_wrap=True)
    for what, text in {**files, "drawn": drawn}.items():
        console.print(f"{what:8}{text}", highlight=False, soft_wrap=True)
