"""Rewards and targets that no file defines: a notebook's cells, a prompt, standard input."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from pagopt.errors import RewardError
from pagopt.reward import FunctionReward
from pagopt.reward.source import source_of

ENV = {**os.environ, "OMP_NUM_THREADS": "1"}

REWARD = """
from dataclasses import dataclass, field
from functools import cache
import re
import torch
from pagopt.reward import Reward

FACTOR, WORDS, PATTERN = 1.0, {"red", "blue", "green"}, re.compile("cat|dog")

def helper(image):
    return 1.0

class Base(Reward):
    bias: float = 1.0

@dataclass
class Options:
    by: float = 1.0
    names: list = field(default_factory=lambda: ["a"])

class Mine(Base):
    '''Words.'''
    table = {"a": [1, 2]}

    @torch.no_grad()
    def score(self, images, prompts):
        return [helper(image) * FACTOR + self.bias + self.inner(p) + Options().by for image, p in zip(images, prompts)]

    def inner(self, prompt):
        many = {word for word in prompt.split() if word in {"red", "blue", "green"} or word in WORDS}
        return super().bias if many or PATTERN.match(prompt) else self.fast(1)

    @staticmethod
    @cache
    def fast(number):
        return number

    @property
    def half(self):
        return 0.5

def function(images, prompts, by=1.0, *, also=1.0):
    return [helper(image) * also + by for image in images]

@dataclass(frozen=True)
class Target:
    sigma: float = 1.0

    def values(self, view, rows):
        return view.v * self.sigma * FACTOR
"""

CHANGES = [
    ("return 1.0", "return 2.0"),
    ("FACTOR, WORDS, PATTERN = 1.0", "FACTOR, WORDS, PATTERN = 2.0"),
    ('PATTERN = 1.0, {"red"', 'PATTERN = 1.0, {"rose"'),
    ('"cat|dog"', '"cat|cow"'),
    ("bias: float = 1.0", "bias: float = 2.0"),
    ("by: float = 1.0", "by: float = 2.0"),
    ('["a"]', '["b"]'),
    ("[1, 2]", "[1, 3]"),
    ("helper(image) * FACTOR +", "helper(image) * FACTOR -"),
    ('in {"red", "blue", "green"} or', 'in {"red", "blue"} or'),
    ("return number", "return number + 1"),
    ("return 0.5", "return 0.25"),
    ("    @torch.no_grad()\n", ""),
]


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], dict[str, Any]]:
    """Runs source in a new ``__main__`` without a file, as IPython's and the REPL's is."""

    def run(source: str, file: str = "<stdin>") -> dict[str, Any]:
        module = ModuleType("__main__")
        monkeypatch.setitem(sys.modules, "__main__", module)
        exec(compile(source, file, "exec"), module.__dict__)
        return vars(module)

    return run


@pytest.mark.parametrize(("old", "new"), CHANGES)
def test_every_change_of_a_class_is_seen(typed: Callable[[str], dict[str, Any]], old: str, new: str) -> None:
    assert old in REWARD
    before, after = (typed(source)["Mine"]().key() for source in (REWARD, REWARD.replace(old, new)))
    assert before != after


def test_the_same_again_is_the_same(typed: Callable[..., dict[str, Any]]) -> None:
    """In another cell, lines further down, it is the same code."""
    cells = [("", "<ipython-input-1-abc>"), ("\n\n", "/tmp/ipykernel_1/2.py"), ("# words\n", "<python-input-3>")]
    spaces = [typed(more + REWARD, file) for more, file in cells]
    for name in ("Mine", "function", "Target"):
        assert len({source_of(space[name]) for space in spaces}) == 1
    assert len({source_of(spaces[0][name]) for name in ("Mine", "function", "Target", "Base")}) == 4


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("function", "return 1.0", "return 2.0"),
        ("function", "by=1.0", "by=2.0"),
        ("function", "also=1.0", "also=2.0"),
        ("Target", "sigma: float = 1.0", "sigma: float = 2.0"),
        ("Target", "view.v *", "view.v +"),
    ],
)
def test_functions_and_targets(typed: Callable[[str], dict[str, Any]], name: str, old: str, new: str) -> None:
    assert source_of(typed(REWARD)[name]) != source_of(typed(REWARD.replace(old, new))[name])


def test_processes_agree() -> None:
    """Neither addresses nor the order of sets, which differ from process to process, are in it."""
    script = REWARD + (
        "\nfrom pagopt.reward import FunctionReward\nfrom pagopt.reward.source import source_of\n"
        "print(Mine().key(), FunctionReward(function).key(), source_of(Target))\n"
    )
    said = []
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable],
            input=script,
            capture_output=True,
            text=True,
            check=True,
            env={**ENV, "PYTHONHASHSEED": seed},
        )
        said.append(done.stdout)
    assert said[0] == said[1] != ""


def test_what_cannot_be_told_from_others_is_refused(typed: Callable[[str], dict[str, Any]]) -> None:
    space = typed("network = object()\ndef own(images, prompts):\n    return network(images)\n")
    with pytest.raises(RewardError, match=r"own was typed in .* depends on the global variable 'network', a object"):
        FunctionReward(space["own"]).key()


def test_a_class_typed_in_beside_a_script(typed: Callable[..., dict[str, Any]], tmp_path: Any) -> None:
    """As at the prompt of ``python -i script.py``."""
    script = tmp_path / "script.py"
    script.write_text(REWARD)
    keys = []
    for source, file in ((REWARD, str(script)), (REWARD, "<stdin>"), (REWARD.replace("1.0", "2.0"), "<stdin>")):
        space = typed(source, file)
        space["__file__"] = str(script)
        keys.append((source_of(space["Mine"]), source_of(space["function"])))
    assert len(set(keys)) == 3


def test_a_notebook() -> None:
    interactive = pytest.importorskip("IPython.core.interactiveshell")
    script = (
        "from IPython.core.interactiveshell import InteractiveShell\n"
        "shell = InteractiveShell.instance()\n"
        f"cell = {REWARD!r}\n"
        "for text in (cell, cell, cell.replace('return 1.0', 'return 2.0')):\n"
        "    shell.run_cell(text)\n"
        "    shell.run_cell('print(Mine().key())')\n"
    )
    assert interactive
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=ENV)
    keys = [line for line in done.stdout.splitlines() if "@" in line]
    assert len(keys) == 3, done.stdout + done.stderr
    assert keys[0] == keys[1] != keys[2]
