"""``pagopt init NAME``: a commented study or tuning to start from."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentParser

from pagopt.cli.parsing import new_parser
from pagopt.cli.printing import new_console
from pagopt.errors import StudyError, UnknownName
from pagopt.files import write_text
from pagopt.models import check_model
from pagopt.reward import available_rewards

__all__ = ["KINDS", "main", "parser", "template"]

DESCRIPTION = """Write a study or a tuning to start from: a YAML file with comments, which runs as it is. Change it,
plan it, run it. A file that is there already is never overwritten.

examples:
  pagopt init my_style
  pagopt init my_colours --reward colorfulness
  pagopt init my_lens --model sd3.5-medium --reward pickscore
  pagopt init my_strength --kind tune
"""

KINDS = ("search", "tune")
FEW_STEPS = {"schnell": 4, "klein": 4, "turbo": 8}
"""Distilled models, by a word in their name: their steps. They do without classifier-free guidance."""
NO_CFG = "[]      # this model does without classifier-free guidance"
CLIP = "openai/clip-vit-large-patch14"
DTYPE = (
    "# Of the weights. Where memory is short: `quantize: int8`, and --offload model; docs/models.md.\ndtype: bfloat16\n"
)

EMOJI = (
    " [red apple, cat face, rocket, house, sunflower, guitar]",
    " [lemon, owl, pizza, taxi, snowman, mushroom, butterfly, key]",
)
PHOTOS = (
    "\n  - a fisherman mending a net on a pier\n  - a street market in the rain\n  - portrait of a woman at a window"
    "\n  - a red bicycle against a stone wall\n  - a lighthouse on a cliff",
    "\n  - a blacksmith at the anvil\n  - a fox in fresh snow\n  - a bowl of soup on a wooden table"
    "\n  - two friends playing chess in a park\n  - a cabin by a lake\n  - a child with a kite",
)

# What is wrong with a model or a reward that a style word means nothing to is said by the comments.
COMMON = """{style}
# What to get more of: a name from `pagopt rewards`, or a file of yours as path/to/file.py:function, or several of them
# with weights: docs/rewards.md, docs/objectives.md.
reward:{reward}
# Rewards that are only reported, as a second opinion on what was optimised.
# watch: [sharpness]

model: {model}
{dtype}# What to draw. Prompt number i has seed i, for every candidate the same. More prompts make the choice surer.
prompts:{prompts}
# Only for the comparison at the end. Twenty and more show differences that are not large.
held_out_prompts:{held_out}
"""
SEARCH = (
    """# {name}: say here what it looks for.
#
#   pagopt search {file}
#
# Cost: `pagopt plan {file}` tells.

"""
    + COMMON
    + """
# The search: in each round every head is tried beside those that were found, and the best are kept.
# `exhaustive` is the paper's; `racing` finds nearly the same for a part of the images: docs/searches.md.
search: racing
rounds: {rounds}
heads_per_round: {each}
# heads: "L2-5.H*"      # only these; `pagopt heads{heads_of}` lists them
# budget: 2h             # or 500-images: stop at the best recipe so far

# How to perturb: u and w of the paper. If pictures look burnt, lower the scale first.
strength: 1.0
scale: {scale}
steps: {steps}
{size}# CFG scales to compare with.
cfg_scales: {cfg}
"""
)
TUNE = (
    """# {name}: say here what it tunes.
#
#   pagopt tune {file}
#
# Cost: `pagopt plan {file}` tells.

"""
    + COMMON
    + """
# Where to start: the recipe.json of a search, or heads in the order in which they were found.
# The heads here are only examples: put those in that a search of yours found.
recipe: {recipe}

# What may vary: a range [low, high], choices, or a fixed value; all parameters are in docs/tune.md.
space:
  strength: [0, 1]
  scale: {{low: 0.5, high: {high}, log: true}}
  # stop: [0.3, 1]                 # guide the first part of the steps only
  # cfg: {{choices: [1, 1.5, 2]}}
trials: 40
at_once: 4

# What else to optimise. The result is then a front of recipes instead of one.
# objectives: [cost]
# What the result has to keep to, beside the best reward. A reward alone runs away with the pictures.
# constraints: [{{name: sharpness, at_least: baseline - 0.5 sd}}]

# Of the recipe's heads where `space` says nothing.
scale: {scale}
steps: {steps}
{size}# CFG scales to compare with.
cfg_scales: {cfg}
"""
)


def parser() -> ArgumentParser:
    """All options."""
    command = new_parser("pagopt init", "NAME [options]", DESCRIPTION)
    command.add_argument("name", type=str, help="Of the study; NAME.yaml is written. A path works, too.")
    command.add_argument("--kind", type=str, default="search", help=f"One of {', '.join(KINDS)}.")
    command.add_argument("--model", type=str, default="emoji", help="Name, folder, hub id or file.py:function.")
    command.add_argument(
        "--reward", type=str, default="style", help="A name from `pagopt rewards`, or file.py:function."
    )
    return command


def main(words: list[str]) -> None:
    """Write the file that ``words`` ask for."""
    options = parser().parse_args(words)
    path = Path(options.name)
    path = path if path.suffix in {".yaml", ".yml"} else path.with_name(path.name + ".yaml")
    if path.exists():
        raise StudyError(f"{path} is there already, and is not overwritten; choose another name")
    text = template(path, options.kind, options.model, options.reward)
    try:
        write_text(path, text)
    except OSError as error:
        raise StudyError(f"cannot write {path}: {error.strerror or error}; choose another place") from error
    where = str(path) if len(path.parts) > 1 else path.name
    console = new_console()
    console.print(f"wrote {where}\n", highlight=False, soft_wrap=True)
    for what, command in (("cost", "plan"), ("run", options.kind)):
        console.print(f"{what:8}pagopt {command} {shlex.quote(str(where))}", highlight=False, soft_wrap=True)


def template(path: Path, kind: str = "search", model: str = "emoji", reward: str = "style") -> str:
    """The text of a study or tuning to start from.

    Args:
        path: Of the file.
        kind: "search" or "tune".
        model: As for :func:`pagopt.models.resolve_model`.
        reward: A reward's name, or where to find one of your own.

    Raises:
        UnknownName: If there is no such kind, model or reward.
    """
    if kind not in KINDS:
        raise UnknownName("kind of study", kind, KINDS)
    source = check_model(model)
    if ":" not in reward and reward not in available_rewards():
        raise UnknownName("reward", reward, available_rewards(), "Or path/to/file.py:function.")
    emoji, flux = model == "emoji", "flux" in source.lower()
    few = next((steps for word, steps in FEW_STEPS.items() if word in source.lower()), None)
    prompts, held_out = EMOJI if emoji else PHOTOS
    values: dict[str, Any] = {
        "name": path.stem,
        "file": path,
        "style": f'# Put before every prompt, as "style, content".\nstyle: {"flat" if emoji else "line art"}',
        "reward": _reward(reward, emoji),
        "model": _plain(model),
        "dtype": "" if emoji else DTYPE,
        "prompts": prompts,
        "held_out": held_out,
        "rounds": 2 if emoji else 5,
        "each": 2 if emoji else 3,
        "heads_of": "" if emoji else f" {model}",
        "recipe": "L7.H2 L4.H2" if emoji else "L8.H3 L11.H7",
        "scale": 2.0 if emoji else 8.0 if flux else 3.0,
        "high": 12 if flux else 8,
        "steps": 12 if emoji else few or (15 if flux else 20),
        "size": "" if emoji else "# height: 512          # pixels; default: as the model likes it\n# width: 512\n",
        "cfg": "[1.5, 2.0]" if emoji else NO_CFG if few or "flux.2" in source.lower() else "[1.5, 2.0, 3.0]",
    }
    return (SEARCH if kind == "search" else TUNE).format(**values)


def _reward(name: str, emoji: bool) -> str:
    """The objective in YAML; outside the embedded model, `clip` and `style` need a CLIP that knows its pictures."""
    args: dict[str, Any] = {}
    if name == "reference":
        args = {"examples": "path/to/pictures"}
    elif not emoji and name in {"clip", "style", "classifier"}:
        args = {"model": CLIP}
        if name != "clip":
            args |= {"styles": ["line art", "photograph", "oil painting", "3d render"], "style": "line art"}
    if not args:
        return f" {_plain(name)}"
    body = yaml.safe_dump(args, sort_keys=False, default_flow_style=True, width=200).strip()
    return f"\n  - name: {name}\n    args: {body}"


def _plain(text: str) -> str:
    """A text as YAML writes it, in quotes where it has to be."""
    return yaml.safe_dump(text, width=1000).splitlines()[0]
