"""``pagopt rewards install | remove | environments``: the environments of isolated rewards."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser
from rich.table import Table

from pagopt.cli.printing import new_console
from pagopt.errors import PagoptError, RewardError
from pagopt.isolated import available_records, find_environment, find_record, home, install, installed, remove

__all__ = ["ACTIONS", "add_options", "run"]

ACTIONS = ("install", "remove", "environments")


def add_options(command: ArgumentParser) -> None:
    """What these actions take."""
    command.add_argument(
        "action", type=str, nargs="?", default="list", help=f"list (the default), or {', '.join(ACTIONS)}."
    )
    command.add_argument("names", type=str, nargs="*", help="install, remove: which; a name or a record's YAML file.")
    command.add_argument("--force", action="store_true", help="install: build it again, though it is ready.")
    command.add_argument("--home", type=Path, help="Folder of the environments instead of PAGOPT_HOME.")
    command.add_argument("--python", type=str, help="install: the Python to build it with.")
    command.add_argument(
        "--pin",
        type=str,
        action="append",
        default=[],
        help='install: a requirement instead of the record\'s, such as "torch==2.6.0"; may be repeated.',
    )
    command.add_argument("--constraint", type=Path, help="install: a constraints file for pip.")
    command.add_argument("--installer", type=str, default="auto", help="install: pip, uv, or auto (uv where it is).")


def run(options: Any) -> None:
    """Do what ``options`` say.

    Raises:
        RewardError: If a name is missing or unknown, or a step fails.
    """
    folder = options.home.expanduser().absolute() if options.home else None
    if options.action == "environments":
        return _list(folder, bool(getattr(options, "json", False)))
    if not options.names:
        known = ", ".join(available_records())
        raise RewardError(f"which one? `pagopt rewards {options.action} NAME`, a YAML file, or one of: {known}")
    for name in options.names:
        if options.action == "remove":
            for removed in remove(Path(name).stem if name.endswith((".yaml", ".yml")) else name, folder):
                print(f"removed {removed}")
            continue
        install(
            find_record(name),
            folder=folder,
            python=options.python,
            pins=options.pin,
            constraint=options.constraint,
            installer=options.installer,
            force=options.force,
            say=lambda line: print(line, flush=True),
        )
    if options.action == "install" and folder is not None and folder != home():
        print(f"Rewards look for it where PAGOPT_HOME says: export PAGOPT_HOME={folder}")


def _list(folder: Path | None, as_json: bool) -> None:
    rows: list[dict[str, Any]] = []
    for item in installed(folder):
        state = "ready" if item.ready else "unfinished"
        if item.ready:
            try:
                record = find_record(item.facts["record"])
                if find_environment(record, folder).folder != item.folder:
                    state = "outdated: its record asks for other packages now"
            except PagoptError:
                state = "its record is gone"
        size = sum(file.lstat().st_size for file in item.folder.rglob("*") if not file.is_dir())
        rows.append({"name": item.name, "state": state, "bytes": size, "folder": str(item.folder)})
    if as_json:
        print(json.dumps(rows))
    elif not rows:
        place = (folder or home()) / "environments"
        print(f"no environments in {place}. `pagopt rewards install NAME` builds one: {', '.join(available_records())}")
    else:
        table = Table(box=None, pad_edge=False)
        for title in ("name", "state", "size", "folder"):
            table.add_column(title, overflow="fold", justify="right" if title == "size" else "left")
        for row in rows:
            table.add_row(row["name"], row["state"], f"{row['bytes'] / 1e9:.2f} GB", row["folder"])
        new_console().print(table)
