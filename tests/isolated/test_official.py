"""The authors' packages in their environments against pagopt's own rewards, on equal random weights at full size.

It downloads some gigabytes of packages, needs 4 GB of disk for checkpoints and takes many minutes:
``python -m pytest -m slow tests/isolated/test_official.py``. Environments go where PAGOPT_HOME says, and stay.
tests/rewards/test_parity_files.py is its small twin.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from benchmarks.official_checkpoints import MED_CONFIG
from benchmarks.reward_parity import PROMPTS, RECORDS, TARGETS, compare, pictures
from pagopt.errors import RewardError
from pagopt.isolated import install, read_record
from pagopt.reward import load_reward

pytestmark = [pytest.mark.slow, pytest.mark.timeout(7200)]
LIMITS = {"image-reward": 33, "hpsv2": 75}


@pytest.fixture
def checkpoints(tmp_path: Path) -> Iterator[Path]:
    """A folder that does not outlive the test, as pytest's own would."""
    yield tmp_path / "checkpoints"
    shutil.rmtree(tmp_path / "checkpoints", ignore_errors=True)


@pytest.mark.parametrize("name", TARGETS)
def test_pagopt_gives_the_numbers_of_the_package(
    name: str, checkpoints: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert install(read_record(RECORDS[name])).ready
    images = pictures()
    found = compare(name, checkpoints, images, [PROMPTS[index % len(PROMPTS)] for index in range(len(images))])
    assert found["spread"] > 0.05  # the scores differ, so that an agreement says something
    assert "score" in found["differences"]
    assert found["difference"] < TARGETS[name], found["differences"]
    if "batch" in found["differences"]:  # the package itself says nothing of what it cuts
        said = f"[{RECORDS[name]}] a prompt has more than {LIMITS[RECORDS[name]]} tokens: its score leaves out '"
        assert capsys.readouterr().err.count(said) == 1


@pytest.mark.parametrize(("record", "file"), [("hpsv2", "HPS_v2.1_compressed.pt"), ("image-reward", "ImageReward.pt")])
def test_the_package_runs_no_code_of_a_checkpoint(record: str, file: str, tmp_path: Path) -> None:
    assert install(read_record(record)).ready
    ran = tmp_path / "ran"

    class Code:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(ran),)

    torch.save({"state_dict": Code()}, tmp_path / file)
    (tmp_path / "med_config.json").write_text(MED_CONFIG)
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n")
    with pytest.raises(RewardError, match="Weights only load failed"):
        load_reward(record, weights=str(tmp_path / file))([Image.new("RGB", (8, 8))], ["p"])
    assert not ran.exists()
