"""Rewards that may change between two runs of one study: a file of the user's, or one that files are given to."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence

from pagopt.own_code import is_own
from pagopt.reward.identity import named_path, words_in
from pagopt.reward.loading import load_reward
from pagopt.reward.spec import RewardSpec

__all__ = ["code_in", "own_keys"]


def own_keys(specs: Sequence[RewardSpec]) -> list[str]:
    """Keys of those of the rewards that are the user's own, each once, sorted.

    Only these are loaded, so that a finished study is known as such at once. A reward is one's own if its name is a
    Python file or an import path, if an argument of it is a file or folder that is there, or if it is a record's.

    Raises:
        RewardError: If one cannot be loaded.
    """
    mine = [
        spec
        for spec in specs
        if is_own(spec.name) or spec.name == "isolated" or any(map(named_path, words_in(spec.args)))
    ]
    return sorted({load_reward(spec.name, **spec.args).key() for spec in mine})


def code_in(spec: RewardSpec) -> str:
    """How a reward is written after ``--reward``, if a file or import path names code in it; otherwise nothing.

    That is a reward of one's own, or one that is given such a file: a record of an isolated reward names programs.
    """
    if not (is_own(spec.name) or any(word.endswith((".py", ".yaml", ".yml")) for word in words_in(spec.args))):
        return ""
    return shlex.quote(json.dumps(spec.to_dict())) if spec.args else spec.name
