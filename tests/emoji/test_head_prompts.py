"""Which prompts the atlas of the embedded model is drawn with."""

from __future__ import annotations

import pytest

from pagopt.errors import StudyError
from tools.emoji.heads import choose_prompts

NAMES = [f"thing {number}" for number in range(12)]


def test_prompts_take_styles_in_turn_and_every_name_once():
    absent = {(0, name) for name in range(8)} | {(1, 9)}
    prompts = choose_prompts(["flat", "ink"], NAMES, absent, 8, seed=3)
    styles, names = zip(*(prompt.split(", ") for prompt in prompts), strict=True)
    assert styles == ("flat", "ink") * 4
    assert len(set(names)) == 8
    pairs = {(["flat", "ink"].index(s), NAMES.index(n)) for s, n in zip(styles, names, strict=True)}
    assert not pairs & absent
    assert choose_prompts(["flat", "ink"], NAMES, absent, 8, seed=3) == prompts
    assert choose_prompts(["flat", "ink"], NAMES, absent, 8, seed=4) != prompts


def test_too_many_and_too_few_prompts_are_errors():
    with pytest.raises(StudyError, match="only 12 of 13 prompts"):
        choose_prompts(["flat"], NAMES, set(), 13, seed=0)
    with pytest.raises(StudyError, match="at least 2 prompts, not 1"):
        choose_prompts(["flat"], NAMES, set(), 1, seed=0)
