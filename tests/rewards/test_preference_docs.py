"""The examples of docs/preference-models.md, run with tiny checkpoints where the page has the published ones."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image
from published import save_hps

from pagopt.cli import main
from pagopt.reward import available_rewards, load_reward

PAGE = Path(__file__).parents[2] / "docs" / "preference-models.md"
TEXT = PAGE.read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


def test_the_examples_run(
    tiny_clip: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (20, 16), (230, 20, 20)).save("apple.png")
    Image.new("RGB", (20, 16), (60, 200, 60)).save("pear.png")
    Path("models").mkdir()
    save_hps(Path("models/hps"))
    shutil.copytree(tiny_clip, "models/pickscore")
    namespace: dict[str, object] = {}
    assert [kind for kind, _ in BLOCKS] == ["sh", "yaml", "python", "yaml", "console"]
    for kind, block in BLOCKS:
        if kind == "sh":
            for line in block.splitlines():
                assert main(shlex.split(line)[1:]) == 0
        elif kind == "python":
            exec(compile(block, str(PAGE), "exec"), namespace)
        elif kind == "yaml":
            for term in yaml.safe_load(block)["reward"]:
                if not str(term["args"].get("model", "")).startswith("open_clip:"):
                    scores = load_reward(term["name"], **term["args"])([Image.open("pear.png")], ["a pear"])
                    assert scores.isfinite().all()
    scores = namespace["scores"]
    assert isinstance(scores, torch.Tensor)
    assert (scores.dtype, scores.shape) == (torch.float32, (2,))
    assert capsys.readouterr().out.count("apple.png") == 2


def test_the_table_names_every_argument() -> None:
    rows = {row[0]: row[3] for row in (re.findall(r"[^|]+", line) for line in TEXT.splitlines()) if len(row) == 5}
    names = ["aesthetic", "clip", "contrast", "hps", "pickscore"]
    for name in names:
        (cell,) = (cell for key, cell in rows.items() if key.strip() == f"`{name}`")
        arguments = re.findall(r"`(\w+)`", cell)
        made = available_rewards()[name].load()
        assert arguments == list(made.__init__.__annotations__)[:-1], name  # the last is what it returns
