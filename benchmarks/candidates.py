"""How fast candidates are drawn: many recipes of one random head each, on the same prompts and seeds.

Against the loop that a user would write today (`by_hand.py`), diffusers' own pipeline for perturbed-attention guidance
(SD3 only; it perturbs the head's whole layer), and unguided images in the same batch size. With --compile pagopt and
the unguided images are measured with compiled blocks too; the loop and diffusers' pipeline change attention processors
for every candidate, which would compile again each time, so they are not compiled.

    python -m benchmarks.candidates --model emoji --candidates 64 --batch 16
"""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from diffusers import StableDiffusion3PAGPipeline
from diffusers.models.attention_processor import PAGCFGJointAttnProcessor2_0, PAGJointAttnProcessor2_0

from benchmarks.by_hand import by_hand
from benchmarks.common import Model, options_of, tasks, twin
from benchmarks.report import Report, ratio, take_turns
from pagopt.models.weights import torchao_config
from pagopt.recipe import Recipe
from pagopt.render import Task

Jobs = Sequence[tuple[Recipe, Task]]
LOOP = "the user's loop"
PAG = "diffusers' PAG pipeline"


def add(parser: Any) -> None:
    """Options of this benchmark alone."""
    parser.add_argument("--candidates", type=int, default=64)
    parser.add_argument("--tasks", type=int, default=1, help="prompts and seeds that all candidates share")
    parser.add_argument("--subset", type=int, default=8, help="candidates that the one-by-one variants draw")
    parser.add_argument("--only", default="", help="a regular expression: which variants, beside the loop and unguided")
    parser.add_argument("--fp8", action="store_true", help="pagopt with float8 weights and activations too (torchao)")


def draw_batches(model: Model, pipe: Any, jobs: Jobs, batch: int) -> int:
    """Pagopt: several candidates a batch, task by task; counts block evaluations."""
    model.forget_prompts()
    evaluations = 0
    for start in range(0, len(jobs), batch):
        recipes, shared = zip(*jobs[start : start + batch], strict=True)
        evaluations += model.draw(recipes, shared, pipe)
    return evaluations


def prompt_arguments(model: Model, task: Task) -> dict[str, Any]:
    """The prompt itself where there are text encoders, so that every call encodes it."""
    if model.bare:
        return model.encoded(task.prompt)
    longest = getattr(model.pipe, "tokenizer_3", model.pipe.tokenizer_2).model_max_length
    return {"prompt": task.prompt, "max_sequence_length": longest}


def draw_by_hand(model: Model, pipe: Any, jobs: Jobs) -> Any:
    """The user's loop; the last image or latents."""
    blocks, image = model.family.blocks(pipe.transformer), None
    for recipe, task in jobs:
        with by_hand(pipe, blocks, recipe.heads[0], recipe.scale):
            image = model.call(pipe, prompt_arguments(model, task), [task])
    return image


def draw_by_pag(model: Model, pipe: Any, jobs: Jobs) -> None:
    """diffusers' perturbed-attention guidance, on the layer of each candidate's head."""
    joint = PAGCFGJointAttnProcessor2_0(), PAGJointAttnProcessor2_0()
    for recipe, task in jobs:
        layer = re.escape(f"transformer_blocks.{recipe.heads[0].block}.attn") + "$"
        pipe.set_pag_applied_layers(layer, pag_attn_processors=joint)
        model.call(pipe, {**prompt_arguments(model, task), "pag_scale": recipe.scale}, [task])


def float8(pipe: Any) -> Any:
    """A twin whose linear layers compute in float8."""
    try:
        torchao: Any = importlib.import_module("torchao.quantization")
    except ImportError as error:
        raise SystemExit(f"--fp8 needs torchao, which cannot be imported: {error}") from error
    if not torch.cuda.is_available() or torch.cuda.get_device_capability() < (8, 9):
        raise SystemExit("--fp8 needs a GPU that multiplies in float8: compute capability 8.9 or more")
    other = twin(pipe)
    torchao.quantize_(other.transformer, torchao_config("float8_dynamic"))
    return other


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print."""
    options = options_of(__doc__, argv, add)
    model = Model(options)
    recipes = model.random_recipes(options.candidates)
    jobs = [(recipe, task) for task in tasks(options.tasks) for recipe in recipes]
    few = jobs[: options.subset]
    variants: dict[str, tuple[Callable[[Jobs], Any], Jobs]] = {}
    evaluations = {LOOP: 2.0, PAG: 2.0}

    def unguided(name: str, pipe: Any) -> None:
        own = tasks(options.batch)
        variants[f"unguided{name}"] = (lambda some: model.draw(None, own, pipe), [(recipes[0], task) for task in own])
        evaluations[f"unguided{name}"] = 1.0

    def batched(name: str, make: Callable[[], Any]) -> None:
        if not re.search(options.only, f"pagopt{name}"):
            return
        pipe = make()

        def draw(some: Jobs) -> None:
            counted = draw_batches(model, pipe, some, options.batch)
            evaluations[f"pagopt{name}"] = counted / (model.blocks * model.steps * len(some))

        variants[f"pagopt{name}"] = (draw, jobs)
        unguided(name, pipe)

    unguided("", model.pipe)
    batched("", lambda: model.pipe)
    variants[LOOP] = (partial(draw_by_hand, model, twin(model.pipe)), few)
    if model.family.name == "sd3" and re.search(options.only, PAG):
        variants[PAG] = (partial(draw_by_pag, model, twin(model.pipe, StableDiffusion3PAGPipeline)), few)
    if options.compile:
        batched(", compiled", lambda: model.compile(options))
    if options.fp8:
        ending = ", compiled" if options.compile else ""
        quantize = partial(float8, model.pipe)
        batched(f", float8_dynamic{ending}", lambda: model.compile(options, quantize()) if ending else quantize())
    model.steps = 2
    for name, (work, own) in variants.items():  # a warm-up: one batch, or one image of those that draw one by one
        work(jobs[-options.batch :] if name.startswith("pagopt") else own[:1])
    model.steps = options.steps
    times = take_turns({name: partial(work, own) for name, (work, own) in variants.items()}, options)
    each = {name: [time / len(variants[name][1]) for time in found] for name, found in times.items()}
    rows = [
        {
            "variant": name,
            "images measured": len(variants[name][1]),
            "block evaluations, x unguided": evaluations[name],
            "images a second": 1 / ratio(each[name], [1.0] * len(each[name])),
            "x the loop's rate": ratio(each[LOOP], each[name]),
            "x unguided's time": ratio(each[name], each["unguided"]),
        }
        for name in variants
    ]
    report = Report(f"Candidates, {model.name}", options)
    report.table(f"{options.candidates} candidates of one random head each, {len(each[LOOP])} rounds", rows)
    report.notes.append("One head from each of as many equal parts of the model, in random order.")
    report.notes.append(
        f"The loop and diffusers' pipeline draw {len(few)} of the {len(jobs)} images, one by one, and their time an "
        "image stands for all; neither is compiled."
    )
    report.notes.append("The loop evaluates [plain, perturbed] in one batch of 2 rows, one explicit map in one head.")
    if model.family.name == "sd3":
        report.notes.append("diffusers' pipeline perturbs all heads of the layer, and draws other images.")
    report.finish()
    return 0


if __name__ == "__main__":
    sys.exit(main())
