"""What the packages import is declared, so that nothing rests on what a dependency happens to bring."""

from __future__ import annotations

import ast
import re
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

ROOT = Path(__file__).parents[1]
OWN = {"pagopt", "pagopt_rewards", "pagopt_studies"}
OTHERS = {"ImageReward", "hpsv2", "hpsv3", "torchvision"}
"""Live in environments of their own; see pagopt/isolated."""
EXTRA = {"open_clip": "open-clip-torch"}
"""Packages of extras that need not be installed here, by module."""


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def declared() -> set[str]:
    """The names of all dependencies in pyproject.toml, those of extras included."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    start = text.index("dependencies = [")
    found = re.findall(
        r'"([A-Za-z0-9_.-]+)(?:\[[^]]*\])?(?:[=<>]=?[^"]*)?"', text[start : text.index("[project.scripts]")]
    )
    return {normal(name) for name in found}


def imported(path: Path) -> set[str]:
    """Top-level modules that a file imports when it runs; not those for type checkers alone."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    unread = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    names = set()
    for node in ast.walk(tree):
        if id(node) not in unread and isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif id(node) not in unread and isinstance(node, ast.ImportFrom):
            names.add((node.module or "").partition(".")[0])
    return names


def test_everything_imported_is_declared() -> None:
    files = [*(ROOT / "pagopt").rglob("*.py"), *(ROOT / "rewards").rglob("*.py")]
    modules = set().union(*map(imported, files)) - OWN - OTHERS - set(sys.stdlib_module_names)
    known, here = declared(), packages_distributions()
    assert {"torch", "numpy", "pillow"} <= known
    packages = {module: [*here.get(module, []), EXTRA.get(module, module)] for module in modules}
    missing = [module for module, names in packages.items() if not {normal(name) for name in names} & known]
    assert not missing
