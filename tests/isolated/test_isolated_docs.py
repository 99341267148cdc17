"""Every example of docs/isolated-rewards.md that needs no download, run as it stands, in the order of the page."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml
from PIL import Image

from pagopt.cli import main
from pagopt.reward import Objective, RewardSpec

PAGE = Path(__file__).parents[2] / "docs" / "isolated-rewards.md"
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def test_the_page(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (20, 16), (200, 20, 20)).save("apple.png")
    Image.new("RGB", (20, 16), (60, 120, 60)).save("pear.png")
    assert [kind for kind, _ in BLOCKS] == ["sh", "yaml", "python", "sh", "yaml", "python", "sh"]
    for kind, block in BLOCKS[1:]:
        target = re.match(r"# file: (\S+)\n", block)
        if target:
            (tmp_path / target[1]).write_text(block)
        elif kind == "yaml":
            specs = [RewardSpec(**term) for term in yaml.safe_load(block)["reward"]]
            (reward,) = Objective(specs).rewards.values()
            assert reward([Image.open("apple.png")], [""]).tolist() == [pytest.approx(2 * 200 / 240)]
        else:
            for line in block.splitlines():
                assert main(shlex.split(line)[1:]) == 0
    printed = capsys.readouterr().out
    for expected in ("redness is ready after", "apple.png +0.8333", "pear.png +0.2500", "apple.png +1.6667"):
        assert re.search(expected, printed), f"{expected} not in\n{printed}"
    assert len(re.findall("apple.png +1.6667", printed)) == 2
