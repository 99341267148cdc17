"""``pagopt evaluate RECIPE... --prompts FILE``: is it really better, on prompts that the search never saw?"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import yaml
from jsonargparse import ArgumentParser, get_loader
from rich.table import Table
from rich.text import Text

from pagopt.cli.parsing import add_offload, new_parser
from pagopt.cli.printing import new_console
from pagopt.cli.trainer import add_trainer, trainer_options
from pagopt.comparison import CFG_SCALES, Comparison, Outcome, load_entrants, read_prompts
from pagopt.comparison.folder import FILES
from pagopt.comparison.tables import differences_rows, distances_rows, gaps_rows, legend, methods_rows, title
from pagopt.errors import RewardError, StudyError
from pagopt.report.reading import counted
from pagopt.reward import RewardSpec, specs_of

__all__ = ["main", "parser", "reward_specs"]

DESCRIPTION = """Compare recipes on prompts and seeds that their search never used.

Each recipe is measured against
  no guidance      the model alone
  CFG g            classifier-free guidance, its scale tuned for each reward on the search's own tasks
  best layer L     all heads of one layer, chosen on the search's own tasks
  best of N        the best of as many unguided pictures as the recipe's compute pays for, picked by the first reward
with paired differences, 95 % intervals, win rates and p-values corrected for their number. You are warned where a gain
over no guidance is none over tuned CFG. The prompts file has one whole prompt a line.

The folder (runs/evaluate-NAME, or --out) gets table.md, table.csv, differences.csv, scores.csv, comparison.json and
sheet.png. Stop it at any time: the same command again goes on where it stopped, and more rewards, seeds or recipes
cost what is new about them only.

examples:
  pagopt evaluate runs/flat/recipe.json --prompts new.txt
  pagopt evaluate runs/flat/recipe.json --prompts new.txt --seeds 4 --reward colorfulness --reward clip
  pagopt evaluate a.json b.json --prompts new.txt --reward '{name: style, args: {style: flat}}' --store runs/flat/store
  pagopt evaluate runs/flat/recipe.json --prompts new.txt --reference photos/ --features judge
"""


def parser() -> ArgumentParser:
    """All options, typed; the trainer's come from Lightning."""
    command = new_parser("pagopt evaluate", "RECIPE ... --prompts PROMPTS [options]", DESCRIPTION)
    add = command.add_argument
    add("recipes", type=Path, nargs="+", metavar="RECIPE", help="Recipe files, as `pagopt search` writes them.")
    add("--prompts", type=Path, required=True, help="Text file with one prompt a line; # begins a comment line.")
    add("--seeds", type=int, default=1, help="How many seeds each prompt is drawn with.")
    add("--first_seed", type=int, default=100_000, help="The first of them; all pictures get different ones.")
    add(
        "--reward",
        action="append",
        help="What to judge by; may be given several times. A name, path/to/file.py:function, a YAML mapping with "
        "name, args and weight (negative where lower is better), or a YAML file with a list of these. The first "
        "chooses the layer and the best of N. Default: what the search maximised.",
    )
    add("--tune_prompts", type=Path | None, help="Prompts to tune CFG and layer on. Default: the search's tasks.")
    add("--cfg_scales", type=list[float], default=list(CFG_SCALES), help="CFG scales to choose from; [] for none.")
    add("--compare_layers", type=bool, default=True, help="Compare with the best single layer.")
    add("--best_of", type=bool, default=True, help="Compare with best-of-N at equal compute.")
    add("--reference", type=Path | None, help="Folder of real pictures, for a Frechet distance and its relatives.")
    add("--features", type=str | None, help="Reward whose features(images) they are measured in, written as --reward.")
    add("--out", type=Path | None, help="Folder of the tables. Default: runs/evaluate-NAME, NAME being the recipes'.")
    add("--store", type=Path | None, help="Folder of images and scores; may be a search's. Default: OUT/store.")
    add("--model", type=str | None, help="Another model than the recipes' own.")
    add("--steps", type=int | None, help="Inference steps. Default: as the recipes were found.")
    add("--height", type=int | None, help="Pixels. Default: as the model likes it.")
    add("--width", type=int | None, help="Pixels. Default: as the model likes it.")
    add("--distilled_guidance", type=float | None, help="Guidance scale of a distilled model (FLUX).")
    add("--compile", type=bool, default=False, help="Compile the model's blocks: a slow start, then faster.")
    add("--dtype", type=str | None, help="Number format of the weights. Default: as the recipes were found.")
    add("--quantize", type=str | None, help="int8, float8, float8_dynamic or none. Default: as the recipes were found.")
    add("--allow_seen", action="store_true", help="Go on although a search used some prompts or seeds.")
    add("--allow_other_model", action="store_true", help="Go on although the recipes were found on other weights.")
    add("--batch_size", type=int, default=16, help="Images in one batch, on each process.")
    add_offload(command)
    add_trainer(command)
    return command


def main(words: list[str]) -> None:
    """Compare what ``words`` name, and print the tables."""
    options = parser().parse_args(words or ["--help"])
    entrants = load_entrants(options.recipes)
    features = reward_specs([options.features]) if options.features else [None]
    if len(features) != 1:
        raise RewardError(f"--features takes one reward, and {options.features} holds {len(features)}")
    same = ("seeds", "first_seed", "cfg_scales", "compare_layers", "best_of", "model", "steps", "height", "width")
    more = ("distilled_guidance", "compile", "dtype", "quantize", "reference", "allow_seen", "allow_other_model")
    comparison = Comparison(
        entrants,
        read_prompts(options.prompts),
        rewards=reward_specs(options.reward or []),
        tuning_prompts=read_prompts(options.tune_prompts) if options.tune_prompts else (),
        features=features[0],
        **{name: getattr(options, name) for name in (*same, *more)},
    )
    names = "-".join(entrant.label.replace(os.sep, "-").strip("-") for entrant in entrants)
    out = options.out or Path("runs") / f"evaluate-{names[:80]}"
    if options.store is not None and options.store.exists() and not options.store.is_dir():
        raise StudyError(f"--store takes a folder, and {options.store} is a file")
    trainer = trainer_options(options)
    from pagopt.comparison import run_comparison

    outcome = run_comparison(comparison, out, options.store, options.batch_size, trainer, options.offload)
    if os.environ.get("LOCAL_RANK", "0") == "0":
        show(outcome, out)


def reward_specs(words: Sequence[str]) -> list[RewardSpec]:
    """Rewards as a user writes them: names, YAML mappings, or YAML files with a list.

    Raises:
        RewardError: If one is none of these, or means nothing.
        UnknownName: For a key that means nothing.
    """
    specs = []
    for word in words:
        if not word.lstrip().startswith(("{", "[")) and Path(word).suffix in {".yaml", ".yml"}:
            try:
                specs += specs_of(get_loader("yaml")(Path(word).read_text(encoding="utf-8")))
            except OSError as error:
                raise RewardError(f"cannot read the rewards in {word}: {error.strerror}") from error
            except (UnicodeDecodeError, yaml.YAMLError) as error:
                raise RewardError(f"{word} is no valid YAML: {error}") from error
        else:
            specs += specs_of(word)
    return specs


def show(outcome: Outcome, out: Path) -> None:
    """Print both tables, the warnings, and where to look."""
    console = new_console(piped=160)
    recipes = {standing.name for standing in outcome.standings if standing.kind == "recipe"}
    rows = methods_rows(outcome)
    bold = [standing.name in recipes for standing in outcome.standings]
    console.print(Text(title(outcome), "bold"), soft_wrap=True)
    console.print(_table(rows, bold))
    console.print()
    console.print(Text("gains on the same prompts and seeds", "bold"))
    console.print(_table(differences_rows(outcome), left=3))
    console.print(Text(legend(outcome), "dim"), soft_wrap=True)
    console.print()
    if outcome.distances:
        for rows in (distances_rows(outcome), gaps_rows(outcome)):
            console.print(_table(rows))
            console.print()
    for warning in outcome.warnings:
        console.print(Text("warning: ", "bold yellow") + Text(warning), soft_wrap=True)
    for note in outcome.notes:
        console.print(Text("note: ", "dim") + Text(note), soft_wrap=True)
    console.print()
    for what, file in FILES.items():
        console.print(f"{what:8}{out / file}", highlight=False, soft_wrap=True)
    drawn = f"{counted(outcome.images_generated, 'new image')} in {outcome.seconds:.0f} s"
    console.print(f"{'drawn':8}{drawn}", highlight=False, soft_wrap=True)


def _table(rows: Sequence[Sequence[str]], bold: Sequence[bool] = (), left: int = 1) -> Table:
    table = Table(box=None, pad_edge=False)
    for number, name in enumerate(rows[0]):
        table.add_column(Text(name), justify="left" if number < left else "right", overflow="fold")
    for number, row in enumerate(rows[1:]):
        style = "bold" if number < len(bold) and bold[number] else None
        table.add_row(*map(Text, row), style=style)
    return table
