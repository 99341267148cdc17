"""A plan against the run that it is made for: is its time right within 25 %, and are its images?

``python -m benchmarks.plan``. Each of some small studies on the embedded model is planned and then run, both in a fresh
folder, one straight after the other. Printed are the images that the plan counts and the run drew, the
plan's time and the real one, and their ratio. The real time is that of the run itself: without the start of Python and
the loading of the model, which the plan does not count. On a machine with other work the ratio says how that work
changed; ``--clock cpu`` then compares the time that this process alone took.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pagopt.experiment import Run
from pagopt.files import write_text
from pagopt.folder import Folder, configuration
from pagopt.plan import Plan, make_plan
from pagopt.study import Study
from pagopt.tuning import Tuning
from pagopt.tuning.plan import make_tuning_plan
from pagopt.tuning.run import TuningRun
from pagopt.tuning.start import opened
from pagopt.tuning.storage import DATABASE, address_of

__all__ = ["STUDIES", "main", "measure"]

PROMPTS = ["red apple", "cat face", "rocket", "house", "sunflower", "guitar", "panda", "taxi"]
HELD_OUT = ["dog", "rose", "bank", "snowflake", "bell", "trumpet", "ghost", "eye", "spider", "volcano", "pen", "purse"]
BASE = Study(
    prompts=PROMPTS,
    held_out_prompts=HELD_OUT,
    reward="colorfulness",
    style="flat",
    rounds=1,
    heads_per_round=2,
    scale=2.0,
    steps=12,
    cfg_scales=[1.5, 2.0],
)
STUDIES: dict[str, Study | Tuning] = {
    "exhaustive, 1 round": replace(BASE, prompts=PROMPTS[:4]),
    "racing, 1 round": replace(BASE, search="racing"),
    "racing, 2 rounds": replace(BASE, search="racing", rounds=2),
    "tuning, nothing pruned": Tuning(BASE, "L7.H2 L4.H2", trials=12, pruner="none"),
}
TRAINER = {"accelerator": "cpu"}
Clock = Callable[[], float]
CLOCKS: dict[str, Clock] = {"wall": time.perf_counter, "cpu": time.process_time}


def measure(name: str, study: Study | Tuning, folder: Path, batch: int, clock: Clock) -> dict[str, Any]:
    """Plan and run one study in folders of its own."""
    before = os.getloadavg()[0]
    (plan, planning), (drawn, seconds) = (
        _tuned(study, folder, batch, clock) if isinstance(study, Tuning) else _searched(study, folder, batch, clock)
    )
    assert plan.seconds is not None
    return {
        "study": name,
        "exact": plan.exact,
        "images planned": plan.images - plan.stored,
        "images drawn": drawn,
        "planned s": round(plan.seconds, 1),
        "real s": round(seconds, 1),
        "planned / real": round(plan.seconds / seconds, 2),
        # A race and its selection may draw less than the most; this compares the pace alone.
        "pace planned / real": round(plan.seconds / (plan.images - plan.stored) / (seconds / drawn), 2),
        "planning s": round(planning, 1),
        "load": f"{before:.1f} to {os.getloadavg()[0]:.1f}",
    }


def _timed(act: Callable[[], Any], clock: Clock) -> tuple[Any, float]:
    begin = clock()
    return act(), clock() - begin


def _searched(study: Study, folder: Path, batch: int, clock: Clock) -> tuple[tuple[Plan, float], tuple[int, float]]:
    def made(name: str) -> Run:
        config = configuration(study, "plan", TRAINER)
        return Run(study, "plan", Folder(folder / name, config), batch, TRAINER, quiet=True)

    run = made("plan")
    try:
        planned = _timed(lambda: make_plan(run, clock), clock)
    finally:
        run.close()
    run = made("run")
    try:
        results, seconds = _timed(run, clock)
    finally:
        run.close()
    return planned, (results.images_generated, seconds)


def _tuned(tuning: Tuning, folder: Path, batch: int, clock: Clock) -> tuple[tuple[Plan, float], tuple[int, float]]:
    def made(name: str) -> TuningRun:
        start, space, where, _ = opened(tuning, "plan", folder / name, TRAINER)
        return TuningRun(tuning, "plan", where, start, space, batch, TRAINER, None, quiet=True)

    run = made("plan")
    try:
        planned = _timed(lambda: make_tuning_plan(run, clock=clock), clock)
    finally:
        run.close()
    run = made("run")
    try:
        tuned, seconds = _timed(lambda: run(address_of(folder / "run" / DATABASE), "plan"), clock)
    finally:
        run.close()
    return planned, (tuned.images_generated, seconds)


def show(rows: Sequence[dict[str, Any]]) -> None:
    """Print the table, as Markdown."""
    print(f"\n| {' | '.join(rows[0])} |\n|{'---|' * len(rows[0])}")
    for row in rows:
        print(f"| {' | '.join(str(value) for value in row.values())} |")


def main(arguments: Sequence[str] | None = None) -> int:
    """Plan and run, and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.plan", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--studies", nargs="+", choices=list(STUDIES), default=list(STUDIES))
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall")
    parser.add_argument("--steps", type=int, help="inference steps, instead of the studies' own")
    parser.add_argument("--model", help="instead of the embedded one")
    parser.add_argument("--heads", default="*", help="the pool of the searches")
    parser.add_argument("--json", type=Path, help="write the table to this file, too")
    options = parser.parse_args(arguments)
    changes = {"heads": options.heads, **({"steps": options.steps} if options.steps else {})}
    changes |= {"model": options.model} if options.model else {}
    rows = []
    for name in options.studies:
        study = STUDIES[name]
        if isinstance(study, Tuning):
            study = replace(study, study=replace(study.study, **changes))
        else:
            study = replace(study, **changes)
        with tempfile.TemporaryDirectory() as folder:
            rows.append(measure(name, study, Path(folder), options.batch, CLOCKS[options.clock]))
        show(rows)
    if options.json:
        write_text(options.json, json.dumps(rows, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
