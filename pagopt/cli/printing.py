"""The console of all commands."""

from __future__ import annotations

import os

from rich.console import Console

__all__ = ["new_console"]


def new_console(*, stderr: bool = False, quiet: bool = False, piped: int | None = None) -> Console:
    """A console that shows prompts, paths and names as they are: ``[b]`` and ``:apple:`` mean nothing in them.

    Args:
        stderr: Print to standard error.
        quiet: Print nothing.
        piped: Columns where it is no terminal: a file or a pipe has no width of its own.
    """
    console = Console(stderr=stderr, quiet=quiet, markup=False, emoji=False)
    if piped is not None and not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = piped
    return console
