"""``pagopt atlas MODEL``: what does each head do? Pictures and measurements of every head alone."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser
from rich.table import Table
from rich.text import Text

from pagopt.atlas import Atlas, Findings
from pagopt.atlas.findings import LEVEL, MOVED
from pagopt.atlas.page import change, extremes
from pagopt.cli.costs import Shown, add_gpu, check_gpu, free_folder, outlined
from pagopt.cli.costs import show as show_plan
from pagopt.cli.evaluate import reward_specs
from pagopt.cli.parsing import add_offload, new_parser
from pagopt.cli.printing import new_console
from pagopt.cli.trainer import add_trainer, trainer_options
from pagopt.comparison import read_prompts
from pagopt.errors import StudyError
from pagopt.models import has_weights
from pagopt.report.reading import counted

__all__ = ["main", "parser"]

DESCRIPTION = """Draw what each attention head of a model does, alone: all with the same prompts and seeds.

Every head is perturbed by itself, and every layer as a whole, and the pictures are set beside those without
perturbation. One prompt is enough to look at; with about 20 prompts the changes in brightness, saturation, contrast,
sharpness and in any --reward are tested, too. Nothing is chosen: this is to look around before a search.

The folder (runs/atlas-MODEL, or --out) gets atlas.html, heads.png, effects.png, heads.csv, atlas.json and the store of
all images. Stop it at any time: the same command again goes on where it stopped.

examples:
  pagopt atlas                                            the embedded model, two examples; half a minute on a CPU
  pagopt atlas emoji --prompts many.txt --reward style --reward clip
  pagopt atlas sd3-medium --prompt "a lighthouse at dusk" --heads "L8-15.H*" --trainer.precision bf16-true
  pagopt atlas emoji --prompt "flat, rocket" --target blur --target_options.sigma 2
  pagopt atlas flux-dev --prompt "a lighthouse at dusk" --plan        what will it cost? nothing is downloaded
"""


def parser() -> ArgumentParser:
    """All options, typed; the atlas's come from :class:`pagopt.atlas.Atlas`, the trainer's from Lightning."""
    command = new_parser("pagopt atlas", "[MODEL] [options]", DESCRIPTION)
    add = command.add_argument
    add("model", type=str, nargs="?", default="emoji", help="Name, folder, hub id or file.py:function.")
    add("--prompt", action="append", help="A whole prompt; may be given several times.")
    add("--prompts", type=Path | None, help="Text file with one prompt a line; # begins a comment line.")
    add(
        "--reward",
        action="append",
        help="What to measure beside the looks of the pictures; may be given several times. A name, "
        "path/to/file.py:function, a YAML mapping with name and args, or a YAML file with a list of these.",
    )
    add("--out", type=Path | None, help="Folder of page and pictures. Default: runs/atlas-MODEL.")
    add("--store", type=Path | None, help="Folder of images and scores; may be a search's. Default: OUT/store.")
    add("--batch_size", type=int, default=16, help="Images in one batch, on each process.")
    add("--plan", action="store_true", help="Say what it will cost, and draw nothing but a few batches for that.")
    add_gpu(command)
    add_offload(command)
    command.add_class_arguments(Atlas, None, skip={"model", "prompts", "rewards"})
    add_trainer(command)
    return command


def main(words: list[str]) -> None:
    """Draw the atlas that ``words`` ask for, and say what stands out."""
    options = parser().parse_args(words)
    prompts = [*(options.prompt or []), *(read_prompts(options.prompts) if options.prompts else [])]
    given = {name: getattr(options, name) for name in Atlas.__dataclass_fields__ if name not in {"prompts", "rewards"}}
    atlas = Atlas(prompts=prompts, rewards=reward_specs(options.reward or []), **given)
    name = "-".join(part for part in atlas.model.replace(":", os.sep).split(os.sep) if part not in {"", ".", ".."})
    out = options.out or Path("runs") / f"atlas-{name}"
    if options.store is not None and options.store.exists() and not options.store.is_dir():
        raise StudyError(f"--store takes a folder, and {options.store} is a file")
    if options.plan:
        return plan(atlas, name, out, options)
    from pagopt.atlas import run_atlas

    found = run_atlas(atlas, out, options.store, options.batch_size, trainer_options(options), options.offload)
    if os.environ.get("LOCAL_RANK", "0") == "0":
        show(found, out)


def plan(atlas: Atlas, name: str, out: Path, options: Any) -> None:
    """Say what an atlas will cost."""
    from pagopt.atlas.run import AtlasRun
    from pagopt.plan import make_atlas_plan, outline_atlas_plan

    check_gpu(options.gpu)
    size, trainer = options.batch_size, trainer_options(options)
    here = has_weights(atlas.model)
    if here:
        with free_folder(out) as folder:
            run = AtlasRun(atlas, folder, options.store, size, trainer, options.offload, quiet=True)
            try:
                made, held = make_atlas_plan(run), run.weights
            finally:
                run.close()
    else:
        held, processes = outlined(atlas.dtype, atlas.quantize, trainer)
        made = outline_atlas_plan(atlas, held, processes)
    store = str(options.store or f"of {out}")
    show_plan(made, Shown(f"an atlas of {name}", store, size, options.gpu, atlas.model, here, held))


def show(found: Findings, out: Path) -> None:
    """Print what stands out, and where to look."""
    from pagopt.atlas.run import FILES

    console = new_console()
    moved = found.single(MOVED)
    furthest = sorted(moved, key=lambda head: -moved[head].mean)[:6]
    alone = f"{counted(len(moved), 'head')} alone, {counted(len(found.tasks), 'picture')} of each"
    console.print(Text(f"{found.model}: {alone}", "bold"), soft_wrap=True)
    names = ", ".join(f"{head} {moved[head].mean:.3f}" for head in furthest)
    console.print(Text(f"the pictures move furthest (0 to 1) with {names}"), soft_wrap=True)
    console.print()
    table = Table(box=None, pad_edge=False)
    table.add_column("measure")
    table.add_column("without", justify="right")
    for column in ("lowered most by", "raised most by", *(["certain"] if found.tested else [])):
        table.add_column(column, justify="right")
    certain = found.certain()
    for measure, low, high in extremes(found):
        row = found.single(measure)
        does = [(low, row[low].mean < 0), (high, row[high].mean > 0)]
        cells = [f"{head} {change(found, measure, str(head))}" if moves else "none" for head, moves in does]
        cells += [str(len(certain[measure]))] if found.tested else []
        table.add_row(measure, f"{found.means[measure]:.3g}", *cells)
    console.print(table)
    words = f"certain: heads that change it (paired t-tests over prompts, p < {LEVEL:g} for all of them together)"
    lacking = "one picture of each shows no more than that one: give more prompts to test"
    console.print(words if found.tested else lacking, style="dim", highlight=False, soft_wrap=True)
    console.print()
    for what, file in FILES.items():
        console.print(f"{what:10}{out / file}", highlight=False, soft_wrap=True)
    drawn = f"{counted(found.images_generated, 'new image')} in {found.seconds:.0f} s"
    console.print(f"{'drawn':10}{drawn}", highlight=False)
