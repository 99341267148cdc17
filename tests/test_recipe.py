"""Recipes: values, equality, files."""

from __future__ import annotations

import dataclasses
import json
import math
import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pagopt.errors import GuidanceError, RecipeError
from pagopt.heads import Head
from pagopt.recipe import Provenance, Recipe, load_recipe

heads = st.builds(Head, st.integers(0, 60), st.integers(0, 40), st.sampled_from(["attn", "attn2"]))
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts
json_values = st.recursive(
    leaves, lambda x: st.lists(x, max_size=3) | st.dictionaries(texts, x, max_size=3), max_leaves=8
)
provenances = st.builds(
    Provenance,
    model=texts,
    fingerprint=texts,
    objective=st.lists(st.dictionaries(texts, json_values, max_size=2), max_size=2),
    evidence=st.dictionaries(texts, json_values, max_size=3),
    study=texts,
    pagopt=texts,
)


@st.composite
def recipes(draw):
    chosen = draw(st.lists(heads, max_size=6, unique=True))
    fractions = st.floats(0, 1)
    each = st.lists(fractions, min_size=len(chosen), max_size=len(chosen))
    start, stop = draw(st.tuples(fractions, fractions).map(sorted).filter(lambda pair: pair[0] < pair[1]))
    return Recipe(
        heads=chosen,
        strength=draw(fractions | each),
        target=draw(st.sampled_from(["identity", "uniform"])),
        scale=draw(st.floats(0, 1e6)),
        cfg=draw(st.none() | st.floats(1, 100)),
        interval=(start, stop),
    )


@settings(max_examples=50, deadline=None)
@given(recipe=recipes(), provenance=st.none() | provenances)
def test_a_file_gives_back_what_was_saved(tmp_path_factory, recipe, provenance):
    path = tmp_path_factory.mktemp("recipes") / "deeper" / "recipe.json"
    recipe.save(path, provenance)
    assert load_recipe(path) == (recipe, provenance)
    assert Recipe.load(path) == recipe
    before = path.read_bytes()
    Recipe.load(path).save(path, provenance)
    assert path.read_bytes() == before


@settings(max_examples=50, deadline=None)
@given(recipe=recipes(), data=st.data())
def test_the_order_in_which_heads_are_given_means_nothing(recipe, data):
    pairs = data.draw(st.permutations(list(zip(recipe.heads, recipe.strengths, strict=True))))
    again = recipe.replace(heads=[head for head, _ in pairs], strength=[u for _, u in pairs] or recipe.strength)
    assert again == recipe
    assert again.key() == recipe.key()
    assert hash(again) == hash(recipe)
    assert Recipe.from_dict(json.loads(recipe.key())) == recipe


def test_the_two_lines_of_the_readme():
    recipe = Recipe(heads="L4.H1 L6.H0", target="identity", strength=0.5, scale=3.0)
    assert recipe.heads == (Head(4, 1), Head(6, 0))
    assert recipe.strengths == (0.5, 0.5)
    assert recipe == Recipe("L6.H0 L4.H1", strength=(0.5, 0.5))
    assert recipe != Recipe("L6.H0 L4.H1", strength=(0.5, 0.4))
    assert Recipe("L6.H0 L4.H1", strength=(0.1, 0.2)).strengths == (0.2, 0.1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        recipe.scale = 1.0
    assert Recipe(strength=0.25).replace(heads="L1.H1").strengths == (0.25,)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"strength": 1.5}, "strength must be a number between 0 and 1, got 1.5"),
        ({"strength": -0.1}, "strength must be a number between 0 and 1"),
        ({"strength": math.nan}, "strength must be"),
        ({"strength": "0.5"}, "strength must be"),
        ({"strength": True}, "strength must be"),
        ({"strength": None}, "strength must be"),
        ({"strength": {"L4.H1": 1.0}}, "strength must be"),
        ({"strength": (0.5,)}, "1 strengths for 2 heads"),
        ({"strength": (0.5, 2.0)}, "strength must be"),
        ({"scale": -1}, "scale must be a number at least 0, got -1"),
        ({"scale": math.inf}, "scale must be"),
        ({"scale": 10**400}, "scale must be"),
        ({"cfg": 0.5}, "cfg must be a number at least 1, got 0.5"),
        ({"interval": (0.5, 0.5)}, "is empty"),
        ({"interval": (0.6, 0.5)}, "is empty"),
        ({"interval": (-0.1, 0.5)}, "interval must be a number between 0 and 1"),
        ({"interval": (0.0, 1.1)}, "interval must be"),
        ({"interval": (0.5,)}, "two fractions"),
        ({"interval": 0.5}, "two fractions"),
        ({"interval": "01"}, "two fractions"),
        ({"target": ""}, "name of a target"),
        ({"target": 1}, "name of a target"),
        ({"heads": "L4.H1 L6.H0 L4.H1"}, "head L4.H1 is named 2 times"),
        ({"heads": "L4"}, "is not an address"),
        ({"heads": "L4.H*"}, "depends on the model"),
        ({"heads": [4]}, "4 is no head"),
        ({"target_options": {"x": math.nan}}, "numbers or words by name"),
        ({"target_options": {"x": None}}, "numbers or words by name"),
    ],
)
def test_values_that_mean_nothing(arguments, words):
    with pytest.raises(RecipeError) as caught:
        Recipe(**({"heads": "L4.H1 L6.H0"} | arguments))
    assert words in str(caught.value)


def test_equal_recipes_have_equal_keys():
    floats = Recipe("L3.H0", target="blur", target_options={"sigma": 1.0}, scale=2.0)
    for same in (1, np.int64(1), np.float32(1)):
        other = floats.replace(target_options={"sigma": same})
        assert other == floats
        assert (other.key(), hash(other)) == (floats.key(), hash(floats))
    assert '"target_options":{"sigma":1.0}' in floats.key()  # as it always was
    assert Recipe(target_options={"x": -0.0}).key() == Recipe(target_options={"x": 0}).key()
    options = [True, 1, False, 0, "1", "True", 2**53 + 1, float(2**53), 2**60]
    different = [Recipe(target_options={"x": value}) for value in options]
    assert len(set(different)) == len({recipe.key() for recipe in different}) == len(options)
    assert type(dict(different[0].target_options)["x"]) is bool
    assert floats != "L3.H0"


def test_numbers_of_numpy_in_the_provenance(tmp_path):
    evidence = {"gain": np.float32(0.5), "seeds": [np.int64(3)], "sure": np.bool_(True)}
    Recipe("L0.H0").save(tmp_path / "r.json", Provenance("m", "f", evidence=evidence))
    _, provenance = load_recipe(tmp_path / "r.json")
    assert provenance.evidence == {"gain": 0.5, "seeds": [3], "sure": True}
    with pytest.raises(RecipeError, match=r"cannot be written as JSON: .* is a object"):
        Recipe().save(tmp_path / "r.json", Provenance("m", "f", evidence={"a": object()}))


def test_unknown_attributes():
    with pytest.raises(RecipeError, match="unknown recipe key 'scales'; known: heads, strength"):
        Recipe().replace(scales=1.0)
    with pytest.raises(RecipeError, match="unknown recipe key 'w'"):
        Recipe.from_dict({"w": 1.0})
    with pytest.raises(RecipeError, match="a recipe is a JSON object"):
        Recipe.from_dict([1])


def test_plain():
    assert Recipe().is_plain
    assert Recipe("L1.H1", strength=0).is_plain
    assert Recipe("L1.H1 L2.H1", strength=(0, 0)).is_plain
    assert Recipe("L1.H1", scale=0).is_plain
    assert not Recipe("L1.H1 L2.H1", strength=(0, 0.1)).is_plain


def test_active_steps():
    def steps(start, stop, n):
        return list(Recipe("L1.H1", interval=(start, stop)).active_steps(n))

    assert steps(0, 1, 4) == [0, 1, 2, 3]
    assert steps(0.25, 0.75, 4) == [1, 2]
    assert steps(0.3, 0.7, 10) == [3, 4, 5, 6]
    assert steps(0.2, 0.21, 5) == [1]
    assert steps(0, 0.01, 1) == [0]
    for n in range(1, 60):  # intervals that touch cover every step once
        assert steps(0, 0.3, n) + (steps(0.3, 1, n) if n > 1 else []) == list(range(n))
    with pytest.raises(GuidanceError, match=r"\[0\.5, 0\.55\) holds none of the 3 sampling steps"):
        steps(0.5, 0.55, 3)
    assert list(Recipe(interval=(0.5, 0.55)).active_steps(3)) == []
    with pytest.raises(GuidanceError, match="at least 1"):
        Recipe().active_steps(0)


GOOD = {"schema": 1, "recipe": {"heads": ["L1.H1"]}, "provenance": {"model": "emoji", "fingerprint": "00"}}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("", "damaged"),
        ("{", "damaged"),
        (b"\xff\xfe\x00", "damaged"),
        ('{"schema": 1, "recipe": {"scale": NaN}}', "NaN is no JSON number"),
        ('{"schema": 1, "schema": 1, "recipe": {}}', "a key stands twice"),
        ("[" * 100_000, "damaged"),
        ("[]", "not a recipe file"),
        ({"schema": None}, "must be a positive whole number"),
        ({"schema": True}, "must be a positive whole number"),
        ({"schema": 2}, "a later pagopt wrote it (schema 2; this one reads up to 1): update pagopt"),
        ({"extra": 1}, "unknown recipe file key 'extra'; known: schema, recipe, provenance"),
        ({"recipe": {"heads": ["L1.H1"], "sclae": 1}}, "unknown recipe key 'sclae'"),
        ({"recipe": {"heads": ["L1.H"]}}, "is not an address"),
        ({"recipe": {"heads": 7}}, "7 is no head"),
        ({"recipe": {"heads": ["L1.H1"], "strength": 2}}, "strength must be"),
        ({"recipe": []}, "a recipe is a JSON object"),
        ({"provenance": {"model": "emoji"}}, "lacks 'fingerprint'"),
        ({"provenance": {"model": "emoji", "fingerprint": "0", "who": "me"}}, "unknown provenance key 'who'"),
        ({"provenance": {"model": "emoji", "fingerprint": 0}}, "provenance.fingerprint must be of type str, got 0"),
        ({"provenance": 5}, "the provenance is a JSON object"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_damaged_files(tmp_path, change, words):
    path = tmp_path / "recipe.json"
    content = json.dumps(GOOD | change) if isinstance(change, dict) else change
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(RecipeError) as caught:
        load_recipe(path)
    assert words in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_file_with_the_least_in_it(tmp_path):
    path = tmp_path / "recipe.json"
    path.write_text('{"schema": 1, "recipe": {}}')
    assert load_recipe(path) == (Recipe(), None)
    path.write_text(json.dumps(GOOD))
    assert load_recipe(path) == (Recipe("L1.H1"), Provenance("emoji", "00"))


def test_files_that_cannot_be_read_or_written(tmp_path):
    with pytest.raises(RecipeError, match="there is no recipe file"):
        Recipe.load(tmp_path / "none.json")
    with pytest.raises(RecipeError, match="cannot read the recipe"):
        Recipe.load(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(RecipeError, match="cannot write the recipe"):
        Recipe().save(tmp_path / "file" / "recipe.json")
    with pytest.raises(RecipeError, match="cannot be written as JSON"):
        Recipe().save(tmp_path / "recipe.json", Provenance("m", "f", evidence={"score": math.nan}))
    assert os.listdir(tmp_path) == ["file"]


def test_strengths_by_head():
    recipe = Recipe({"L4.H1": 0.5, "L3.H0-1": 0.2}, scale=2.0)
    assert recipe == Recipe("L4.H1 L3.H0 L3.H1", strength=(0.5, 0.2, 0.2), scale=2.0)
    assert Recipe({Head(4, 1): 0.5}) == Recipe("L4.H1", strength=0.5)
    assert Recipe({}) == Recipe()
    with pytest.raises(RecipeError, match="leave one of the two out"):
        Recipe({"L4.H1": 0.5}, strength=0.7)
    with pytest.raises(RecipeError, match="strength must be a number between 0 and 1"):
        Recipe({"L4.H1": 2})
    with pytest.raises(RecipeError, match="named 2 times"):
        Recipe({"L4.H0-1": 0.5, "L4.H1": 0.2})


def test_strengths_stay_with_their_heads():
    recipe = Recipe("L4.H1 L3.H0", strength=(0.9, 0.1))
    assert recipe.replace(heads="L4.H1 L3.H0") == recipe
    assert recipe.replace(heads="L4.H1") == Recipe("L4.H1", strength=0.9)
    assert recipe.replace(heads="L5.H0 L3.H0", strength=(0.3, 0.1)) == Recipe({"L5.H0": 0.3, "L3.H0": 0.1})
    assert recipe.replace(heads={"L5.H0": 0.3}) == Recipe("L5.H0", strength=0.3)
    with pytest.raises(RecipeError, match=r"none for L5\.H0: give strength, too"):
        recipe.replace(heads="L3.H0 L5.H0")
    assert Recipe("L3.H0", strength=0.4).replace(heads="L5.H0 L6.H1") == Recipe("L5.H0 L6.H1", strength=0.4)


@pytest.mark.parametrize("n", [10, 12, 20, 28, 50])
def test_ends_of_an_interval_that_are_not_quite_round(n):
    """As Optuna makes them: low + k * step."""
    for k in range(1, 10):
        rounded, summed = k / 10, sum([0.1] * k)
        recipe = Recipe("L0.H0", interval=(0.0, rounded))
        assert recipe.replace(interval=(0.0, summed)).active_steps(n) == recipe.active_steps(n)
        late = Recipe("L0.H0", interval=(rounded, 1.0))
        assert late.replace(interval=(summed, 1.0)).active_steps(n) == late.active_steps(n)
