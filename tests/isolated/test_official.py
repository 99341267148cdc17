"""The authors' packages in their environments against pagopt's own rewards, on equal random weights at full size.

It downloads some gigabytes of packages and takes many minutes:
``python -m pytest -m slow tests/isolated/test_official.py``. Environments go where PAGOPT_HOME says, and stay.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.reward_parity import PROMPTS, TARGETS, compare, pictures
from pagopt.isolated import install, read_record


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize(("record", "name"), [("image-reward", "imagereward"), ("hpsv2", "hps 2.1")])
def test_pagopt_gives_the_numbers_of_the_package(record: str, name: str, tmp_path: Path) -> None:
    assert install(read_record(record)).ready
    images = pictures()
    found = compare(name, tmp_path, images, [PROMPTS[index % len(PROMPTS)] for index in range(len(images))])
    assert found["spread"] > 0.05  # the scores differ, so that an agreement says something
    assert found["difference"] < TARGETS[name]
