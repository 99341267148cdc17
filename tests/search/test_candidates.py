"""Names of candidates: written, read back, and taken apart head by head."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pagopt.errors import RecipeError
from pagopt.heads import Head, expand_heads
from pagopt.results import Estimate, Round
from pagopt.search.candidates import added, expression, head_scores, selection, touched

HEADS = st.builds(Head, st.integers(0, 4), st.integers(0, 12), st.sampled_from(["attn", "attn2"]))
L1H2, L3H1, L4H2 = Head(1, 2), Head(3, 1), Head(4, 2)


@given(st.lists(HEADS, max_size=30))
def test_an_expression_is_read_back_as_the_same_heads(heads: list[Head]) -> None:
    assert expand_heads(expression(heads)) == sorted(set(heads))


def test_an_expression_is_short() -> None:
    assert expression([Head(3, h) for h in range(6)]) == "L3.H0-5"
    assert expression([Head(3, 5, "attn2"), Head(3, 1), Head(3, 0), Head(3, 4)]) == "L3.H0-1,4 L3.attn2.H5"
    assert expression([L1H2]) == str(L1H2)


def test_a_name_says_what_comes_and_what_goes() -> None:
    assert touched("L1.H2") == ((L1H2,), ())
    assert touched("L3-4.H1") == ((L3H1, Head(4, 1)), ())
    assert touched("without L1.H2") == ((), (L1H2,))
    assert touched("L4.H2 for L3.H1") == ((L4H2,), (L3H1,))
    assert added([L4H2, L1H2], "L3.H1 for L4.H2") == (L1H2, L3H1)
    done = Round(2, ("L4.H2", "L1.H2"), {}, ("L3.H0-1", "without L1.H2"), Estimate(0, 0))
    assert selection(done) == (Head(3, 0), L3H1, L4H2)
    with pytest.raises(RecipeError, match="not an address of heads"):
        touched("the third layer")


def test_a_head_has_its_own_score_or_the_mean_of_those_that_touch_it() -> None:
    scores = {
        "L1.H2": Estimate(5.0, 0.5),
        "L1.H2 L3.H1": Estimate(1.0, 0.1),
        "L3.H1 L4.H2": Estimate(3.0, 0.3),
        "L4.H2 for L3.H1": Estimate(8.0, 0.2),
    }
    said = head_scores(Round(1, (), scores, ("L1.H2",), Estimate(5.0, 0.5)))
    assert said[L1H2].score == scores["L1.H2"]
    assert said[L1H2].words == "L1.H2"
    assert said[L3H1].score.mean == pytest.approx((1 + 3 + 8) / 3)
    assert said[L3H1].score.se == pytest.approx((0.1 + 0.3 + 0.2) / 3)
    assert said[L3H1].words == "L3.H1, mean of 3"
    assert said[L4H2].score.mean == pytest.approx(5.5)
    alone = head_scores(Round(1, (), {"without L3.H1": Estimate(1, 0), "L1.H2-3": Estimate(2, 0)}, (), Estimate(0, 0)))
    assert [cell.words for cell in alone.values()] == ["without L3.H1", "L1.H2, in L1.H2-3", "L1.H3, in L1.H2-3"]
