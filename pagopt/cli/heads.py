"""``pagopt heads``: the addressable attention heads of a model."""

from __future__ import annotations

from itertools import groupby

from jsonargparse import ArgumentParser
from rich.table import Table

from pagopt.cli.parsing import new_parser
from pagopt.cli.printing import new_console

__all__ = ["main", "parser"]

DESCRIPTION = """List the attention heads of a model, read from its configuration alone (no weights are loaded).

A head is written L12.H7 (block 12, head 7, both from 0); ranges such as "L8-11.H*" and lists such as "L4.H1,3" select
several, wherever pagopt asks for heads.

examples:
  pagopt heads
  pagopt heads flux-dev
  pagopt heads path/to/my-sd3
"""


def parser() -> ArgumentParser:
    """All options."""
    command = new_parser("pagopt heads", "[MODEL]", DESCRIPTION)
    command.add_argument(
        "model", type=str, nargs="?", default="emoji", help="Name, folder, hub id or file.py:function."
    )
    return command


def main(words: list[str]) -> None:
    """Print the map of the model that ``words`` name."""
    model = parser().parse_args(words).model
    from pagopt.models import head_map_of

    head_map = head_map_of(model)
    table = Table(box=None, pad_edge=False)
    for column in ("blocks", "attention", "heads", "written"):
        table.add_column(column)
    sites = sorted(head_map.sites, key=lambda site: (site.name, site.heads, site.block))
    runs = groupby(enumerate(sites), key=lambda pair: (pair[1].name, pair[1].heads, pair[1].block - pair[0]))
    for (name, heads, _), run in runs:  # of blocks without a gap
        blocks = [site.block for _, site in run]
        span = f"{blocks[0]}-{blocks[-1]}" if len(blocks) > 1 else f"{blocks[0]}"
        middle = "" if name == "attn" else f".{name}"
        table.add_row(span, name, str(heads), f"L{span}{middle}.H0-{heads - 1}")
    console = new_console()
    console.print(table)
    console.print(f"{len(head_map)} heads in {head_map.blocks} blocks", highlight=False)
