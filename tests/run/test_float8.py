"""`quantize: float8_dynamic`, by PyTorch's own product on a CPU; `test_gpu.py` draws with it on a GPU."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import torchao.quantization
from PIL import Image

from benchmarks.common import noise_of_float32
from pagopt.cli import main
from pagopt.errors import ModelError, RecipeError
from pagopt.models import Weights, load_pipeline
from pagopt.models.weights import torchao_config
from pagopt.recipe import PLAIN, Provenance, Recipe
from pagopt.render import Job, Renderer, Task
from tools.float8 import float8_anywhere

JOBS = [Job(PLAIN, Task("flat, red apple", 3)), Job(Recipe("L4.H2", scale=2.0), Task("ink, cat face", 3))]


@pytest.fixture(autouse=True)
def anywhere() -> Iterator[None]:
    with float8_anywhere():
        yield


def away(one: list[Image.Image], other: list[Image.Image]) -> float:
    """The mean difference of a pixel's value."""
    return float(np.abs(np.stack(list(map(np.asarray, one))) - np.stack(other).astype(float)).mean())


def test_a_picture_does_not_depend_on_the_others_in_its_batch() -> None:
    """With one scale for a whole batch, which is torchao's default, pictures are 6 of 255 apart."""
    made = Renderer(noise_of_float32(load_pipeline("emoji", "bfloat16", "float8_dynamic")), 4)
    together = made.render(JOBS)
    assert [list(made.render([job])[0].getdata()) for job in JOBS] == [list(image.getdata()) for image in together]
    assert 0 < away(together, Renderer(load_pipeline("emoji"), 4).render(JOBS)) < 12


def test_a_token_that_is_zero_stays_a_number() -> None:
    layer = torch.nn.Linear(64, 32).to(torch.bfloat16)
    tokens = torch.randn(2, 5, 64).to(torch.bfloat16)
    tokens[1, 2] = 0
    want = layer(tokens)
    torchao.quantization.quantize_(layer, torchao_config("float8_dynamic"))
    found = layer(tokens)
    assert found[1, 2].equal(want[1, 2])
    assert 0 < ((found - want).norm() / want.norm()).item() < 0.06


@pytest.mark.parametrize("quantize", ["int8", "float8", "float8_dynamic"])
def test_the_compiler_of_everything_else_is_left_alone(quantize: str) -> None:
    with torch._inductor.config.patch(coordinate_descent_tuning=False):  # another test may have set it
        torchao.quantization.quantize_(torch.nn.Linear(32, 32).to(torch.bfloat16), torchao_config(quantize))
        assert not torch._inductor.config.coordinate_descent_tuning


def test_only_beside_bfloat16(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert Weights.asked(None, "float8_dynamic") == Weights("bfloat16", "float8_dynamic")
    with pytest.raises(ModelError, match="computes beside bfloat16, not float16: leave dtype out"):
        load_pipeline("emoji", "float16", "float8_dynamic")
    with pytest.raises(RecipeError, match="beside bfloat16, not float32"):
        Weights.of(Provenance("emoji", "", evidence={"quantize": "float8_dynamic"}))
    words = ["--dtype", "float16", "--quantize", "float8_dynamic", "--out", str(tmp_path / "none")]
    assert main(["search", "flat", "--reward", "clip", *words]) == 2
    assert "beside bfloat16, not float16" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()
