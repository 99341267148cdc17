"""Addresses of heads."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pagopt.errors import RecipeError, UnknownName
from pagopt.heads import Head, HeadMap, Site, expand_heads, parse_heads

MAP = HeadMap(tuple(Site(block, "attn", 6) for block in range(8)))
DUAL = HeadMap((Site(0, "attn", 2), Site(0, "attn2", 2), Site(1, "attn", 2)))

heads = st.builds(Head, st.integers(0, 99), st.integers(0, 99), st.sampled_from(["attn", "attn2", "cross_1"]))


@given(heads)
def test_text_and_back(head):
    assert Head.parse(str(head)) == head


def test_text():
    assert str(Head(12, 7)) == "L12.H7"
    assert str(Head(3, 5, "attn2")) == "L3.attn2.H5"
    assert Head.parse("L3.attn.H5") == Head(3, 5)


@given(st.lists(heads))
def test_order_is_block_then_site_then_number(some):
    assert sorted(some) == sorted(some, key=lambda h: (h.block, h.site, h.head))
    assert parse_heads(some) == tuple(sorted(set(some)))


def test_several():
    assert [str(head) for head in parse_heads("L8-9.H1,3 L4.H1 L4.H1")] == [
        "L4.H1",
        "L8.H1",
        "L8.H3",
        "L9.H1",
        "L9.H3",
    ]
    assert expand_heads(["L2.H0", Head(1, 1), "L0.H0 L2.H0"]) == [Head(2, 0), Head(1, 1), Head(0, 0), Head(2, 0)]
    assert parse_heads(Head(1, 1)) == (Head(1, 1),)
    assert parse_heads("") == ()


@pytest.mark.parametrize(
    "text",
    [
        "L4",
        "H4",
        "L4H1",
        "l4.h1",
        "L4.H",
        "L.H1",
        "L4.Attn.H1",
        "L-4.H1",
        "L4.H1;L5.H1",
        "L1-2-3.H1",
        "L4.H1,",
        "L٣.H1",
    ],
)
def test_malformed(text):
    for read in (parse_heads, MAP.select, Head.parse):
        with pytest.raises(RecipeError, match=r"is not an address of heads: write 'L12\.H7'"):
            read(text)


def test_ranges_that_make_no_sense():
    with pytest.raises(RecipeError, match="runs backwards, write 8-11"):
        parse_heads("L11-8.H1")
    with pytest.raises(RecipeError, match="longer than any model"):
        parse_heads("L0-99999999.H1")
    with pytest.raises(RecipeError, match="no model has that many"):
        parse_heads("L0-9999.H0-9999")


def test_one_address_only():
    with pytest.raises(RecipeError, match="names 2 heads"):
        Head.parse("L1.H0,1")
    with pytest.raises(RecipeError, match="names 0 heads"):
        Head.parse(" ")


def test_not_even_text():
    with pytest.raises(RecipeError, match="3 is no head"):
        parse_heads([3])


def test_stars_need_a_model():
    for text in ("*", "L4.H*", "L*.H0"):
        with pytest.raises(RecipeError, match="depends on the model"):
            parse_heads(text)


def test_the_map():
    assert (len(MAP), MAP.blocks) == (48, 8)
    assert list(MAP) == sorted(MAP)
    assert Head(7, 5) in MAP
    assert Head(8, 0) not in MAP
    assert "L7.H5" not in MAP
    assert MAP.layer(3) == tuple(Head(3, number) for number in range(6))
    assert len(DUAL.layer(0)) == 4
    assert (len(HeadMap(())), HeadMap(()).blocks) == (0, 0)


def test_selecting():
    assert MAP.select("*") == MAP.heads
    assert MAP.select("L4.H*") == MAP.layer(4)
    assert MAP.select("L6-7.H0 L*.H5") == parse_heads("L6-7.H0 L0-7.H5")
    assert MAP.select(["L4.H*", Head(1, 1)]) == (Head(1, 1), *MAP.layer(4))
    assert DUAL.select("L0.H*") == (Head(0, 0), Head(0, 1))
    assert DUAL.select("L*.attn2.H1") == (Head(0, 1, "attn2"),)
    assert DUAL.select("L*.*.H1") == (Head(0, 1), Head(0, 1, "attn2"), Head(1, 1))


@pytest.mark.parametrize(
    ("text", "nearest"),
    [("L30.H2", "L7.H2"), ("L3.H9", "L3.H5"), ("L3.attn2.H1", "L3.H1"), ("L0-8.H0", "L7.H0")],
)
def test_unknown_heads(text, nearest):
    with pytest.raises(UnknownName) as caught:
        MAP.select(text)
    assert f"Did you mean '{nearest}'" in str(caught.value)
    assert "48 heads in 8 blocks: L0.H0 to L7.H5" in str(caught.value)


def test_unknown_otherwise():
    with pytest.raises(UnknownName, match=r"unknown heads 'L9\.H\*'"):
        MAP.select("L9.H*")
    with pytest.raises(UnknownName, match="unknown block 'L8'"):
        MAP.layer(8)
    with pytest.raises(UnknownName, match="There is no head at all"):
        HeadMap(()).check([Head(0, 0)])
    with pytest.raises(UnknownName, match=r"L0\.attn2\.H0 to L0\.attn2\.H1"):
        DUAL.check([Head(1, 0, "attn2")])
