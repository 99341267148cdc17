"""``pagopt store``: look at a store, check it, make room in it, export it, merge several."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser

from pagopt.cli.parsing import new_parser
from pagopt.cli.printing import new_console
from pagopt.errors import StoreError, UnknownName
from pagopt.store import Findings, Store, contents, export, merge, needed_by, prune, verify

__all__ = ["main", "parser"]

DESCRIPTION = """Look after a store: the folder that holds every image and score of one or more runs (runs/NAME/store).

actions:
  info FOLDER            how large it is, and what is in it: models, recipes, rewards (also: pagopt store FOLDER)
  verify FOLDER          is everything there and whole? decodes every image; status 1 if not
  prune FOLDER           make room: by age, by what no results need, or until the rest fits; shows it first and asks
  export FOLDER --to X   images with readable names and table.csv in the folder X; or one file X.parquet
  merge TARGET SOURCE... copy images and scores of other stores, as of other machines, into TARGET

examples:
  pagopt store runs/flat/store
  pagopt store verify runs/flat/store --repair
  pagopt store prune /data/store --older_than 30d --keep runs --dry_run
  pagopt store prune /data/store --max_size 50GB --yes
  pagopt store export runs/flat/store --to pictures
  pagopt store merge /data/store machine1/store machine2/store

What is pruned is not lost for good: a search that asks for it draws it again.
"""
ACTIONS = ("info", "verify", "prune", "export", "merge")
OWNERS = {
    "repair": "verify", "older_than": "prune", "keep": "prune", "max_size": "prune", "dry_run": "prune",
    "yes": "prune", "to": "export",
}  # fmt: skip
SHOWN = 10  # of a long list of faults
SPANS = {"h": 3600.0, "d": 86400.0, "w": 604800.0}
SIZES = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}


def parser() -> ArgumentParser:
    """All options, of all actions."""
    command = new_parser("pagopt store", "ACTION FOLDER ... [options]", DESCRIPTION)
    command.add_argument("words", type=str, nargs="+", metavar="ACTION FOLDER", help="As above; info may be left out.")
    command.add_argument("--json", action="store_true", help="Print JSON, for scripts.")
    command.add_argument(
        "--repair",
        action="store_true",
        help="verify: forget what is damaged or lost, so that it is drawn again, and list files that the index lacks. "
        "Makes a lost index anew.",
    )
    command.add_argument("--older_than", type=str | None, help="prune: what was made before so long: 12h, 30d, 8w.")
    command.add_argument(
        "--keep",
        type=str,
        action="append",
        default=[],
        help="prune: what these need stays: a results.json, comparison.json, atlas.json or recipe file, or a folder "
        "with such at any depth. May be repeated. Alone: everything else goes.",
    )
    command.add_argument(
        "--max_size", type=str | None, help="prune: oldest first, until the images take so much: 500MB, 50GB."
    )
    command.add_argument("--dry_run", action="store_true", help="prune: only say what would go.")
    command.add_argument("--yes", action="store_true", help="prune: do not ask.")
    command.add_argument("--to", type=Path | None, help="export: a new folder, or a file that ends in .parquet.")
    return command


def main(words: list[str]) -> int:
    """Do what ``words`` say; 1 if a check found something."""
    options = parser().parse_args(words or ["--help"])
    action, *folders = options.words if options.words[0] in ACTIONS else ["info", *options.words]
    if action == "info" and options.words[0] != "info" and not Path(folders[0]).exists():
        raise UnknownName("action or folder", folders[0], ACTIONS)
    for option, owner in OWNERS.items():
        if getattr(options, option) and owner != action:
            raise StoreError(f"--{option} belongs to `pagopt store {owner}`, not to {action}")
    if not folders or (len(folders) > 1) != (action == "merge"):
        usual = "TARGET SOURCE..., at least two folders" if action == "merge" else "one FOLDER"
        raise StoreError(f"`pagopt store {action}` takes {usual}; got {len(folders)}")
    return RUN[action](options, [Path(folder).expanduser() for folder in folders])


def info(options: Any, folders: list[Path]) -> int:
    """What is in it."""
    with Store(folders[0], read_only=True) as store:
        found = contents(store)
    if options.json:
        return _json(asdict(found))
    made = f"made {_day(found.oldest)} to {_day(found.newest)}" if found.oldest and found.newest else ""
    _lines(
        {
            "store": found.folder,
            "images": f"{found.images:,}, {_bytes(found.image_bytes)} {made}",
            "index": _bytes(found.index_bytes),
            "prompts": f"{found.prompts:,}",
            "recipes": f"{found.recipes:,}",
            **{f"model {i + 1}": f"{name}: {n:,} images" for i, (name, n) in enumerate(found.models.items())},
            **{f"reward {i + 1}": f"{_short(name)}: {n:,} scores" for i, (name, n) in enumerate(found.rewards.items())},
        }
    )
    return 0


def check(options: Any, folders: list[Path]) -> int:
    """Verify, and say what is wrong."""
    folder = folders[0]
    if options.repair and not folder.is_dir():
        raise StoreError(f"there is no folder {folder}")
    with Store(folder, read_only=not options.repair) as store:
        found = verify(store, options.repair)
    if options.json:
        _json({"clean": found.clean, **asdict(found)})
    else:
        _tell(found, folder)
    return 0 if found.clean or found.repaired else 1


def _tell(found: Findings, folder: Path) -> None:
    faults = {
        "damaged": list(found.damaged.values()),
        "lost": [f"{key}: the index has it, and there is no file" for key in found.lost],
        "changed": [f"{key}: its description in the index does not give its key" for key in found.changed],
        "unlisted": [f"{name}: not in the index (harmless; a process was killed)" for name in found.unlisted],
        "strange": [f"{name}: no image of this store (left alone)" for name in found.strange],
        "unfinished": [f"{name}: half written (harmless; a process was killed)" for name in found.unfinished],
    }
    for kind, lines in faults.items():
        for line in lines[:SHOWN]:
            print(f"{kind:11}{line}")
        if len(lines) > SHOWN:
            print(f"{kind:11}... and {len(lines) - SHOWN:,} more; --json lists all")
    bad = len(found.damaged) + len(found.lost) + len(found.changed)
    if found.clean:
        print(f"clean: {found.images:,} images are there and whole")
    elif found.repaired:
        print(f"repaired: {bad:,} of {found.images:,} images are forgotten, and drawn again when a run asks for them")
    else:
        print(f"NOT clean: {bad:,} of {found.images:,} images. `pagopt store verify {folder} --repair` forgets them;")
        print("they are drawn again when a run asks for them.")


def make_room(options: Any, folders: list[Path]) -> int:
    """Prune, after asking."""
    age = None if options.older_than is None else _amount("--older_than", options.older_than, SPANS, "12h, 30d, 8w")
    size = None
    if options.max_size is not None:
        size = int(_amount("--max_size", options.max_size, SIZES, "500MB, 50GB", unit="b?"))
    if age is None and size is None and not options.keep:
        raise StoreError("say what may go: --older_than 30d, --keep RUNS (all that these do not need), --max_size 50GB")
    needed = needed_by(Path(path).expanduser() for path in options.keep) if options.keep else None
    # Looked at first without a right to write, so that a dry run works anywhere.
    with Store(folders[0], read_only=True) as store:
        plan = prune(store, age, needed, size, dry_run=True)
    said = {"images": plan.images, "bytes": plan.bytes, "kept": plan.kept, "kept_bytes": plan.kept_bytes}
    text = f"{plan.images:,} images ({_bytes(plan.bytes)}); {plan.kept:,} ({_bytes(plan.kept_bytes)}) stay"
    if options.dry_run or not plan.images:
        return _json({**said, "removed": False}) if options.json else _lines({"would go": text})
    if not options.yes:
        if options.json or not sys.stdin.isatty():
            raise StoreError(f"would remove {text}. Say --yes to do it, or --dry_run only to look.")
        print(f"{text}, with the scores of those that go.")
        if input("Remove them? [y/N] ").strip().lower() not in {"y", "yes"}:
            print("nothing was removed")
            return 1
    with Store(folders[0]) as store:
        prune(store, keys=plan.keys)
    return _json({**said, "removed": True}) if options.json else _lines({"removed": text})


def write(options: Any, folders: list[Path]) -> int:
    """Export."""
    if options.to is None:
        raise StoreError("where to? --to FOLDER, or --to FILE.parquet")
    with Store(folders[0], read_only=True) as store:
        count = export(store, options.to)
    if options.json:
        return _json({"images": count, "to": str(options.to)})
    return _lines({"exported": f"{count:,} images to {options.to}"})


def join(options: Any, folders: list[Path]) -> int:
    """Merge; 1 if something stayed behind."""
    target, *others = folders
    sources = [Store(folder, read_only=True) for folder in others]  # before the target is made
    try:
        with Store(target) as store:
            done = merge(store, sources)
    finally:
        for source in sources:
            source.close()
    if options.json:
        _json(asdict(done))
    else:
        lines = {"copied": f"{done.images:,} images, {done.scores:,} scores; {done.known:,} images were there already"}
        if done.different:
            lines["differ"] = f"{done.different:,} scores that both have; those of {target} stay"
        if done.damaged:
            lines["left"] = (
                f"{len(done.damaged):,} images that are damaged there; first: {next(iter(done.damaged.values()))}"
            )
        _lines(lines)
    return 1 if done.damaged else 0


RUN: dict[str, Callable[[Any, list[Path]], int]] = {
    "info": info,
    "verify": check,
    "prune": make_room,
    "export": write,
    "merge": join,
}


def _amount(option: str, text: str, units: Mapping[str, float], examples: str, unit: str = "") -> float:
    """A number with a unit."""
    letters = "".join(units)
    match = re.fullmatch(rf"(\d+(?:\.\d+)?)\s*([{letters}]{'?' if '' in units else ''}){unit}", text.strip().lower())
    if match is None:
        raise StoreError(f"{option} takes a number with its unit, such as {examples}; not {text!r}")
    return float(match[1]) * units[match[2]]


def _json(data: Any) -> int:
    print(json.dumps(data, ensure_ascii=False, indent=1))
    return 0


def _lines(lines: Mapping[str, str]) -> int:
    console = new_console()
    for what, text in lines.items():
        console.print(f"{what:11}{text}", highlight=False, soft_wrap=True)
    return 0


def _bytes(size: int) -> str:
    """As a person says it: 812 kB, 4.25 GB."""
    for unit, worth in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= worth:
            return f"{size / worth:.3g} {unit}"
    return f"{size} bytes"


def _day(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M")


def _short(key: str) -> str:
    name, _, digest = key.partition("@")
    return f"{name}@{digest[:8]}" if digest else name
