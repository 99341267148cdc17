"""Each target's short cut against its own map written out, and the paths between two maps."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pagopt.errors import RecipeError, UnknownName
from pagopt.recipe import Recipe
from pagopt.targets import PATHS, Target, View, known_targets, make_target, move, register_target
from pagopt.targets.paths import fisher_rao, log_linear
from pagopt.targets.view import chunks, widened

GRID, TEXT, PAIRS, WIDTH = (3, 4), 5, 2, 6
IMAGE = GRID[0] * GRID[1]
TOKENS = IMAGE + TEXT

CASES = [
    ("identity", {}),
    ("image_identity", {}),
    ("image_to_image", {}),
    ("uniform", {}),
    ("mean_query", {}),
    ("mean_query", {"over": "image"}),
    ("mean_query", {"over": "text"}),
    ("blur", {"sigma": 0.7}),
    ("blur", {"sigma": 3}),
    ("temperature", {"tau": 3.0}),
    ("temperature", {"tau": 0.5}),
    ("row_maximum", {}),
]


def make_view(seed=0, image_first=True, masked=False, dtype=torch.float64):
    """``masked`` is True, False or "soft"."""
    generator = torch.Generator().manual_seed(seed)
    q, k, v = (torch.randn(PAIRS, TOKENS, WIDTH, generator=generator, dtype=torch.float64).to(dtype) for _ in range(3))
    image, text = (slice(0, IMAGE), slice(IMAGE, TOKENS)) if image_first else (slice(TEXT, TOKENS), slice(0, TEXT))
    mask = None
    if masked == "soft":
        q, k = widened(q, k, torch.linspace(-0.5, 1.5, PAIRS * TOKENS, dtype=dtype).view(PAIRS, TOKENS))
    elif masked:
        mask = torch.ones(PAIRS, TOKENS, dtype=torch.bool)
        mask[0, text.stop - 2 : text.stop] = False
    cut = IMAGE if image_first else TEXT
    return View([v[:, :cut], v[:, cut:]], image, text, GRID, lambda: (q, k), mask)


def rows_of(target, view):
    return [view.image] if target.rows == "image" else [slice(0, view.tokens)]


@pytest.mark.parametrize("image_first", [True, False])
@pytest.mark.parametrize("masked", [True, False, "soft"])
@pytest.mark.parametrize(("name", "options"), CASES)
def test_the_short_cut_is_the_map_times_v(name, options, masked, image_first):
    view, target = make_view(1, image_first, masked), make_target(name, options)
    for rows in rows_of(target, view):
        maps = target.map(view, rows)
        assert torch.allclose(maps.sum(-1), torch.ones((), dtype=torch.float64))
        assert (maps >= 0).all()
        want, got = maps @ view.v, target.values(view, rows).expand(PAIRS, -1, -1)
        assert torch.allclose(got, want, rtol=1e-12, atol=1e-13)
        part = slice(rows.start + 1, rows.stop - 2)  # pieces of a stream too
        assert torch.allclose(target.values(view, part).expand(PAIRS, -1, -1), want[:, 1:-2], rtol=1e-12, atol=1e-13)


def test_a_soft_mask_adds_to_the_logits():
    q, k, v = (torch.randn(PAIRS, TOKENS, WIDTH, dtype=torch.float64) for _ in range(3))
    soft = torch.rand(PAIRS, TOKENS, dtype=torch.float64)
    view = View([v], slice(TEXT, TOKENS), slice(0, TEXT), GRID, lambda: widened(q, k, soft))
    want = q @ k.mT / math.sqrt(WIDTH) + soft[:, :, None] * soft[:, None, :]
    assert torch.allclose(view.logits(slice(0, TOKENS)), want, rtol=1e-12)
    assert torch.allclose(view.attend(view.q), want.softmax(dim=-1) @ v, rtol=1e-12)


def written_out(view, name, options):
    """The maps once more, entry by entry, in plain Python."""
    q, k = view.q, view.k
    n, image = view.tokens, range(view.image.start, view.image.stop)
    text = range(view.text.start, view.text.stop)
    maps = torch.zeros(PAIRS, n, n, dtype=torch.float64)
    for p in range(PAIRS):

        def softmax_row(query, allowed, divide=1.0, p=p):
            logits = {j: float(query @ k[p, j]) / math.sqrt(WIDTH) / divide for j in allowed}
            top = max(logits.values())
            weights = {j: math.exp(x - top) for j, x in logits.items()}
            return {j: w / sum(weights.values()) for j, w in weights.items()}

        for i in range(n):
            plain = softmax_row(q[p, i], range(n))
            if name == "identity" or (name == "image_identity" and i in image):
                row = {i: 1.0}
            elif name == "uniform":
                row = dict.fromkeys(range(n), 1 / n)
            elif name == "mean_query":
                span = {"all": range(n), "image": image, "text": text}[options.get("over", "all")]
                row = softmax_row(sum(q[p, j] for j in span) / len(span), range(n))
            elif name == "temperature":
                row = softmax_row(q[p, i], range(n), options["tau"])
            elif name == "row_maximum":
                row = {max(plain, key=plain.get): 1.0}
            elif name == "image_to_image" and i in image:
                row = softmax_row(q[p, i], [i, *text])
            elif name == "blur" and i in image:
                here = divmod(i - view.image.start, GRID[1])
                weights = {}
                for j in image:
                    there = divmod(j - view.image.start, GRID[1])
                    away = (here[0] - there[0]) ** 2 + (here[1] - there[1]) ** 2
                    weights[j] = math.exp(-away / (2 * options["sigma"] ** 2))
                total = sum(weights.values())
                row = softmax_row(sum(w / total * q[p, j] for j, w in weights.items()), range(n))
            else:
                row = plain
            for j, weight in row.items():
                maps[p, i, j] = weight
    return maps


@pytest.mark.parametrize("image_first", [True, False])
@pytest.mark.parametrize(("name", "options"), CASES)
def test_the_map_is_what_the_words_say(name, options, image_first):
    view, target = make_view(2, image_first), make_target(name, options)
    want = written_out(view, name, options)
    for rows in rows_of(target, view):
        assert torch.allclose(target.map(view, rows), want[:, rows], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("path", [name for name in PATHS if name != "straight"])
@pytest.mark.parametrize(("name", "options"), CASES)
def test_other_paths_bend_the_map(name, options, path, monkeypatch):
    monkeypatch.setattr("pagopt.targets.view.MAP_BYTES", 4 * TOKENS * 7)  # pieces of a few rows
    if path == "log_linear" and not make_target(name, options).full_support:
        with pytest.raises(RecipeError, match="jumps to the target"):
            make_target(name, options, path)
        return
    view, target = make_view(3), make_target(name, options, path)
    for rows in rows_of(target, view):
        a, t = view.map(rows), target.map(view, rows)
        output = a @ view.v
        for u in (0.0, 0.3, 1.0):
            got = move(output, target, path, view, rows, torch.full((PAIRS,), u, dtype=torch.float64))
            if path == "fisher_rao":
                cosine = (a * t).sqrt().sum(-1, keepdim=True).clamp(max=1)
                angle = torch.arccos(cosine)
                maps = (torch.sin((1 - u) * angle) * a.sqrt() + torch.sin(u * angle) * t.sqrt()) / torch.sin(angle)
                maps = maps**2
            else:
                maps = a ** (1 - u) * t**u
                maps = maps / maps.sum(-1, keepdim=True)
            assert torch.allclose(got, maps @ view.v, rtol=1e-9, atol=1e-9)


@given(st.integers(0, 10_000), st.floats(0, 1), st.floats(0.01, 30))
@settings(max_examples=50, deadline=None)
def test_paths_stay_distributions_and_end_where_they_should(seed, u, sharpness):
    generator = torch.Generator().manual_seed(seed)
    a, t = (torch.randn(4, 9, generator=generator, dtype=torch.float64).mul(sharpness).softmax(-1) for _ in range(2))
    for path in (fisher_rao, log_linear):
        between = path(a, t, torch.tensor([[u]], dtype=torch.float64))
        assert torch.allclose(between.sum(-1), torch.ones(4, dtype=torch.float64), rtol=1e-9)
        for end, want in ((0.0, a), (1.0, t)):
            got = path(a, t, torch.tensor([[end]], dtype=torch.float64))
            assert torch.allclose(got, want, rtol=1e-7, atol=1e-12)
        near = path(a, a, torch.tensor([[u]], dtype=torch.float64))  # no angle at all
        assert torch.allclose(near, a, rtol=1e-9, atol=1e-12)


def test_limits_of_the_targets():
    view = make_view(4)
    rows = view.image
    wide = make_target("blur", {"sigma": 1e6}).values(view, rows)
    mean = make_target("mean_query", {"over": "image"}).values(view, rows)
    assert torch.allclose(wide, mean, rtol=1e-9)
    hot = make_target("temperature", {"tau": 1e9}).values(view, rows)
    assert torch.allclose(hot, make_target("uniform").values(view, rows), atol=1e-7)
    cold = make_target("temperature", {"tau": 1e-6}).values(view, rows)
    assert torch.allclose(cold, make_target("row_maximum").values(view, rows), atol=1e-7)


@pytest.mark.parametrize("pairs", [1, 3, 200])
@pytest.mark.parametrize("tokens", [4, 4_000, 40_000_000])
def test_pieces_cover_everything_once_and_are_small(pairs, tokens):
    from pagopt.targets.view import MAP_BYTES

    rows = slice(7, 507)
    seen = torch.zeros(pairs, 600, dtype=torch.int)
    for some, piece in chunks(pairs, rows, tokens):
        seen[some, piece] += 1
        size = 4 * tokens * (some.stop - some.start) * (piece.stop - piece.start)
        assert size <= max(MAP_BYTES, 4 * tokens)
    assert (seen[:, rows] == 1).all()
    assert seen.sum() == pairs * 500


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize(("name", "options"), CASES)
def test_half_precision(name, options, dtype):
    view, exact, target = make_view(5, dtype=dtype), make_view(5), make_target(name, options)
    if name == "row_maximum":
        return  # the largest of near equals may be another one
    for rows in rows_of(target, view):
        got = target.values(view, rows)
        assert got.dtype == dtype
        assert torch.allclose(got.double(), target.values(exact, rows), atol=0.1 if dtype != torch.float32 else 1e-5)


def test_a_target_of_ones_own():
    @register_target
    @dataclass(frozen=True)
    class FirstToken(Target):
        name: ClassVar[str] = "first_token"
        needs_queries: ClassVar[bool] = False
        token: int | None = 0
        by: float = 1.0

        def values(self, view, rows):
            return view.v[:, :1].expand(-1, rows.stop - rows.start, -1)

    try:
        assert isinstance(make_target("first_token"), FirstToken)
        recipe = Recipe(target="first_token", target_options={"token": 3, "by": 2})
        made = make_target("first_token", dict(recipe.target_options))
        assert (repr(made.token), repr(made.by)) == ("3", "2.0")  # a recipe's numbers are floats
        with pytest.raises(RecipeError, match="no explicit map"):
            make_target("first_token", {}, "fisher_rao")
        with pytest.raises(ValueError, match="there is a target 'first_token' already"):

            @register_target
            class Other(FirstToken):
                pass
    finally:
        from pagopt import targets

        del targets._TARGETS["first_token"]


def test_names_and_options():
    assert set(known_targets()) == {name for name, _ in CASES}
    with pytest.raises(UnknownName, match=r"unknown perturbation target 'identitiy'\. Did you mean 'identity'"):
        make_target("identitiy")
    with pytest.raises(UnknownName, match=r"unknown option of the target 'blur' 'sigmma'\. Did you mean 'sigma'"):
        make_target("blur", {"sigmma": 2})
    with pytest.raises(UnknownName, match="unknown path 'bent'"):
        make_target("blur", {}, "bent")
    for name, options in (
        ("blur", {"sigma": 0}),
        ("blur", {"sigma": "wide"}),
        ("temperature", {"tau": 1}),
        ("temperature", {"tau": -2.0}),
        ("mean_query", {"over": "words"}),
    ):
        with pytest.raises(RecipeError, match=f"{next(iter(options))}|averages"):
            make_target(name, options)


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("name", ["uniform", "mean_query"])
def test_means_over_many_tokens_stay_finite_in_half_precision(name, masked):
    """A sum over the 4,429 tokens of SD3 at 1024 pixels is beyond what float16 holds."""
    tokens, large = 4429, torch.full((1, 4429, 4), 20.0, dtype=torch.float16)
    mask = torch.ones(1, tokens, dtype=torch.bool) if masked else None
    view = View(
        [large[:, :4096], large[:, 4096:]], slice(0, 4096), slice(4096, tokens), (64, 64), lambda: (large, large), mask
    )
    found = make_target(name).values(view, slice(0, 1))
    assert found.dtype == torch.float16
    assert torch.allclose(found, large[:, :1], rtol=1e-2)
