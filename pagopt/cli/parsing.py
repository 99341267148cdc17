"""What the parsers of all commands have in common."""

from __future__ import annotations

import textwrap
from argparse import RawDescriptionHelpFormatter

from jsonargparse import ArgumentParser, DefaultHelpFormatter

__all__ = ["add_offload", "new_parser"]


class Help(RawDescriptionHelpFormatter, DefaultHelpFormatter):
    """Keeps the lines of paragraphs that have indented ones, so that examples can be copied."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        filled = [
            paragraph if "\n " in paragraph else textwrap.fill(paragraph, width)
            for paragraph in text.strip("\n").split("\n\n")
        ]
        return "\n\n".join(filled)


def new_parser(name: str, arguments: str, description: str) -> ArgumentParser:
    """The parser of a command, without options.

    Args:
        name: Such as "pagopt search".
        arguments: What follows it, in short: "STUDY [options]".
        description: Wrapped, but for paragraphs with lines that are indented, such as examples.
    """
    usage = f"{name} {arguments}"
    return ArgumentParser(prog=name, usage=usage, description=description, allow_abbrev=False, formatter_class=Help)


def add_offload(command: ArgumentParser) -> None:
    """``--offload``, the same for all commands that draw."""
    command.add_argument(
        "--offload",
        type=str | None,
        help="Where GPU memory is short, keep on the CPU what is not needed: whole networks (model), or single layers "
        "(sequential; slow).",
    )
