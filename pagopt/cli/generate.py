"""``pagopt generate``: draw an image with a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser
from rich.text import Text

from pagopt.cli.parsing import add_offload, new_parser
from pagopt.cli.printing import new_console
from pagopt.errors import StudyError
from pagopt.files import write_png
from pagopt.models import Weights, is_own_model
from pagopt.own_code import refusal
from pagopt.recipe import PLAIN, Provenance, Recipe, load_recipe
from pagopt.reward.hardware import usable_device
from pagopt.room import check_offload
from pagopt.task import Job, Task

if TYPE_CHECKING:
    from pagopt.render import Renderer

__all__ = ["main", "parser"]

DESCRIPTION = """Draw an image with a recipe; without one, draw it as the model alone would.

examples:
  pagopt generate --recipe runs/flat/recipe.json --prompt "flat, red apple" --seed 3 --out apple.png --compare
  pagopt generate --recipe runs/flat/recipe.json --prompt "flat, red apple" --scale 1 --out gentle.png
"""
# Small pictures are shown larger when they stand side by side.
SMALLEST_SIDE = 256


def parser() -> ArgumentParser:
    """All options."""
    command = new_parser("pagopt generate", "--prompt PROMPT --out OUT [options]", DESCRIPTION)
    command.add_argument("--recipe", type=Path | None, help="Recipe file, as `pagopt search` writes it.")
    command.add_argument("--prompt", type=str, required=True, help="What to draw.")
    command.add_argument("--seed", type=int, default=0, help="Seed of the initial noise.")
    command.add_argument("--out", type=Path, required=True, help="PNG file to write.")
    command.add_argument("--compare", action="store_true", help="Put the unguided image beside it.")
    command.add_argument("--model", type=str | None, help="Another model than the recipe's own.")
    command.add_argument("--steps", type=int | None, help="Inference steps. Default: as the recipe was found.")
    command.add_argument("--height", type=int | None, help="Pixels. Default: as the model likes it.")
    command.add_argument("--width", type=int | None, help="Pixels. Default: as the model likes it.")
    command.add_argument("--strength", type=float | None, help="Another strength u in [0, 1], for all heads.")
    command.add_argument("--scale", type=float | None, help="Another guidance scale w.")
    command.add_argument("--cfg", type=float | None, help="Another classifier-free guidance scale g; 1 is off.")
    command.add_argument("--distilled_guidance", type=float | None, help="Guidance scale of a distilled model (FLUX).")
    command.add_argument("--device", type=str | None, help="Such as cuda or cpu. Default: cuda where there is one.")
    found = "Default: as the recipe was found."
    command.add_argument("--dtype", type=str | None, help=f"float32, bfloat16 or float16. {found}")
    command.add_argument("--quantize", type=str | None, help=f"int8, float8, float8_dynamic or none. {found}")
    add_offload(command)
    return command


def main(words: list[str]) -> None:
    """Draw what ``words`` ask for."""
    options = parser().parse_args(words)
    if not options.prompt.strip():
        raise StudyError("the prompt is empty")
    if options.out.suffix.lower() != ".png":
        raise StudyError(f"--out must be a PNG file, not {options.out}")
    if options.recipe is None:
        lost = [name for name in ("strength", "scale") if getattr(options, name) is not None]
        if options.compare or lost:
            asked = " and ".join(f"--{name}" for name in [*lost, *(["compare"] if options.compare else [])])
            raise StudyError(f"{asked} need a recipe that they can turn or compare: give --recipe FILE")
    recipe, provenance = load_recipe(options.recipe) if options.recipe else (Recipe(), None)
    given = {name: getattr(options, name) for name in ("strength", "scale", "cfg")}
    recipe = recipe.replace(**{name: value for name, value in given.items() if value is not None})
    try:
        device = usable_device(options.device)
    except ValueError as error:
        raise StudyError(f"--device: {error}") from error
    check_offload(options.offload, device)
    from pagopt.models import load_model
    from pagopt.render import Renderer
    from pagopt.report import draw_sheet

    name = model(options.model, options.recipe, provenance)
    pipe, _ = load_model(name, *weights(name, options.dtype, options.quantize, provenance))
    renderer = Renderer(
        pipe,
        steps(options.steps, provenance),
        options.height,
        options.width,
        options.distilled_guidance,
        offload=options.offload,
    )
    warn_if_other_model(renderer, provenance)
    renderer.place(device)
    task = Task(options.prompt, options.seed)
    unguided = PLAIN
    recipes = [unguided, recipe] if options.compare else [recipe]
    images = renderer.render([Job(each, task) for each in recipes])
    titles = ["no guidance", "with the recipe"]
    side = max(SMALLEST_SIDE, *images[0].size)
    picture = draw_sheet([images], [""], titles, side) if options.compare else images[0]
    try:
        write_png(options.out, picture)
    except OSError as error:
        raise StudyError(f"cannot write {options.out}: {error.strerror}") from error
    print(options.out)


def steps(given: int | None, provenance: Provenance | None) -> int:
    """The number of steps: as asked for, or as the recipe was found, or the embedded model's."""
    if given is not None:
        return given
    return int(provenance.evidence.get("steps", 28)) if provenance else 28


def model(given: str | None, recipe: Path | None, provenance: Provenance | None) -> str:
    """The name of the model: as asked for, or that of the recipe, or the embedded one's."""
    if given is None and provenance is not None and is_own_model(provenance.model):
        raise refusal(f"{recipe} was found on the model of", provenance.model, "--model")
    return given or (provenance.model if provenance else "emoji")


def weights(
    name: str, dtype: str | None, quantize: str | None, provenance: Provenance | None
) -> tuple[str | None, str | None]:
    """How to hold its weights, and quantise them: as asked for, or as the recipe was found, or as it comes."""
    if provenance is not None and not is_own_model(name):
        found = Weights.of(provenance)
        dtype, quantize = dtype or found.dtype, quantize or found.quantize
    return dtype, None if quantize == "none" else quantize


def warn_if_other_model(renderer: Renderer, provenance: Provenance | None) -> None:
    """Say so when the recipe was found on other weights, where its heads may mean something else."""
    if provenance is not None and renderer.fingerprint != provenance.fingerprint:
        note = f"the recipe was found on other weights, or in another dtype, than these ({provenance.model})"
        new_console(stderr=True).print(Text("note: ", "yellow") + Text(f"{note}; its heads may do other things here"))
