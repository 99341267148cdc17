"""Every example of docs/objectives.md."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from pagopt.cli.search import parser
from pagopt.combine import COMBINATIONS
from pagopt.reward import RewardSpec
from pagopt.study import Study

TEXT = (Path(__file__).parents[2] / "docs" / "objectives.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


def test_studies_are_valid_by_the_command_line(tmp_path: Path) -> None:
    seen = []
    for number, block in enumerate(blocks("yaml")):
        file = tmp_path / f"{number}.yaml"
        file.write_text(yaml.safe_dump({"prompts": ["cat", "dog"], **yaml.safe_load(block)}))
        command = parser()
        study = command.instantiate(command.parse_args(["--config", str(file)]))
        made = Study(**{key: getattr(study, key) for key in Study.__dataclass_fields__})
        assert all(isinstance(term, RewardSpec) for term in made.reward)
        seen.append(made.combine)
    assert seen == ["thresholds", *COMBINATIONS], "one example first, then one for each combination"


def test_the_table_lists_all_combinations() -> None:
    assert re.findall(r"^\| `(\w+)`.* \|$", TEXT, re.MULTILINE)[1:] == list(COMBINATIONS)


def test_python_says_what_its_comments_say(capsys: pytest.CaptureFixture[str]) -> None:
    (block,) = blocks("python")
    exec(compile(block, "docs/objectives.md", "exec", dont_inherit=True), {})
    assert capsys.readouterr().out.splitlines() == [
        "[2 0 1]",
        "[40. 85. 50.]",
        "brightness at least 0.55 (baseline)",
        "[1 2]",
    ]
