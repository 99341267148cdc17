"""The command line: ``pagopt search | evaluate | generate | score | ...``. Thin: it parses, calls, and prints.

Every command is a module with ``main(words)`` and a jsonargparse parser of its own, imported only when it is called.
What it runs is imported after the options are read, so that neither ``--help`` nor a mistake waits for the libraries.
"""

from __future__ import annotations

import importlib
import logging
import os
import signal
import sys
import threading
import warnings
from functools import partial

from rich.console import Console
from rich.text import Text

import pagopt
from pagopt.cli.printing import new_console
from pagopt.errors import PagoptError, Terminated, UnknownName

__all__ = ["main"]

COMMANDS = (
    "search", "plan", "tune", "evaluate", "generate", "score", "rewards", "heads", "atlas", "store", "studies", "init",
)  # fmt: skip

OVERVIEW = """usage: pagopt COMMAND [options]

Find where and how to perturb a diffusion transformer to get more of what you want from it, without training.

commands:
  search STUDY     find the heads that serve an objective; leaves a recipe and a report to look at
  plan STUDY       what will that, or a tuning, cost? images, time, memory, and what is already there
  tune STUDY       how to perturb them: strength, scale, CFG, interval, steps, by Optuna
  evaluate RECIPE  is it really better? recipes against tuned CFG and best-of-N, on new prompts
  generate         draw an image with a recipe, beside the unguided one if you like
  score            score image files with a reward
  studies          list the studies that are there, with what each costs and found
  init NAME        write a study of your own to start from
  rewards          list the rewards
  heads [MODEL]    list the attention heads of a model
  atlas [MODEL]    draw what each head does, alone
  store FOLDER     what a store holds; check, prune, export and merge stores

a first look:      pagopt atlas
a first search:    pagopt search vivid
more help:         pagopt search --help
"""


def main(arguments: list[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: Instead of the process's own.

    Returns:
        The exit status: 0; 1 where a check found something; 2 for what the user can put right; 130 after Ctrl-C;
        143 after SIGTERM.
    """
    words = sys.argv[1:] if arguments is None else arguments
    if not words or words[0] in {"-h", "--help", "help"}:
        print(OVERVIEW, end="")
        return 0
    if words[0] == "--version":
        print(pagopt.__version__)
        return 0
    # Other ranks of a distributed run fail for the same reason: rank 0 says it.
    console = new_console(stderr=True, quiet=os.environ.get("LOCAL_RANK", "0") != "0")
    # Read by the libraries while they are imported; whoever sets them means it. Loading bars show after two seconds.
    for name, value in {"TRANSFORMERS_VERBOSITY": "error", "DIFFUSERS_VERBOSITY": "error", "TQDM_DELAY": "2"}.items():
        os.environ.setdefault(name, value)
    for name in ("torchao", "bitsandbytes", "torch.utils._pytree"):  # kernels that they look for and do not need
        logging.getLogger(name).setLevel(logging.ERROR)
    main_thread = threading.current_thread() is threading.main_thread()  # no other may
    before = signal.signal(signal.SIGTERM, _terminate) if main_thread else None
    shown, warnings.showwarning = warnings.showwarning, partial(_show_warning, console)
    try:
        if words[0] not in COMMANDS:
            raise UnknownName("command", words[0], COMMANDS)
        command = importlib.import_module(f"pagopt.cli.{words[0]}")
        _quieten_libraries()
        status = command.main(words[1:])
    except PagoptError as error:
        console.print(Text("error: ", "bold red") + Text(str(error)), soft_wrap=True)
        return 2
    except KeyboardInterrupt as stop:
        console.print("\nstopped; what is finished is kept, and the same command goes on from there")
        return 143 if isinstance(stop, Terminated) else 130
    finally:
        warnings.showwarning = shown
        if main_thread:
            signal.signal(signal.SIGTERM, before)
    return int(status or 0)


def _terminate(number: int, frame: object) -> None:
    raise Terminated  # Lightning calls this too, where it takes the signal


def _show_warning(console: Console, message: Warning | str, *where: object, **more: object) -> None:
    """In a user's words: without the place in the code, and above a bar."""
    from tqdm import tqdm  # not before main() has said when bars show

    with tqdm.external_write_mode(file=sys.stderr):
        console.print(Text("warning: ", "bold yellow") + Text(str(message)), soft_wrap=True)


def _quieten_libraries() -> None:
    """Leave out what the libraries say about themselves and a user cannot act on."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"(diffusers|transformers|torch|lightning)\b")
    warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"(?!pagopt)")
