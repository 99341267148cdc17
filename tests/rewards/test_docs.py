"""Every example of docs/rewards.md and docs/write-a-reward.md, run as it stands, in the order of the page."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from PIL import Image

from pagopt.cli import main
from pagopt.cli.search import parser
from pagopt.reward import Objective, RewardSpec
from pagopt.study import find_study
from pagopt.testing import RewardContract
from pagopt_rewards.style import Style

DOCS = Path(__file__).parents[2] / "docs"
SCORER = not Style.missing()
Namespace = dict[str, object]


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


def show(page: str, kinds: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch) -> Namespace:
    """Run all blocks of a page, whose kinds have to be these; what its Python leaves behind."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.syspath_prepend(str(folder))
    Image.new("RGB", (20, 16), (230, 20, 20)).save("apple.png")
    Image.new("RGB", (20, 16), (60, 200, 60)).save("pear.png")
    namespace: Namespace = {}
    blocks = re.findall(r"^```(\w+)\n(.*?)^```$", (DOCS / page).read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert [kind for kind, _ in blocks] == kinds
    for kind, block in blocks:
        target = re.match(r"# file: (\S+)\n", block)
        if target:
            path = folder / target[1]
            path.parent.mkdir(exist_ok=True)
            path.write_text(block)
        elif kind == "python":
            exec(compile(block, str(DOCS / page), "exec"), namespace)
        elif kind == "yaml":
            specs = [RewardSpec(**term) for term in yaml.safe_load(block)["reward"]]
            assert [spec.weight for spec in specs] == [1, 0.5, -0.25]
            if SCORER:
                Objective(specs)
        elif kind == "sh":
            for line in block.splitlines():
                if SCORER or "--reward clip" not in line:
                    run(line)
        elif kind == "console":
            words = shlex.split(block)
            if words[:2] == ["pip", "install"]:
                install(folder / words[2], monkeypatch)
                continue
            assert words[0] == "pytest"
            environment = {**os.environ, "PYTHONPATH": str(folder)}
            command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", *words[1:]]
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
            namespace["pytest"] = done.stdout + done.stderr
    return namespace


def printed(capsys: pytest.CaptureFixture[str], *expected: str) -> None:
    out = capsys.readouterr().out
    for each in expected:
        assert re.search(each, out), f"{each} not in\n{out}"


def test_the_page_for_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    left = show("rewards.md", ["sh", "yaml", "python", "text"], tmp_path, monkeypatch)
    assert left["scores"].tolist()[0] > 0  # type: ignore[attr-defined]
    printed(capsys, r"image,prompt,colorfulness,brightness\napple.png,,\d")


def test_the_page_for_authors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kinds = ["python", "sh", "python", "sh", "python", "sh", "toml", "python", "console", "sh"]
    kinds += ["python", "console", "python", "python"]
    left = show("write-a-reward.md", kinds, tmp_path, monkeypatch)
    for module in ("channel", "likeness", "rank"):
        sys.modules.pop(module, None)
    checks = sum(name.startswith("test_") for name in dir(RewardContract))
    assert f"\n{2 * (checks - 1)} passed, 2 skipped" in str(left["pytest"]), left["pytest"]
    assert "test_batch_size_never_changes_a_score: scored 1 at a time the pictures got other scores" in left["message"]  # type: ignore[operator]
    printed(
        capsys,
        r"warmth\W+gain=1.0",
        r"Red minus blue, times a gain\.",
        r"apple.png +210.0000\n *pear.png +0.0000",  # warmth.py
        r"pear.png +200.0000\n *apple.png +20.0000",  # channel.py
        r"apple.png +0.0000\n *pear.png +-130.0000",  # likeness.py: (170 + 180 + 40) / 3
        r"apple.png +420.0000\n *pear.png +0.0000",  # the package
    )
