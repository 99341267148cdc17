"""Every example of docs/isolated-rewards.md that needs no download, run as it stands, in the order of the page."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest
import yaml
from PIL import Image

from pagopt.cli import main
from pagopt.isolated import available_records
from pagopt.reward import Objective, RewardSpec, describe_rewards

PAGE = Path(__file__).parents[2] / "docs" / "isolated-rewards.md"
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


KINDS = ["sh", "yaml", "python", "sh", "yaml", "text", "toml", "python", "console", "sh"]


def install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `pip install --editable` leaves behind."""
    package, site = folder / "pagopt_redness", folder.parent
    (package / "__init__.py").touch()
    for name in ("redness.yaml", "redness_scorer.py"):
        shutil.copy(site / name, package)
    (info := folder / "pagopt_redness-1.0.dist-info").mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: pagopt-redness\nVersion: 1.0\n")
    groups = (folder / "pyproject.toml").read_text().split("[project.entry-points.")[1:]
    (info / "entry_points.txt").write_text("".join(f"[{group}" for group in groups).replace('"', ""))
    monkeypatch.syspath_prepend(str(folder))


def test_the_page(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (20, 16), (200, 20, 20)).save("apple.png")
    Image.new("RGB", (20, 16), (60, 120, 60)).save("pear.png")
    assert [kind for kind, _ in BLOCKS] == KINDS
    for kind, block in BLOCKS[1:]:
        target = re.match(r"# file: (\S+)\n", block)
        if target:
            (tmp_path / target[1]).parent.mkdir(exist_ok=True, parents=True)
            (tmp_path / target[1]).write_text(block)
        elif kind == "console":
            assert available_records().keys().isdisjoint({"redness"})
            install(tmp_path / shlex.split(block)[2], monkeypatch)
            assert available_records()["redness"].parent.name == "pagopt_redness"
            assert {info.name: info.missing for info in describe_rewards()}["redness"] == ""
        elif kind == "text":
            assert block.startswith("pagopt-redness/")
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
