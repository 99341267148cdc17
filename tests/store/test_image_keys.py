"""Whatever changes an image changes its key, and nothing else does."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import pytest
import torch
from diffusers import DPMSolverMultistepScheduler, FlowMatchEulerDiscreteScheduler
from packaging.version import Version

from pagopt import render, targets
from pagopt.device import half_has_noise_of_its_own
from pagopt.evaluate import Evaluator, Generation, make_trainer
from pagopt.models import load_pipeline
from pagopt.models.fingerprints import major_version
from pagopt.recipe import Recipe
from pagopt.render import Job, Renderer, Task
from pagopt.reward import load_reward
from pagopt.store import Store
from pagopt.targets import register_target
from pagopt.targets.identity import Identity

RECIPE = Recipe("L1.H0 L2.H1", strength=0.5, scale=2.0, cfg=1.0)
JOB = Job(RECIPE, Task("red apple", 3))


def key(store: Store, job: Job = JOB, change: Callable[[Any], object] = id, model: str = "", **settings: Any) -> str:
    """The key of a job with a pipeline that was changed."""
    pipe = load_pipeline(model)
    change(pipe)
    return Generation(Renderer(pipe, **{"steps": 2, **settings}), {}, store).key(job)


@pytest.fixture
def named(store: Store, tiny_model: Path) -> Callable[..., str]:
    return lambda *rest, **named: key(store, *rest, **{"model": str(tiny_model), **named})


@pytest.fixture
def plain(store: Store, shared: Renderer) -> Generation:
    return Generation(shared, {}, store)


@pytest.fixture(scope="module")
def shared(tiny_model: Path) -> Renderer:
    """One that no test changes."""
    return Renderer(load_pipeline(str(tiny_model)), steps=2)


def test_recipe_prompt_and_seed(named: Callable[..., str], plain: Generation) -> None:
    generation = plain
    jobs = [JOB, Job(RECIPE, Task("red apple", 4)), Job(RECIPE, Task("red apples", 3))]
    changes: list[dict[str, Any]] = [
        {"heads": "L1.H0"}, {"heads": "L1.H0 L2.H1", "strength": (0.5, 0.6)}, {"scale": 2.5}, {"cfg": 2.0},
        {"interval": (0.0, 0.5)}, {"target": "uniform"}, {"scale": 0.0},
    ]  # fmt: skip
    jobs += [Job(RECIPE.replace(**change), JOB.task) for change in changes]
    assert len({generation.key(job) for job in jobs}) == len(jobs)
    assert generation.key(JOB) == named() == generation.key(Job(RECIPE.replace(cfg=None), JOB.task))


def tiled(pipe: Any, **sizes: Any) -> None:
    pipe.vae.enable_tiling()
    for name, value in sizes.items():
        assert getattr(pipe.vae, name) != value
        setattr(pipe.vae, name, value)


def test_settings_of_the_renderer(named: Callable[..., str], store: Store, tiny_model: Path) -> None:
    keys = [named(**change) for change in ({}, {"steps": 3}, {"height": 8}, {"width": 8})]
    keys.append(Generation(Renderer(load_pipeline(str(tiny_model)), steps=2), {}, store, "bf16-true").key(JOB))
    keys.append(named(change=lambda pipe: pipe.to(torch.bfloat16)))
    keys += [named(change=tiled), named(change=lambda pipe: tiled(pipe, tile_sample_min_size=4))]
    keys.append(named(change=lambda pipe: tiled(pipe, tile_overlap_factor=0.5)))
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize("own", [False, True])
def test_noise_of_half_precision(named: Callable[..., str], monkeypatch: pytest.MonkeyPatch, own: bool) -> None:
    def change(pipe: Any) -> None:
        pipe.to(torch.bfloat16)

    here = half_has_noise_of_its_own()
    full, half = named(), named(change=change)
    monkeypatch.setattr("pagopt.evaluate.generation.half_has_noise_of_its_own", lambda: own)
    assert named() == full
    assert (named(change=change) == half) == (own == here)


def test_the_noise_of_a_seed_is_that_of_every_precision_since_torch_2_12() -> None:
    assert half_has_noise_of_its_own() == (Version(torch.__version__) < Version("2.12.0a0"))


def test_weights(named: Callable[..., str]) -> None:
    def tune(pipe: Any) -> None:
        next(pipe.transformer.parameters()).data.mul_(1.5)

    assert named(change=tune) != named()


def test_weights_that_change_after_the_renderer_was_made(store: Store, tiny_model: Path) -> None:
    renderer = Renderer(load_pipeline(str(tiny_model)), steps=2)
    plain, task = [Recipe(scale=0.0, cfg=1.0)], [Task("flat, sun", 0)]

    def scored() -> tuple[float, str]:
        evaluate = Evaluator(renderer, {"light": load_reward("brightness")}, store, make_trainer(accelerator="cpu"))
        return float(evaluate(plain, task)["light"][0, 0]), evaluate.keys(plain, task)[0][0]

    before = scored()
    assert scored() == before
    for part in (renderer.pipe.vae.decoder, renderer.pipe.text_encoder):
        kept = copy.deepcopy(part.state_dict())
        for parameter in part.parameters():
            parameter.data.mul_(1.2)
        after = scored()
        assert after[0] != before[0]
        assert after[1] != before[1]
        part.load_state_dict(kept)
        assert scored() == before


@pytest.mark.parametrize("when", ["before", "after"])
def test_the_scheduler_counts_also_when_it_is_exchanged_later(store: Store, tiny_model: Path, when: str) -> None:
    shift, solver = FlowMatchEulerDiscreteScheduler(shift=2.5), DPMSolverMultistepScheduler(use_flow_sigmas=True)
    keys = set()
    for scheduler in (None, shift, solver):
        pipe = load_pipeline(str(tiny_model))
        if when == "before" and scheduler is not None:
            pipe.scheduler = scheduler
        generation = Generation(Renderer(pipe, steps=2), {}, store)
        generation.key(JOB)  # the fingerprint is taken
        if when == "after" and scheduler is not None:
            pipe.scheduler = scheduler
        keys.add(generation.key(JOB))
    assert len(keys) == 3
    pipe = load_pipeline(str(tiny_model))
    name = render.scheduler_name(pipe.scheduler)
    pipe.scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config)
    assert render.scheduler_name(pipe.scheduler) == name
    assert name.startswith("FlowMatchEulerDiscreteScheduler@")


@pytest.mark.parametrize("library", ["torch", "diffusers", "transformers"])
def test_major_versions(plain: Generation, monkeypatch: pytest.MonkeyPatch, library: str) -> None:
    before, module = plain.key(JOB), getattr(render, library)
    parts = module.__version__.split(".")
    at = 1 if parts[0] == "0" else 0
    patch = ".".join([*parts[: at + 1], "99"])
    parts[at] = str(int(parts[at]) + 1)
    monkeypatch.setattr(module, "__version__", patch)
    assert plain.key(JOB) == before
    monkeypatch.setattr(module, "__version__", ".".join(parts))
    assert plain.key(JOB) != before


def test_pagopts_own_drawing(plain: Generation, monkeypatch: pytest.MonkeyPatch) -> None:
    before = plain.key(JOB)
    monkeypatch.setattr(render, "_DRAWING", render._DRAWING + 1)
    assert plain.key(JOB) != before


def test_the_source_of_ones_own_target(plain: Generation, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(targets, "_TARGETS", dict(targets._TARGETS))
    file = tmp_path / "mine.py"
    module = ModuleType("mine_for_a_test")
    module.__file__ = str(file)
    monkeypatch.setitem(sys.modules, "mine_for_a_test", module)

    @register_target
    @dataclass(frozen=True)
    class Mine(Identity):
        name: ClassVar[str] = "mine"

    Mine.__module__ = "mine_for_a_test"
    generation, keys = plain, []
    for text in ("a = 1", "a = 2"):
        file.write_text(text)
        keys.append(generation.key(Job(RECIPE.replace(target="mine"), JOB.task)))
    assert len(set(keys)) == 2
    assert "target_source" not in generation.describe(JOB)


def test_a_major_version() -> None:
    assert [major_version(v) for v in ("2.13.0+cpu", "0.42.1", "5.24.0", "3", "0.1")] == ["2", "0.42", "5", "3", "0.1"]
