"""Every example of docs/rewards.md, run as it stands, in the order of the page."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml
from PIL import Image

from pagopt.cli import main
from pagopt.cli.search import parser
from pagopt.reward import Objective, RewardSpec
from pagopt.study import find_study
from pagopt_rewards.style import Style

PAGE = Path(__file__).parents[2] / "docs" / "rewards.md"
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
SCORER = not Style.missing()


def install(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `pip install --editable` leaves behind."""
    text = (project / "pyproject.toml").read_text()
    name, version = (re.search(rf'^{key} = "(.*)"$', text, re.MULTILINE) for key in ("name", "version"))
    assert name
    assert version
    info = project / f"{name[1].replace('-', '_')}-{version[1]}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name[1]}\nVersion: {version[1]}\n")
    points = text.split('[project.entry-points."pagopt.rewards"]\n')[1].replace('"', "")
    (info / "entry_points.txt").write_text(f"[pagopt.rewards]\n{points}")
    monkeypatch.syspath_prepend(str(project))


def run(line: str) -> None:
    """A command line; of a search only what precedes the drawing."""
    program, command, *words = shlex.split(line)
    assert program == "pagopt"
    if command != "search":
        assert main([command, *words]) == 0
        return
    options = parser().parse_args(["--config", str(find_study(words[0])), *words[1:]])
    Objective([RewardSpec(options.reward)])


def test_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    Image.new("RGB", (20, 16), (230, 20, 20)).save("apple.png")
    Image.new("RGB", (20, 16), (60, 200, 60)).save("pear.png")
    namespace: dict[str, object] = {}
    kinds = [kind for kind, _ in BLOCKS]
    assert kinds == ["sh", "yaml", "python", "python", "sh", "python", "sh", "python", "sh", "toml", "python", "sh"]
    for kind, block in BLOCKS:
        target = re.match(r"# file: (\S+)\n", block)
        if target:
            path = tmp_path / target[1]
            path.parent.mkdir(exist_ok=True)
            path.write_text(block)
            if path.name == "pagopt_warmth.py":
                install(path.parent, monkeypatch)
        elif kind == "python":
            exec(compile(block, str(PAGE), "exec"), namespace)
        elif kind == "yaml":
            specs = [RewardSpec(**term) for term in yaml.safe_load(block)["reward"]]
            assert [spec.weight for spec in specs] == [1, 0.5, -0.25]
            if SCORER:
                Objective(specs)
        else:
            for line in block.splitlines():
                if SCORER or "--reward clip" not in line:
                    run(line)
    assert namespace["scores"].tolist()[0] > 0  # type: ignore[attr-defined]
    printed = capsys.readouterr().out
    for expected in (
        r"warmth\W+gain=1.0",
        r"Red minus blue, times a gain\.",
        r"apple.png +210.0000\n *pear.png +0.0000",  # warmth.py
        r"pear.png +200.0000\n *apple.png +20.0000",  # channel.py
        r"apple.png +-0.0000\n *pear.png +-130.0000",  # likeness.py: (170 + 180 + 40) / 3
        r"apple.png +420.0000\n *pear.png +0.0000",  # the package
    ):
        assert re.search(expected, printed), f"{expected} not in\n{printed}"
