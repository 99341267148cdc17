"""What the form of the weights does to pictures, memory and time, on the embedded model.

Every form (dtype, quantisation) draws the same tasks, without guidance and with two heads. Each picture is compared
with that of float32 from the same noise, by the mean difference of a pixel's value out of 255.

    python -m benchmarks.weights --steps 12 --rounds 3

With --float8-anywhere, float8_dynamic is computed where no GPU can do it, too: its pictures mean something then, and
its time does not.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.common import noise_of_float32, options_of
from benchmarks.report import Report, ratio, take_turns
from pagopt.models import Weights, load_pipeline
from pagopt.models.weights import bytes_of
from pagopt.recipe import PLAIN, Recipe
from pagopt.render import Job, Renderer, Task
from tools.float8 import float8_anywhere

FORMS = (
    Weights(),
    Weights("float16"),
    Weights("bfloat16"),
    Weights("bfloat16", "int8"),
    Weights("bfloat16", "float8"),
    Weights("bfloat16", "float8_dynamic"),
)
CONTENTS = ("red apple", "sailboat", "cat face", "castle")
RECIPES = {"no guidance": PLAIN, "two heads": Recipe("L4.H2 L7.H2", scale=3.0)}


def add(parser: Any) -> None:
    """Options of this benchmark alone."""
    parser.add_argument("--float8-anywhere", action="store_true", help="float8_dynamic on a CPU, very slowly")
    parser.add_argument("--contents", type=int, default=len(CONTENTS), help="pictures of each of the three styles")
    parser.add_argument("--forms", nargs="+", choices=list(map(str, FORMS)), default=[str(form) for form in FORMS[:5]])


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print."""
    options = options_of(__doc__, argv, add)
    if options.model != "emoji":
        raise SystemExit("random weights draw no pictures that could be compared: --model emoji")
    with float8_anywhere() if options.float8_anywhere else nullcontext():
        return measure(options)


def measure(options: Any) -> int:
    """Draw in every form, and print the table."""
    jobs = {
        name: [Job(recipe, Task(f"{style}, {content}", seed)) for style in ("flat", "glossy", "ink")
               for seed, content in enumerate(CONTENTS[: options.contents])]
        for name, recipe in RECIPES.items()
    }  # fmt: skip
    chosen = [form for form in FORMS if form == Weights() or str(form) in options.forms]
    pipes = {form: noise_of_float32(load_pipeline("emoji", form.dtype, form.quantize)) for form in chosen}
    renderers = {form: Renderer(pipe.to(options.device), options.steps) for form, pipe in pipes.items()}
    pictures: dict[Weights, dict[str, NDArray[np.float64]]] = {
        form: {
            name: np.stack([np.asarray(image, float) for image in renderer.render(each)]) for name, each in jobs.items()
        }
        for form, renderer in renderers.items()
    }
    times = take_turns(
        {str(form): (lambda r=renderer: r.render(jobs["two heads"])) for form, renderer in renderers.items()},  # type: ignore[misc]
        options,
    )
    whole = Weights()
    rows = []
    for form, renderer in renderers.items():
        away = {
            name: np.abs(drawn - pictures[whole][name]).mean(axis=(1, 2, 3)) for name, drawn in pictures[form].items()
        }
        rows.append(
            {
                "weights": str(form),
                "transformer MB": bytes_of(renderer.pipe.transformer) / 1e6,
                **{f"difference, {name}": float(found.mean()) for name, found in away.items()},
                "largest of a picture": float(max(found.max() for found in away.values())),
                "x the time of float32": ratio(times[str(form)], times[str(whole)]),
            }
        )
    report = Report("Weights, emoji", options)
    report.table(f"{len(jobs['two heads'])} pictures of each kind", rows)
    report.finish()
    return 0


if __name__ == "__main__":
    sys.exit(main())
