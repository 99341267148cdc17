"""Batches that do not fit into the GPU's memory. There is none here: what raises its error is a hook of ours."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from pagopt.cli import main
from pagopt.errors import ModelError
from pagopt.models import load_pipeline
from pagopt.recipe import PLAIN, Recipe, load_recipe
from pagopt.render import Job, Renderer, Task
from pagopt.room import Room

JOBS = [Job(recipe, Task("cat", seed)) for seed in range(5) for recipe in (PLAIN, Recipe("L0.H1", scale=2.0))]


def too_small(rows: int) -> Callable[..., None]:
    """A hook before a transformer whose GPU has memory for so many rows."""

    def hook(module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        if kwargs["hidden_states"].shape[0] > rows:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    return hook


FULL = (torch.OutOfMemoryError(), RuntimeError("MPS backend out of memory (MPS allocated: 17.94 GB)"))


@settings(deadline=None)  # the first call may take long
@given(items=st.lists(st.integers()), limit=st.integers(1, 12), full=st.sampled_from(FULL))
def test_all_is_done_once_in_order_and_in_few_attempts(items: list[int], limit: int, full: RuntimeError) -> None:
    room, sizes = Room("numbers"), []

    def work(part: Sequence[int]) -> list[str]:
        sizes.append(len(part))
        if len(part) > limit:
            raise full
        return [str(item) for item in part]

    with warnings.catch_warnings(), patch("pagopt.room.free_memory") as freed:  # it takes long in a large process
        warnings.simplefilter("ignore")
        assert room(work, items) == [str(item) for item in items]
        failed = [size for size in sizes if size > limit]
        assert len(failed) <= max(1, len(items)).bit_length()
        assert failed == sizes[: len(failed)], "what fits is known after the first part"
        assert (room.most is None) == (not failed)
        assert freed.call_count == len(failed)
        sizes.clear()
        room(work, items)
        assert not any(size > limit for size in sizes)


def test_pictures_do_not_depend_on_the_room(tiny_model: Path) -> None:
    want = Renderer(load_pipeline(str(tiny_model)), 2).render(JOBS)
    pipe = load_pipeline(str(tiny_model))
    renderer = Renderer(pipe, 2)
    handle = pipe.transformer.register_forward_pre_hook(too_small(3), with_kwargs=True)
    with pytest.warns(UserWarning, match="images at once do not fit") as said:
        found = renderer.render(JOBS)
    assert [str(one.message).partition(":")[0] for one in said] == [
        "10 images at once do not fit into the GPU's memory",
        "5 images at once do not fit into the GPU's memory",
    ]
    assert "going on with 2. --batch_size 2 saves the attempt" in str(said[1].message)
    for a, b in zip(found, want, strict=True):
        assert np.abs(np.asarray(a, int) - np.asarray(b, int)).max() <= 1
    renderer.at_steps(1).render(JOBS)  # knows it, without an attempt and its warning
    handle.remove()
    assert not pipe.transformer._forward_pre_hooks, "guidance took its hooks away"


def test_one_that_does_not_fit_is_an_error(tiny_model: Path) -> None:
    pipe = load_pipeline(str(tiny_model))
    pipe.transformer.register_forward_pre_hook(too_small(0), with_kwargs=True)
    with pytest.raises(ModelError, match="one picture of 16 x 16 pixels does not fit into the GPU's memory: take a"):
        Renderer(pipe, 2).render(JOBS[:1])


def test_a_search_goes_on_in_smaller_batches(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    study = tmp_path / "tiny.yaml"
    data = {
        "model": str(tiny_model), "prompts": ["cat", "dog"], "held_out_prompts": ["tree", "house"], "steps": 2,
        "reward": "colorfulness", "heads": "L0-1.H*", "rounds": 1, "heads_per_round": 1, "cfg_scales": [2.0],
    }  # fmt: skip
    study.write_text(yaml.safe_dump(data))
    words = ["search", str(study), "--trainer.accelerator", "cpu", "--out"]
    assert main([*words, str(tmp_path / "whole")]) == 0
    capsys.readouterr()
    draw = Renderer._render_rows

    def draw_few(self: Renderer, jobs: Sequence[Job], cfg: float, idle: object) -> list[Any]:
        if len(jobs) > 3:
            raise torch.OutOfMemoryError
        return draw(self, jobs, cfg, idle)

    monkeypatch.setattr(Renderer, "_render_rows", draw_few)
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        assert main([*words, str(tmp_path / "parts")]) == 0
    said = capsys.readouterr().err
    assert "warning: 4 images at once do not fit into the GPU's memory: going on with 2. --batch_size 2" in said
    assert "render.py" not in said
    whole, parts = (load_recipe(tmp_path / name / "recipe.json")[0] for name in ("whole", "parts"))
    assert whole == parts


def test_other_errors_are_not_taken_for_a_full_memory() -> None:
    def broken(part: Sequence[int]) -> list[str]:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        Room("numbers")(broken, [1, 2, 3])
