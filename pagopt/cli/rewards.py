"""``pagopt rewards``: the installed rewards, and what each needs."""

from __future__ import annotations

from jsonargparse import ArgumentParser
from rich.console import Console
from rich.table import Table

from pagopt.reward import describe_rewards

__all__ = ["main", "parser"]

DESCRIPTION = """List the installed rewards, their arguments, and whether each is ready to use.

A reward of your own needs no installation: --reward path/to/file.py:function, where function(images, prompts) returns
one number for each image, higher is better.
"""


def parser() -> ArgumentParser:
    """No options yet, but a help text."""
    return ArgumentParser(prog="pagopt rewards", description=DESCRIPTION)


def main(words: list[str]) -> None:
    """Print the list."""
    parser().parse_args(words)
    table = Table(box=None, pad_edge=False)
    for column in ("name", "what it measures", "arguments", "state", "from"):
        table.add_column(column, no_wrap=column == "name")
    for info in describe_rewards():
        arguments = ", ".join(f"{name}={value}" if value else name for name, value in info.arguments.items())
        table.add_row(info.name, info.summary, arguments, info.missing or "ready", info.package)
    console = Console()
    console.print(table, markup=False)
    console.print("\nor your own: path/to/file.py:function, package.module:Class", style="dim")
