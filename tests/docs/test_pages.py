"""What the documentation shows has to run: Python blocks in order, studies, recipe files, commands, options, links."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
from importlib import import_module
from pathlib import Path

import pytest
import yaml

from pagopt import targets
from pagopt.cli import COMMANDS
from pagopt.models import resolve_model
from pagopt.recipe import Recipe, load_recipe
from pagopt.reward import RewardSpec
from pagopt.study import Study, available_studies

ROOT = Path(__file__).parent.parent.parent
PAGES = [*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
WITH_PYTHON = ["quickstart", "atlas", "recipes", "python", "modular", "models", "perturbation", "emoji", "tune"]


def blocks(page: Path, language: str) -> list[str]:
    text = page.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("name", WITH_PYTHON)
def test_python_runs(name: str, tiny_flux: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = Recipe(heads="L3.H2 L4.H1", strength=0.5, scale=2.0, cfg=1.0)
    for file in ("recipe.json", "runs/vivid/recipe.json"):
        recipe.save(Path(file))
    page = ROOT / "docs" / f"{name}.md"
    code = "\n".join(blocks(page, "python"))
    assert "steps=12" in code
    code = code.replace("steps=12", "steps=2")  # what they draw is not looked at
    code = code.replace("height=512, width=512", "height=16, width=16")
    code = code.replace("black-forest-labs/FLUX.1-dev", str(tiny_flux))
    code = code.replace("stabilityai/stable-diffusion-3.5-medium", resolve_model("emoji"))
    monkeypatch.setattr(targets, "_TARGETS", dict(targets._TARGETS))  # what a page registers goes with it
    exec(compile(code, str(page), "exec", dont_inherit=True), {"__name__": "documentation"})


def test_studies_are_valid() -> None:
    found = [yaml.safe_load(block) for block in blocks(ROOT / "docs" / "studies.md", "yaml")]
    assert len(found) >= 2
    for data in found:
        for key in ("reward", "watch"):
            if isinstance(data.get(key), list):
                data[key] = [RewardSpec(**term) if isinstance(term, dict) else term for term in data[key]]
        assert Study(**data).tasks()


def test_every_option_of_a_study_is_described_with_its_default() -> None:
    text = (ROOT / "docs" / "studies.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`.*?`) \| (.*?) \|", text, re.MULTILINE)
    described = {name: default for names, default in rows for name in re.findall(r"`(\w+)`", names)}
    fields = {field.name: field for field in dataclasses.fields(Study)}
    assert described.keys() == fields.keys()
    for name in ("rounds", "heads_per_round", "strength", "scale", "cfg", "steps"):
        assert described[name] == str(fields[name].default), name


def test_the_recipe_file_is_valid(tmp_path: Path) -> None:
    (block,) = blocks(ROOT / "docs" / "recipes.md", "json")
    path = tmp_path / "recipe.json"
    path.write_text(block, encoding="utf-8")
    recipe, provenance = load_recipe(path)
    assert recipe.strengths == (0.5, 1.0)
    assert provenance is not None
    again = tmp_path / "again.json"
    recipe.save(again, provenance)
    assert json.loads(again.read_text(encoding="utf-8")) == json.loads(block)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_have_the_options_that_are_shown(page: Path) -> None:
    for block in blocks(page, "(?:bash|sh)"):
        for line in block.splitlines():
            words = shlex.split(line, comments=True)
            if words[:1] != ["pagopt"]:
                continue
            assert words[1] in COMMANDS, line
            parser = import_module(f"pagopt.cli.{words[1]}").parser()
            known = {option for action in parser._actions for option in action.option_strings}
            for word in words[2:]:
                if word.startswith("--"):
                    assert word.partition("=")[0] in known, f"{page.name}: {line}"
            if words[1] == "search" and not words[2].endswith(".yaml"):
                assert words[2] in available_studies(), line


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_between_files_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if not target.startswith(("http://", "https://", "#", "mailto:")):
            assert (page.parent / target.partition("#")[0]).exists(), f"{page.name}: {target}"
