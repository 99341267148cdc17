"""``pagopt score``: score image files with rewards."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jsonargparse import ArgumentParser
from rich.table import Table
from tqdm.auto import tqdm

from pagopt.cli.parsing import new_parser
from pagopt.cli.pictures import BESIDE, find_images, find_prompts, read_image, read_prompts
from pagopt.cli.printing import new_console
from pagopt.errors import PagoptError, RewardError
from pagopt.reward import Objective, Reward, RewardSpec, specs_of
from pagopt.reward.hardware import move_reward, usable_device

__all__ = ["main", "parser"]

DESCRIPTION = """Score image files with one or more rewards; higher is better.

examples:
  pagopt score --reward colorfulness pictures/
  pagopt score --reward clip --prompt "flat, red apple" apple.png pear.png
  pagopt score --reward clip --reward "{name: style, args: {style: flat}}" --prompts metadata.jsonl --format csv
  pagopt score --reward my_reward.py:roundness --format json "pictures/**/*.png"
"""
PROMPTS = f"""A prompt for each image: a .jsonl, .json or .csv with the columns file_name and text, or "{BESIDE}" for
apple.txt beside apple.png. Without IMAGES, all that the file names are scored."""


def parser() -> ArgumentParser:
    """All options."""
    command = new_parser("pagopt score", "--reward REWARD [options] IMAGE ...", DESCRIPTION)
    command.add_argument("images", type=str, nargs="*", help="Image files, folders, or patterns in quotes.")
    command.add_argument(
        "--reward",
        type=str,
        action="append",
        required=True,
        help="Name, path/to/file.py:function, package.module:Class, or a term of a study as YAML. May be repeated.",
    )
    command.add_argument("--args", type=dict[str, Any], default={}, help="Arguments of the one reward, as YAML.")
    command.add_argument("--prompt", type=str | None, help="The prompt that all images are to answer.")
    command.add_argument("--prompts", type=str | None, help=PROMPTS)
    command.add_argument("--format", type=str, default="table", help="table (best first), json or csv.")
    command.add_argument("--json", action="store_true", help="The same as --format json.")
    command.add_argument("--batch_size", type=int, default=16, help="Images in one batch.")
    command.add_argument("--device", type=str | None, help="Such as cuda or cpu. Default: cuda where there is one.")
    return command


def main(words: list[str]) -> None:
    """Score what ``words`` name."""
    options = parser().parse_args(words)
    form = "json" if options.json else options.format
    if form not in WRITERS:
        raise PagoptError(f"--format must be one of {', '.join(WRITERS)}, not {form!r}")
    if options.batch_size < 1:
        raise PagoptError(f"--batch_size must be at least 1, not {options.batch_size}")
    if options.prompt and options.prompts:
        raise PagoptError("give --prompt for all images or --prompts for each, not both")
    specs = terms(options.reward, options.args)
    images = find_images(options.images)
    if not images and options.prompts not in {None, BESIDE}:
        images = find_images([str(path) for path in read_prompts(Path(options.prompts))])
    if not images:
        raise PagoptError("no images: name files, folders or patterns, or give --prompts a file that names them")
    prompts = find_prompts(images, options.prompt or "", options.prompts)
    try:
        device = usable_device(options.device)
    except ValueError as error:
        raise PagoptError(str(error)) from error
    rewards = Objective(specs).rewards
    asking = [label for label, reward in rewards.items() if reward.reads_prompts]
    if asking and options.prompt is None and options.prompts is None:
        raise PagoptError(
            f'{", ".join(asking)}: how well an image fits its prompt. Give --prompt for all images (--prompt "" for '
            "none), or --prompts for each"
        )
    WRITERS[form](images, prompts, score(rewards, images, prompts, device, options.batch_size))


def terms(texts: Sequence[str], args: dict[str, Any]) -> list[RewardSpec]:
    """The rewards that are meant.

    Raises:
        RewardError: If one is not written as it should be.
    """
    specs = [spec for text in texts for spec in specs_of(text)]
    for spec in specs:
        if spec != RewardSpec(spec.name, args=spec.args):
            raise RewardError(
                f"of reward {spec.name!r} each score is shown by itself, so a term has name and args alone: "
                '"{name: style, args: {style: flat}}"'
            )
    if args:
        if len(specs) > 1:
            raise RewardError(
                "--args belongs to a single --reward. Of several write each with its own: --reward "
                '"{name: style, args: {style: flat}}"'
            )
        specs = [RewardSpec(specs[0].name, args={**specs[0].args, **args})]
    return specs


def score(
    rewards: Mapping[str, Reward], images: Sequence[Path], prompts: Sequence[str], device: torch.device, batch_size: int
) -> dict[str, list[float]]:
    """The scores of each reward, in the order of the images.

    Raises:
        RewardError: If an image cannot be read or a reward fails; it names the file.
    """
    for label, reward in rewards.items():
        move_reward(label, reward, device)
    scores: dict[str, list[float]] = {label: [] for label in rewards}
    # The bar shows after two seconds, on standard error, and is gone at the end.
    with tqdm(total=len(images), unit="image", delay=2, leave=False, dynamic_ncols=True) as bar:
        for start in range(0, len(images), batch_size):
            paths = images[start : start + batch_size]
            pictures = [read_image(path) for path in paths]
            for label, reward in rewards.items():
                try:
                    found = reward(pictures, prompts[start : start + batch_size])
                except RewardError as error:
                    files = paths if error.index is None else [paths[error.index]]
                    named = f"{files[0]}" + (f" and {len(files) - 1} more" if len(files) > 1 else "")
                    raise RewardError(f"{error}\n  image: {named}", reward=label, index=error.index) from error
                scores[label] += found.tolist()
            bar.update(len(paths))
    return scores


def write_table(images: Sequence[Path], prompts: Sequence[str], scores: Mapping[str, list[float]]) -> None:
    """Print a table, best first by the first reward."""
    several = len(set(prompts)) > 1
    table = Table(box=None, pad_edge=False)
    table.add_column("image", overflow="fold")
    if several:
        table.add_column("prompt", overflow="fold")
    for label in scores:
        table.add_column(label, justify="right", no_wrap=True)
    first = next(iter(scores.values()))
    for at in sorted(range(len(images)), key=lambda at: -first[at]):
        numbers = [f"{round(column[at], 4) + 0.0:.4f}" for column in scores.values()]  # no -0.0000
        table.add_row(str(images[at]), *([prompts[at]] if several else []), *numbers)
    new_console(piped=160).print(table)


def write_json(images: Sequence[Path], prompts: Sequence[str], scores: Mapping[str, list[float]]) -> None:
    """Print a list of objects, in the order of the images."""
    rows = [
        {"image": str(image), "prompt": prompt, "scores": {label: column[at] for label, column in scores.items()}}
        for at, (image, prompt) in enumerate(zip(images, prompts, strict=True))
    ]
    print(json.dumps(rows, ensure_ascii=False, indent=1))


def write_csv(images: Sequence[Path], prompts: Sequence[str], scores: Mapping[str, list[float]]) -> None:
    """Print a line for each image, in their order."""
    lines = csv.writer(sys.stdout, lineterminator="\n")
    lines.writerow(["image", "prompt", *scores])
    for at, (image, prompt) in enumerate(zip(images, prompts, strict=True)):
        lines.writerow([image, prompt, *(column[at] for column in scores.values())])


WRITERS = {"table": write_table, "json": write_json, "csv": write_csv}
