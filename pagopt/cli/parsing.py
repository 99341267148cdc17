"""What the parsers of all commands have in common."""

from __future__ import annotations

from argparse import RawDescriptionHelpFormatter

from jsonargparse import ArgumentParser, DefaultHelpFormatter

__all__ = ["add_offload", "new_parser"]


class Help(RawDescriptionHelpFormatter, DefaultHelpFormatter):
    """Keeps the lines of the description, so that examples can be copied."""


def new_parser(name: str, description: str) -> ArgumentParser:
    """The parser of a command, without options; ``name`` is such as "pagopt search"."""
    return ArgumentParser(prog=name, description=description, allow_abbrev=False, formatter_class=Help)


def add_offload(command: ArgumentParser) -> None:
    """``--offload``, the same for all commands that draw."""
    command.add_argument(
        "--offload",
        type=str | None,
        help="Where GPU memory is short, keep on the CPU what is not needed: whole networks (model), or single layers "
        "(sequential; slow).",
    )
