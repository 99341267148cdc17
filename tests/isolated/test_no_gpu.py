"""A scorer that is sent to a GPU where its environment has none: real torch, in an environment that inherits ours."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from pagopt.errors import RewardError
from pagopt.isolated import install, read_record
from pagopt.reward import load_reward

SCORER = """
class Warm:
    def __init__(self, device="cpu"):
        import torch
        self.weight = torch.ones(1, device=device)
    def __call__(self, images, prompts):
        return [self.weight.item() * image.getpixel((0, 0))[0] for image in images]
"""


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_what_to_do_is_said(home: Path, tmp_path: Path) -> None:
    (tmp_path / "warm.yaml").write_text("name: warm\nscorer: warm.py:Warm\ninherit: true\nrequirements: []\n")
    (tmp_path / "warm.py").write_text(SCORER)
    assert install(read_record(str(tmp_path / "warm.yaml")), installer="pip", say=lambda line: None).ready
    red = [Image.new("RGB", (2, 2), "red")]
    reward = load_reward("isolated", record="warm")
    assert reward(red, ["p"]).tolist() == [255]
    reward.move(torch.device("cuda"))
    with pytest.raises(RewardError) as caught:
        reward(red, ["p"])
    said = str(caught.value)
    assert "in __init__" in said  # the scorer's own traceback
    assert "warm was to compute on 'cuda', and asks for a device that this machine, or the torch in its env" in said
    assert "Give it `device: cpu`; or build the environment with another torch: pagopt rewards install warm" in said
    fixed = load_reward("isolated", record="warm", device="cpu")
    fixed.move(torch.device("cuda"))
    assert fixed(red, ["p"]).tolist() == [255]
