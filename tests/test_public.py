"""What ``from pagopt import ...`` offers."""

from __future__ import annotations

import subprocess
import sys

import pytest

import pagopt


@pytest.mark.parametrize("name", pagopt.__all__)
def test_every_public_name_has_a_documented_home(name: str) -> None:
    thing = getattr(pagopt, name)
    assert thing.__doc__
    assert thing.__module__.startswith("pagopt.")


def test_the_lists_agree() -> None:
    assert sorted(pagopt.__all__, key=str.casefold) == sorted(pagopt._HOMES, key=str.casefold)
    assert set(pagopt.__all__) < set(dir(pagopt))
    with pytest.raises(AttributeError, match="no attribute 'guide_me'"):
        _ = pagopt.guide_me


def test_import_is_quick() -> None:
    """Neither torch nor diffusers nor lightning is loaded before something of theirs is used."""
    code = "import sys, pagopt, pagopt.heads; print(sorted({'torch', 'diffusers', 'lightning'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
