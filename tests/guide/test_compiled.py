"""Compiled blocks: the same predictions, no graph breaks, and no recompilation when recipes change."""

from __future__ import annotations

import copy
import random
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
import torch.nn.functional as F
from peft import LoraConfig
from tiny_sd3 import noise, run
from torch._dynamo.utils import counters

from pagopt import targets
from pagopt.compiled import compile_blocks, compiled_block, uncompile_blocks
from pagopt.errors import GuidanceError
from pagopt.guide import guided
from pagopt.models import family_of
from pagopt.recipe import Recipe
from pagopt.traced import product_and_gelu

PROMPTS = ["red apple", "b", "ink, cat", "house"]


@pytest.fixture
def fresh():
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


def random_recipe(heads, draw, target="identity"):
    chosen = draw.sample(heads, draw.randint(1, 3))
    return Recipe(chosen, strength=[draw.uniform(0.2, 1) for _ in chosen], scale=draw.uniform(0.5, 4), target=target)


def draw_latents(pipe, recipes, g):
    with guided(pipe, recipes):
        return run(pipe, PROMPTS[: len(recipes)], steps=2, g=g, latents=noise(len(recipes)))


def close(got, want):
    return ((got - want).norm() / want.norm()).item() < 1e-10


@pytest.mark.parametrize("variant", ["sd3", "dual"])
def test_equal_to_uncompiled_and_never_compiled_again(pipelines, variant, fresh):
    """Fifty recipes in batches of two to four, with and without CFG, after a warm-up that sees every kind of block."""
    stock, own = pipelines[variant], copy.deepcopy(pipelines[variant])
    heads, draw = list(family_of(own).head_map(own.transformer)), random.Random(0)
    plans = [
        ([random_recipe(heads, draw) for _ in range(draw.randint(2, 4))], draw.choice([1.0, 3.0])) for _ in range(50)
    ]
    want = [draw_latents(stock, recipes, g) for recipes, g in plans]
    compile_blocks(own, backend="aot_eager", fullgraph=True)
    for g in (1.0, 3.0):  # each block with perturbation, and without
        for block in range(3):
            draw_latents(own, [Recipe(f"L{block}.H0"), Recipe(f"L{block}.H1", scale=1.0)], g)
    graphs = counters["stats"]["unique_graphs"]
    for (recipes, g), expected in zip(plans, want, strict=True):
        assert close(draw_latents(own, recipes, g), expected)
    assert counters["stats"]["unique_graphs"] == graphs
    assert not counters["graph_break"]


def test_targets_that_need_maps_run_uncompiled(pipe, fresh):
    own, draw = copy.deepcopy(pipe), random.Random(1)
    heads = list(family_of(own).head_map(own.transformer))
    compile_blocks(own, backend="aot_eager", fullgraph=True)
    for names in (["uniform", "image_identity"], ["blur", "identity"], ["row_maximum", "temperature"]):
        recipes = [random_recipe(heads, draw, name) for name in names]
        assert close(draw_latents(own, recipes, 2.0), draw_latents(pipe, recipes, 2.0))


def test_a_target_of_ones_own_runs_uncompiled(pipe, fresh, monkeypatch):
    """It may ask for what the graph does not know, such as which tokens are the image's."""
    monkeypatch.setattr(targets, "_TARGETS", dict(targets._TARGETS))

    @targets.register_target
    @dataclass(frozen=True)
    class FirstPixel(targets.Target):
        name: ClassVar[str] = "first_pixel"
        needs_queries: ClassVar[bool] = False

        def values(self, view, rows):
            return view.v[:, view.image][:, :1].expand(-1, rows.stop - rows.start, -1)

    own = copy.deepcopy(pipe)
    compile_blocks(own, backend="eager")
    recipes = [Recipe("L1.H0", target="first_pixel"), Recipe("L1.H1 L2.H0", strength=0.4)]
    assert close(draw_latents(own, recipes, 2.0), draw_latents(pipe, recipes, 2.0))


def test_everything_is_put_back(pipe, fresh):
    own = copy.deepcopy(pipe)
    before = {name: (type(m), sorted(m.__dict__)) for name, m in own.transformer.named_modules()}
    compile_blocks(own, backend="eager")
    assert compiled_block(own.transformer.transformer_blocks[0]) is not None
    assert list(own.transformer.state_dict()) == list(pipe.transformer.state_dict())
    draw_latents(own, [Recipe("L1.H0")], 1.0)
    with pytest.raises(GuidanceError, match="compiled already"):
        compile_blocks(own)
    uncompile_blocks(own)
    after = {name: (type(m), sorted(m.__dict__)) for name, m in own.transformer.named_modules()}
    assert after == before
    assert torch.equal(draw_latents(own, [Recipe("L1.H0")], 1.0), draw_latents(pipe, [Recipe("L1.H0")], 1.0))
    uncompile_blocks(own)  # nothing to undo


def test_what_comes_between(pipe, fresh):
    """Layers and forwards that other code puts in place of ours, after or before: never a wrong picture."""
    own = copy.deepcopy(pipe)
    with guided(own, Recipe("L1.H0")):
        run(own, ["a"])
        with pytest.raises(GuidanceError, match="call compile_blocks before the `with` block"):
            compile_blocks(own, backend="eager")
    compile_blocks(own, backend="eager")
    with guided(own, Recipe("L1.H0")):
        run(own, ["a"])
        with pytest.raises(GuidanceError, match="call uncompile_blocks after"):
            uncompile_blocks(own)
    with pytest.raises(GuidanceError, match="cannot be copied: call uncompile_blocks"):
        copy.deepcopy(own)
    own.transformer.add_adapter(LoraConfig(r=2, target_modules=["to_v"]))
    own.transformer.double()
    with pytest.raises(GuidanceError, match="do that before compile_blocks"):
        draw_latents(own, [Recipe("L1.H0")], 1.0)
    uncompile_blocks(own)
    compile_blocks(own, backend="eager")
    draw_latents(own, [Recipe("L1.H0")], 1.0)


@pytest.mark.parametrize("kind", ["block_level", "leaf_level"])
def test_group_offloading(pipe, fresh, kind):
    """It wraps forwards, and what is wrapped must stay, or the weights of a block are no longer fetched."""
    own, cpu = copy.deepcopy(pipe), torch.device("cpu")
    options = {"num_blocks_per_group": 1} if kind == "block_level" else {}
    offload = {"onload_device": cpu, "offload_device": cpu, "offload_type": kind, **options}
    want = draw_latents(pipe, [Recipe("L1.H0 L2.H1")], 2.0)
    compile_blocks(own, backend="eager")
    own.transformer.enable_group_offload(**offload)
    assert close(draw_latents(own, [Recipe("L1.H0 L2.H1")], 2.0), want)
    with pytest.raises(GuidanceError, match="take that away before uncompile_blocks"):
        uncompile_blocks(own)
    assert close(draw_latents(own, [Recipe("L1.H0 L2.H1")], 2.0), want)
    first = copy.deepcopy(pipe)
    first.transformer.enable_group_offload(**offload)
    assert close(draw_latents(first, [Recipe("L1.H0 L2.H1")], 2.0), want)
    with pytest.raises(GuidanceError, match="wrapped by other code"):
        compile_blocks(first, backend="eager")


def test_an_exception_leaves_no_strengths_behind(pipe, fresh):
    own = copy.deepcopy(pipe)
    compile_blocks(own, backend="eager")

    def fail(module, args, kwargs):
        raise MemoryError

    handle = own.transformer.transformer_blocks[2].register_forward_pre_hook(fail, with_kwargs=True)
    with pytest.raises(MemoryError), guided(own, Recipe("L0.H0")):
        run(own, ["a"])
    handle.remove()
    assert close(run(own, ["a"]), run(pipe, ["a"]))


def test_a_whole_model_compiled_by_hand_is_refused(pipe):
    own = copy.deepcopy(pipe)
    own.transformer = torch.compile(own.transformer, backend="eager")
    with pytest.raises(GuidanceError, match="compiled already"):
        compile_blocks(own)


@pytest.mark.slow
def test_inductor(pipe, fresh):
    own = copy.deepcopy(pipe)
    compile_blocks(own, fullgraph=True)
    recipes = [Recipe("L1.H0", strength=0.5), Recipe("L0.H0 L2.H1")]
    assert close(draw_latents(own, recipes, 3.0), draw_latents(pipe, recipes, 3.0))


def test_a_product_that_ends_with_its_activation():
    """On a CPU this operator knows another form of GELU, which is near; test_gpu.py draws with it."""
    proj, rows = torch.nn.Linear(24, 40, dtype=torch.bfloat16), torch.randn(2, 5, 24, dtype=torch.bfloat16)
    with torch.no_grad():
        want, found = F.gelu(proj(rows), approximate="tanh"), product_and_gelu(proj, rows)
    assert found.shape == want.shape
    assert ((found - want).norm() / want.norm()).item() < 0.01
