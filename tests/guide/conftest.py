"""Fixtures: the tiny pipelines, built once."""

from __future__ import annotations

import pytest
import torch
from tiny_sd3 import VARIANTS, make_pipeline, make_text_parts


@pytest.fixture(autouse=True)
def one_thread():
    """Models this small only wait for each other on several threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def text_parts(tmp_path_factory):
    """A tokenizer that knows letters, and two tiny CLIP text encoders."""
    return make_text_parts(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="session")
def pipelines(text_parts):
    return {name: make_pipeline(text_parts, **config) for name, config in VARIANTS.items()}


@pytest.fixture
def pipe(pipelines):
    """The SD3 one. Shared by all tests: what a test changes, it puts back."""
    return pipelines["sd3"]


@pytest.fixture(params=list(VARIANTS))
def any_pipe(request, pipelines):
    return pipelines[request.param]
