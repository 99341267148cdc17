"""The import arrows of docs/architecture.md: who may know whom."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# A module of pagopt imports only from those above it.
ORDER = [
    "errors",
    "lazy",
    "device",
    "disk",
    "files",
    "heads",
    "embedded",
    "checked",
    "own_code",
    "perturb",
    "combine",
    "recipe",
    "task",
    "targets",
    "models",
    "fork",
    "sites",
    "duplicates",
    "traced",
    "compiled",
    "checks",
    "guidance",
    "guide",
    "guider",
    "flux_blocks",
    "room",
    "prompts",
    "render",
    "reward",
    "isolated",
    "testing",
    "looks",
    "store",
    "paired",
    "results",
    "summary",
    "distribution",
    "evaluate",
    "search",
    "report",
    "study",
    "folder",
    "experiment",
    "comparison",
    "atlas",
    "plan",
    "tuning",
    "cli",
]
# Only these may import the heavy libraries.
ALLOWED = {
    "lightning": {"evaluate", "cli"},
    "optuna": {"tuning"},
    "diffusers": {"models", "guider", "flux_blocks", "render"},
}


def modules(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.py"))


def room(path: Path) -> str:
    """The top-level module of pagopt that a file belongs to."""
    return path.relative_to(ROOT / "pagopt").parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    """Dotted names of everything a file imports, also inside functions."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("path", modules(ROOT / "pagopt"), ids=lambda p: str(p.relative_to(ROOT)))
def test_module_imports_only_from_above(path: Path) -> None:
    here = room(path)
    if here in {"__init__", "__main__"}:
        return
    assert here in ORDER, f"{here} has no place in the order of docs/architecture.md"
    for name in imports(path):
        parts = name.split(".")
        if parts[0] in ALLOWED:
            assert here in ALLOWED[parts[0]], f"{path} imports {name}"
        assert parts[0] not in {"pagopt_rewards", "pagopt_studies"}, f"{path} imports a plug-in: {name}"
        if parts[0] == "pagopt" and len(parts) > 1 and parts[1] in ORDER and parts[1] != here:
            assert ORDER.index(parts[1]) < ORDER.index(here), f"{path}: {here} must not import {parts[1]}"


@pytest.mark.parametrize("path", modules(ROOT / "rewards") + modules(ROOT / "studies"), ids=lambda p: p.stem)
def test_plugins_use_only_the_public_door(path: Path) -> None:
    for name in imports(path):
        if name.split(".")[0] == "pagopt":
            assert name.split(".")[1] in {"reward", "isolated", "errors", "embedded", "study"}, f"{path} imports {name}"


def test_the_order_is_complete() -> None:
    assert {room(path) for path in modules(ROOT / "pagopt")} - {"__init__", "__main__"} <= set(ORDER)
