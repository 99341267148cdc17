"""What ``from pagopt import ...`` offers."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

import pagopt

ROOMS = ("atlas", "comparison", "evaluate", "models", "plan", "tuning")


@pytest.mark.parametrize("name", pagopt.__all__)
def test_every_public_name_has_a_documented_home(name: str) -> None:
    thing = getattr(pagopt, name)
    assert thing.__doc__
    assert thing.__module__.startswith("pagopt.")


@pytest.mark.parametrize("name", ["pagopt", *(f"pagopt.{room}" for room in ROOMS)])
def test_the_lists_agree(name: str) -> None:
    package = importlib.import_module(name)
    assert sorted(package.__all__, key=str.casefold) == sorted(package._HOMES, key=str.casefold)
    for offered in package.__all__:
        assert getattr(package, offered) is getattr(
            importlib.import_module(f"{name}.{package._HOMES[offered]}"), offered
        )
    with pytest.raises(AttributeError, match="no attribute 'guide_me'"):
        _ = package.guide_me


def test_what_is_offered_is_listed() -> None:
    assert set(pagopt.__all__) < set(dir(pagopt))


@pytest.mark.parametrize(
    ("used", "libraries"),
    [
        ("import pagopt, pagopt.heads, pagopt.models", "torch diffusers lightning"),
        ("import pagopt.models; pagopt.models.resolve_model('emoji')", "torch diffusers lightning"),
        ("from pagopt.cli import studies, init, heads, generate", "diffusers lightning"),
        ("from pagopt.cli import search, tune, plan, atlas, evaluate", "diffusers"),
    ],
)  # fmt: skip
def test_import_is_quick(used: str, libraries: str) -> None:
    """A library is loaded when something of it is used, and not for --help."""
    code = f"import sys; {used}; print(*sorted({set(libraries.split())} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
