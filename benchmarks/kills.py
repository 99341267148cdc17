"""Searches that are killed at random moments and started again: is anything lost, or drawn twice?

    python -m benchmarks.kills --out build/kills

Small searches on the embedded model, exhaustive and racing, in one process and in two. Each is run once undisturbed,
and then disturbed: the main process is killed (SIGKILL), one process of two is, Ctrl-C (SIGINT to all of them, as a
terminal sends it), a disk that is too small. After that the same command runs to its end, and has to give the same
recipe, the same pictures and scores, with at most the batch in flight drawn twice, and a store that ``pagopt store
verify`` finds clean each time. What is finished is kept in the folder, and the same command goes on.

The same pictures: a batch that is drawn after a stop holds other pictures than without it, which moves a number in the
eighth place, and a pixel across a rounding edge now and then. So a pixel may differ by 1 of 255, in one value of
10,000.

The small disk is a tmpfs where this user may mount one; elsewhere a limit on the size of a file stands in for it, and
the table says so.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.disturbed import BATCH, PATIENCE, Disturbed, child, disk, ended, is_left, may_mount, size_of

__all__ = ["main"]

WAYS = ("main process", "one of two", "Ctrl-C", "full disk")
SEARCHES = ("exhaustive", "racing")
ROUNDED = 1e-4  # share of a picture's values that may differ by 1


@dataclass
class Case:
    """One disturbed run.

    Attributes:
        number: Of the case; its random numbers follow from it.
        way: How it was disturbed.
        search: Which search.
        processes: How many.
        after: How many images were begun before; for a disk how many kilobytes it had.
        status: How the disturbed run ended; negative: by that signal.
        said: Its last line.
        again: Images that were begun more than once, over both runs.
        limit: How many may be.
        recipe: Whether the recipe is the undisturbed run's.
        difference: The largest difference of a score from the undisturbed run's; infinite if they cannot be compared.
        pixels: The largest difference of a pixel's value, 0 to 255.
        share: The share of values that differ.
        verified: Statuses of ``pagopt store verify`` after the disturbance and at the end.
        left: Whether a process outlived the end.
    """

    number: int
    way: str
    search: str
    processes: int
    after: int = 0
    status: int = 0
    said: str = ""
    again: int = 0
    limit: int = 0
    recipe: bool = False
    difference: float = float("inf")
    pixels: int = 255
    share: float = 1.0
    verified: tuple[int, int] = (2, 2)
    left: bool = False

    @property
    def passed(self) -> bool:
        """Whether everything is as it has to be."""
        same = self.recipe and self.pixels <= 1 and self.share <= ROUNDED and self.difference < 0.01
        whole = tuple(self.verified) == (0, 0) and self.again <= self.limit
        return same and whole and self.status != 0 and not self.left


def disturb(case: Case, run: Disturbed, whole: Disturbed, draw: random.Random) -> None:
    """Start a run, and put an end to it."""
    if case.way == "full disk":
        small = int(draw.uniform(0.2, 0.95) * size_of(whole.out))
        case.after = small // 1024
        with disk(run.out, small) as limit:
            case.status = ended(run.start(limit))
            case.said = run.said()
            case.verified = (run.verify(), 2)  # still on the small disk
            shutil.copytree(run.out, run.folder / "kept", dirs_exist_ok=True)
        shutil.rmtree(run.out, ignore_errors=True)
        (run.folder / "kept").rename(run.out)
        return
    case.after = draw.randrange(len(whole.begun()))
    process, deadline = run.start(), time.monotonic() + PATIENCE
    while len(run.begun()) <= case.after and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    time.sleep(draw.uniform(0.0, 0.3))
    if case.way == "main process":
        process.send_signal(signal.SIGKILL)
    elif case.way == "one of two":
        os.kill(int((run.folder / "process.1").read_text(encoding="utf-8")), signal.SIGKILL)
    else:
        os.killpg(process.pid, signal.SIGINT)
    case.status, case.said = ended(process), run.said()
    case.verified = (run.verify(), 2)


def check(case: Case, run: Disturbed, whole: Disturbed) -> None:
    """Disturb a run, and start it again at once, as a scheduler does: its other process may still be drawing."""
    if run.out.is_mount():  # left by an earlier one that was killed
        subprocess.run(["umount", str(run.out)], check=True)
    shutil.rmtree(run.folder, ignore_errors=True)
    run.make()
    disturb(case, run, whole, random.Random(case.number))
    before = [int(path.read_text(encoding="utf-8")) for path in run.folder.glob("process.0")]
    status = ended(run.start())
    case.left = any(is_left(group) for group in before)
    if status:
        case.said += f" | then {status}: {run.said()}"
    lines = run.begun()
    case.again, case.limit = len(lines) - len(set(lines)), BATCH * case.processes
    case.verified = (case.verified[0], run.verify())


def compare(case: Case, run: Disturbed, whole: Disturbed) -> None:
    """Hold what came of it against the undisturbed run."""
    from pagopt.store import Store

    if not (run.out / "results.json").exists():
        return
    (recipe, scores), (wanted, expected) = results(run.out), results(whole.out)
    case.recipe = recipe == wanted
    if len(scores) != len(expected):
        return
    case.difference = float(np.abs(np.subtract(scores, expected)).max())
    with Store(run.out / "store", read_only=True) as one, Store(whole.out / "store", read_only=True) as other:
        keys = sorted(row[0] for row in other.rows())
        if sorted(row[0] for row in one.rows()) != keys:
            return
        pairs = [[np.asarray(store.get_image(key), dtype=int) for store in (one, other)] for key in keys]
    gaps = np.abs([first - second for first, second in pairs])
    case.pixels, case.share = int(gaps.max()), float((gaps > 0).mean())


def results(out: Path) -> tuple[Any, list[float]]:
    """The recipe of a finished run, and all of its scores in order."""
    from pagopt.results import load_results

    found = load_results(out / "results.json")
    scores = [value for done in found.rounds for value in (one.mean for _, one in sorted(done.scores.items()))]
    for method in found.methods:
        scores += [*method.objective, *(value for _, values in sorted(method.rewards.items()) for value in values)]
    return found.recipe.to_dict(), scores


def cases(count: int) -> list[Case]:
    """The ways in turn, each with both searches and, where it can be, one process and two."""
    made = []
    for number in range(count):
        way, turn = WAYS[number % len(WAYS)], number // len(WAYS)
        processes = 2 if way == "one of two" else 1 + turn % 2
        made.append(Case(number, way, SEARCHES[(turn // 2 + turn + number) % 2], processes))
    return made


def line(case: Case) -> str:
    """A row of the table."""
    name = case.way if case.way != "full disk" or may_mount() else "limit on the size of a file"
    after = f"{case.after} kB" if case.way == "full disk" else f"{case.after} images"
    pixels = "equal" if case.pixels == 0 else f"{case.share:.0e} by {case.pixels}"
    cells = [
        case.number, name, case.search, case.processes, after, case.status, f"{case.again} of at most {case.limit}",
        "the same" if case.recipe else "ANOTHER", pixels, f"{case.difference:.0e}",
        "clean" if tuple(case.verified) == (0, 0) else f"NOT CLEAN {case.verified}", "yes" if case.passed else "NO",
    ]  # fmt: skip
    return f"| {' | '.join(map(str, cells))} |"


def main(argv: Sequence[str] | None = None) -> int:
    """Disturb and compare; status 1 if anything was lost."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] == ["--child"]:
        return child(words[1:])
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("build/kills"), help="for the runs; what is there is kept")
    parser.add_argument("--count", type=int, default=20, help="disturbed runs")
    parser.add_argument("--only", type=int, nargs="+", help="numbers of single cases, which run again")
    options = parser.parse_args(words)
    out = options.out.resolve()
    file = out / "cases.json"
    made = json.loads(file.read_text(encoding="utf-8")) if file.exists() else []
    done = {one["number"]: Case(**one) for one in made if one["number"] not in (options.only or ())}
    columns = ["", "disturbed", "search", "processes", "after", "status", "drawn twice", "recipe", "pixels", "scores"]
    print(f"| {' | '.join([*columns, 'verify', 'passed'])} |\n|{'---|' * 12}", flush=True)
    shown = [case for case in cases(options.count) if not options.only or case.number in options.only]
    for case in shown:
        name = f"{case.search}{case.processes}"
        whole = Disturbed(out / name, case.search, case.processes)
        if not (whole.out / "results.json").exists():
            shutil.rmtree(whole.folder, ignore_errors=True)
            whole.make()
            if ended(whole.start()):
                raise SystemExit(f"the undisturbed run failed: {whole.said()}")
        run = Disturbed(out / f"case{case.number}", case.search, case.processes)
        if case.number not in done:
            check(case, run, whole)
            done[case.number] = case
        compare(done[case.number], run, whole)
        print(line(done[case.number]), flush=True)
        file.write_text(json.dumps([asdict(one) for one in done.values()], indent=1), encoding="utf-8")
    passed = sum(done[case.number].passed for case in shown)
    print(f"{passed} of {len(shown)} passed")
    return 0 if passed == len(shown) else 1


if __name__ == "__main__":
    sys.exit(main())
