"""What ``pagopt rewards`` prints: the installed rewards, what each needs, and whether it is ready."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Sequence

from rich.padding import Padding
from rich.text import Text

from pagopt.cli.printing import new_console
from pagopt.reward import RewardInfo

__all__ = ["print_json", "print_list"]

OWN_PACKAGE = "pagopt"


def print_list(infos: Sequence[RewardInfo]) -> None:
    """In groups: those that are ready, those that need something first, one's own."""
    console = new_console()
    ready = [info for info in infos if not info.missing]
    waiting = [info for info in infos if info.missing]
    for title, group in (("Ready", ready), ("Need something first", waiting)):
        if not group:
            continue
        console.print(Text(title, "bold underline"))
        for info in _by_package(group):
            package = info.package.partition(" ")[0]
            console.print(_call(info) + Text(f"  from {info.package}" if package != OWN_PACKAGE else "", "dim"))
            if info.summary:
                console.print(Padding(Text(info.summary), (0, 0, 0, 4), expand=False))
            if info.missing:
                console.print(Padding(Text(f"needs: {info.missing}", "yellow"), (0, 0, 0, 4), expand=False))
        console.print()
    console.print(Text("Your own", "bold underline"))
    console.print(Text("path/to/file.py:function", "bold") + Text(" or ") + Text("package.module:Class", "bold"))
    console.print(Padding(Text("Nothing has to be installed: docs/write-a-reward.md"), (0, 0, 0, 4), expand=False))


def print_json(infos: Iterable[RewardInfo]) -> None:
    """A list of objects: name, summary, arguments, missing, package, and whether it is ready."""
    rows = [{**dataclasses.asdict(info), "ready": not info.missing} for info in infos]
    print(json.dumps(rows, ensure_ascii=False, indent=1))


def _by_package(infos: Iterable[RewardInfo]) -> list[RewardInfo]:
    """Those of pagopt first, then package by package."""
    return sorted(infos, key=lambda info: (info.package.partition(" ")[0] != OWN_PACKAGE, info.package, info.name))


def _call(info: RewardInfo) -> Text:
    arguments = ", ".join(f"{name}={value}" if value else name for name, value in info.arguments.items())
    return Text(info.name, "bold") + Text(f"({arguments})")
