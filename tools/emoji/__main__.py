"""`python -m tools.emoji`: make the embedded model, from the artwork to the shipped folder."""

from jsonargparse import auto_cli

from tools.emoji.train import main

auto_cli(main, as_positional=False)
