"""``pagopt rewards``: the installed rewards, and what each needs."""

from __future__ import annotations

from jsonargparse import ArgumentParser

from pagopt.cli import environments
from pagopt.cli.listing import print_json, print_list
from pagopt.cli.parsing import new_parser
from pagopt.errors import UnknownName
from pagopt.reward import describe_rewards

__all__ = ["main", "parser"]

DESCRIPTION = """List the installed rewards, their arguments, and whether each is ready to use.

A reward of your own needs no installation: --reward path/to/file.py:function, where function(images, prompts) returns
one number for each image, higher is better.

Some packages need an environment of their own, which is built once:
  pagopt rewards install image-reward       build it, in pagopt's cache folder or in PAGOPT_HOME
  pagopt rewards install my_package.yaml    build one that a record of your own describes
  pagopt rewards environments               list them
  pagopt rewards remove image-reward        remove one
"""


def parser() -> ArgumentParser:
    """All options."""
    command = new_parser("pagopt rewards", "[ACTION [NAME ...]] [options]", DESCRIPTION)
    command.add_argument("--json", action="store_true", help="list: print JSON, for scripts.")
    environments.add_options(command)
    return command


def main(words: list[str]) -> None:
    """Print the list, or build and remove environments."""
    options = parser().parse_args(words)
    if options.action in environments.ACTIONS:
        return environments.run(options)
    if options.action != "list":
        raise UnknownName("action", options.action, ("list", *environments.ACTIONS))
    infos = describe_rewards()
    if options.json:
        print_json(infos)
    else:
        print_list(infos)
