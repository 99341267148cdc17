"""On a GPU: its arithmetic, its memory, networks that stay on it. To run it on one: `benchmarks/gpu.sh check`.

Without one, what has no need of its kernels runs on a pretended GPU.
"""

from __future__ import annotations

import gc
import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.common import noise_of_float32
from pagopt.cli import main
from pagopt.compiled import compile_blocks
from pagopt.errors import ModelError
from pagopt.evaluate import Evaluator, make_trainer
from pagopt.models import load_pipeline
from pagopt.recipe import PLAIN, Recipe, load_recipe
from pagopt.render import Job, Renderer, Task
from pagopt.results import load_results
from pagopt.reward import load_reward
from pagopt.room import OFFLOADS
from pagopt.store import Store
from tests.families.explicit import TARGETS
from tests.tiny_pipelines import MAKERS
from tools.pretended_gpu import COMPILER, pretended_gpu

HAS_GPU = torch.cuda.is_available()
REAL = (pytest.mark.gpu, pytest.mark.skipif(not HAS_GPU, reason="there is no GPU"))
PRETENDED = (pytest.mark.skipif(HAS_GPU or COMPILER is None, reason="there is a GPU, or no C++ compiler"),)
PRETENDED_KINDS = ("pretended cuda", "pretended mps")


def on_gpus(
    names: str = "",
    rows: Sequence[tuple[object, ...]] = ((),),
    quick: Sequence[int] = (0,),
    apple: Sequence[int] = (),
    real_only: Sequence[int] = (),
) -> pytest.MarkDecorator:
    """A test's parameters, on a GPU and on pretended ones.

    Args:
        names: Of the parameters.
        rows: Their values.
        quick: Numbers of the rows that are not slow on a pretended GPU.
        apple: Numbers of the rows for one of Apple's, too.
        real_only: Numbers of the rows that say nothing there: torch.compile lets a pretended GPU be.
    """
    found = [pytest.param("real", *row, marks=REAL) for row in rows]
    for number, row in enumerate(rows):
        if number in real_only:
            continue
        marks = PRETENDED if number in quick else (*PRETENDED, pytest.mark.slow)
        kinds = PRETENDED_KINDS if number in apple else PRETENDED_KINDS[:1]
        found += [pytest.param(kind, *row, marks=marks) for kind in kinds]
    return pytest.mark.parametrize(",".join(("gpu", *names.split())), found, indirect=["gpu"])


DEVICE = torch.device("cuda")
# What torch.compile says of float32 on a GPU that could compute less exactly.
TF32 = pytest.mark.filterwarnings("ignore:TensorFloat32 tensor cores")
RECIPES = (PLAIN, Recipe("L4.H2 L7.H2", scale=2.0), Recipe("L1.H3", strength=0.5, cfg=2.0))
JOBS = [Job(recipe, Task(prompt, 3)) for recipe in RECIPES for prompt in ("flat, red apple", "ink, cat face")]
FAMILIES = [(name,) for name in ("sd3", "flux", *MAKERS)]
GPU = ["--trainer.accelerator", "gpu", "--trainer.devices", "1"]
SMALL = [
    "--heads", "L4.H*", "--rounds", "1", "--heads_per_round", "1", "--steps", "2", "--cfg_scales", "[2.0]",
    "--prompts", "[red apple, house]", "--held_out_prompts", "[key, castle]",
]  # fmt: skip


def away(one: Sequence[Image.Image], other: Sequence[Image.Image]) -> float:
    """The mean difference of a pixel's value, of the picture that differs most."""
    pairs = zip(one, other, strict=True)
    return max(float(np.abs(np.asarray(a, float) - np.asarray(b, float)).mean()) for a, b in pairs)


def renderer(dtype: str = "float32", quantize: str | None = None, offload: str | None = None) -> Renderer:
    made = Renderer(noise_of_float32(load_pipeline("emoji", dtype, quantize)), 8, offload=offload)
    made.place(DEVICE)
    return made


@pytest.fixture(autouse=True)
def gpu(request: pytest.FixtureRequest) -> Iterator[torch.device]:
    kind = str(request.param).rpartition(" ")[2] if request.param != "real" else "cuda"
    with nullcontext() if request.param == "real" else pretended_gpu(kind):
        yield torch.device(kind)


@pytest.fixture
def real(request: pytest.FixtureRequest) -> bool:
    """Whether it is a GPU; a pretended one is slow."""
    return bool(request.node.callspec.params["gpu"] == "real")


@pytest.fixture(scope="module")
def on_cpu() -> list[Image.Image]:
    return Renderer(load_pipeline("emoji"), 8).render(JOBS)


@pytest.fixture
def leave() -> Iterator[Callable[[int], None]]:
    """Leaves no more memory than what is in use, and so many bytes."""

    def leave_only(more: int) -> None:
        gc.collect()
        torch.cuda.empty_cache()
        whole = torch.cuda.get_device_properties(DEVICE).total_memory
        torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved(DEVICE) + more) / whole)

    yield leave_only
    torch.cuda.set_per_process_memory_fraction(1.0)


@on_gpus("dtype limit", [("float32", 0.5), ("float16", 1.0), ("bfloat16", 3.0)])
def test_it_draws_what_the_cpu_draws(on_cpu: list[Image.Image], real: bool, dtype: str, limit: float) -> None:
    few = slice(None if real else 3)
    assert away(renderer(dtype).render(JOBS[few]), on_cpu[few]) < limit


@on_gpus("family", FAMILIES, quick=range(len(FAMILIES)), apple=range(len(FAMILIES)))
def test_every_family_and_target(
    gpu: torch.device, real: bool, family: str, tiny_model: Path, tiny_flux: Path, tmp_path: Path
) -> None:
    folder = {"sd3": tiny_model, "flux": tiny_flux}.get(family, tmp_path / family)
    if family in MAKERS:
        MAKERS[family]().save_pretrained(folder)
    pipe = load_pipeline(str(folder))
    recipes = [PLAIN, Recipe("L0.H0 L1.H1", path="fisher_rao", strength=0.6)]
    recipes += [
        Recipe("L0.H0 L1.H1", strength=0.6, target=name, target_options=dict(o)) for name, o in TARGETS.values()
    ]
    if family != "flux2":  # no classifier-free guidance
        recipes.append(Recipe("L1.H0", cfg=2.0))
    jobs = [Job(recipe, Task(prompt, 3)) for recipe in recipes for prompt in ("cat", "a small house")[: 1 + real]]
    want = Renderer(pipe, 1, 16, 16).render(jobs)
    made = Renderer(pipe, 1, 16, 16)
    made.place(gpu)
    assert away(made.render(jobs), want) < 1


@on_gpus("quantize", [("int8",), ("float8",), ("float8_dynamic",)], real_only=(2,))
def test_quantised_weights(on_cpu: list[Image.Image], real: bool, quantize: str) -> None:
    if quantize == "float8_dynamic" and torch.cuda.get_device_capability() < (8, 9):
        pytest.skip("this GPU does not compute in eight bits")
    few, dtype = slice(None if real else 2), "bfloat16" if real else "float32"
    made = renderer(dtype, quantize)
    together = made.render(JOBS[few])
    assert 0 < away(together, on_cpu[few]) < 12
    assert away(made.render(JOBS[:1]), together[:1]) < 2, "alone as with others"


@on_gpus("quantize offload", list(product((None, "int8"), OFFLOADS)), quick=())
def test_offloaded_networks(quantize: str | None, offload: str) -> None:
    want = renderer(quantize=quantize).render(JOBS)
    gc.collect()
    torch.cuda.empty_cache()
    made = renderer(quantize=quantize, offload=offload)
    before = torch.cuda.memory_allocated(DEVICE)
    with torch.inference_mode():  # as in Lightning's loops
        assert away(made.render(JOBS), want) < 0.5
        assert away(made.at_steps(8).render(JOBS), want) < 0.5
    gc.collect()
    assert torch.cuda.memory_allocated(DEVICE) - before < 8 * 2**20, "the transformer is still there"


@on_gpus("quantize", [(None,), ("int8",)], quick=(1,))
def test_networks_and_rewards_stay_on_it_between_the_loops(quantize: str | None, real: bool, tmp_path: Path) -> None:
    rewards = {name: load_reward(name) for name in ("clip", "colorfulness")}
    made = Renderer(load_pipeline("emoji", "bfloat16" if real else "float32", quantize), 2)
    with Store(tmp_path / "store") as store:
        evaluator = Evaluator(made, rewards, store, make_trainer(accelerator="gpu", devices=1), 4)
        for recipes in (RECIPES[:2], RECIPES):
            evaluator(recipes, [job.task for job in JOBS[:2]])
            for name, module in made.modules().items():
                assert {parameter.device.type for parameter in module.parameters()} == {"cuda"}, name


@on_gpus(quick=())
def test_a_batch_that_does_not_fit_is_halved(leave: Callable[[int], None]) -> None:
    made = renderer()
    jobs = [Job(recipe, Task("flat, red apple", seed)) for seed in range(128) for recipe in RECIPES[:2]]
    want = made.render(jobs)
    leave(48 * 2**20)
    with pytest.warns(UserWarning, match="do not fit into the GPU's memory: going on with"):
        found = made.render(jobs)
    assert away(found, want) < 0.5


@on_gpus()
def test_a_picture_that_does_not_fit_is_an_error(leave: Callable[[int], None]) -> None:
    made = renderer()
    leave(0)
    with pytest.raises(ModelError, match="does not fit into the GPU's memory: take a smaller size"):
        made.render(JOBS[:1])


@TF32
@on_gpus("dtype limit", [("float32", 0.5), ("bfloat16", 3.0)], real_only=(0, 1))
def test_compiled_blocks(on_cpu: list[Image.Image], dtype: str, limit: float) -> None:
    made = renderer(dtype)
    compile_blocks(made.pipe)
    assert away(made.render(JOBS), on_cpu) < limit


@TF32
@on_gpus(
    "words",
    [
        ("",),
        ("--dtype bfloat16 --quantize int8 --offload model",),
        ("--dtype bfloat16 --quantize int8",),
        ("--dtype bfloat16 --offload model",),
        ("--offload sequential",),
        ("--quantize int8 --offload sequential",),
        ("--trainer.precision 16-true",),
        ("--trainer.precision bf16-mixed",),
        ("--compile true",),
        ("--search racing --search_options '{cheap: 0.5}' --offload model",),
    ],
    apple=(0, 7),
    real_only=(8,),
)
def test_a_search_and_what_comes_after_it(words: str, tmp_path: Path) -> None:
    out = tmp_path / "run"
    study = ["flat", "--reward", "clip", *SMALL, *GPU, *shlex.split(words)]
    assert main(["search", *study, "--out", str(out)]) == 0
    first = load_results(out / "results.json")
    assert main(["search", *study, "--out", str(tmp_path / "again"), "--store", str(out / "store")]) == 0
    assert load_results(tmp_path / "again" / "results.json").images_generated == 0
    assert load_recipe(out / "recipe.json")[0] == first.recipe
    picture = tmp_path / "apple.png"
    assert main(["generate", "--recipe", str(out / "recipe.json"), "--prompt", "flat, key", "--out", str(picture)]) == 0
    assert len(Image.open(picture).getcolors(2**16) or []) > 10
