"""``pagopt rewards``: the installed rewards, and what each needs."""

from __future__ import annotations

from jsonargparse import ArgumentParser
from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from pagopt.reward import describe_rewards

__all__ = ["main", "parser"]

DESCRIPTION = """List the installed rewards, their arguments, and whether each is ready to use.

A reward of your own needs no installation: --reward path/to/file.py:function, where function(images, prompts) returns
one number for each image, higher is better.
"""


def parser() -> ArgumentParser:
    """No options yet, but a help text."""
    return ArgumentParser(prog="pagopt rewards", description=DESCRIPTION, allow_abbrev=False)


def main(words: list[str]) -> None:
    """Print the list."""
    parser().parse_args(words)
    console = Console()
    for info in describe_rewards():
        arguments = ", ".join(f"{name}={value}" if value else name for name, value in info.arguments.items())
        state = Text(f"not ready: {info.missing}", "yellow") if info.missing else Text("ready", "green")
        console.print(Text(info.name, "bold") + Text(f"({arguments})  ") + state)
        console.print(Padding(Text(info.summary), (0, 0, 0, 4)))
    own = Text("path/to/file.py:function", "bold") + Text(" or ") + Text("package.module:Class", "bold")
    console.print(own)
    console.print(Padding(Text("One of your own; nothing has to be installed."), (0, 0, 0, 4)))
