"""What a comparison refuses, what it warns of, and its command line."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from pagopt.cli import main
from pagopt.cli.evaluate import parser, reward_specs
from pagopt.comparison import Comparison, Entrant, Outcome, load_entrants, read_prompts
from pagopt.comparison.baselines import Baselines
from pagopt.comparison.outcome import Choice, Measure, Standing
from pagopt.comparison.statistics import Difference, difference
from pagopt.comparison.tables import legend, methods_rows
from pagopt.comparison.verdict import warnings
from pagopt.errors import PagoptError, RecipeError, StudyError
from pagopt.heads import HeadMap, Site
from pagopt.models import fingerprint, load_pipeline
from pagopt.recipe import Provenance, Recipe
from pagopt.reward import RewardSpec

PROMPTS = ["flat, cat face", "flat, sun"]
EVIDENCE = {"steps": 4, "search_tasks": [["flat, red apple", 0], ["flat, house", 1]]}
OBJECTIVE = [{"label": "clip", "name": "clip", "weight": 1.0, "args": {}}]


def entrant(label: str = "a", heads: str = "L1.H0", **known: object) -> Entrant:
    origin = {"model": "emoji", "fingerprint": "x", "objective": OBJECTIVE, "evidence": EVIDENCE, **known}
    return Entrant(label, Recipe(heads), Provenance(**origin))  # type: ignore[arg-type]


def test_what_is_left_out_comes_from_the_recipes() -> None:
    comparison = Comparison(
        [entrant(), entrant("b", "L2.H0", objective=[{"name": "style", "args": {"style": "ink"}}])], PROMPTS
    )
    assert comparison.specs() == [RewardSpec("clip"), RewardSpec("style", args={"style": "ink"})]
    assert comparison.drawn_steps() == 4
    assert comparison.drawn_model() == "emoji"
    assert [tuple(task) for task in comparison.tuning_tasks()] == [("flat, red apple", 0), ("flat, house", 1)]
    seeds = [task.seed for task in replace(comparison, seeds=3).tasks()]
    assert len(set(seeds)) == 6
    # More seeds or prompts keep the pictures that are there.
    assert set(comparison.tasks()) < set(replace(comparison, seeds=3, prompts=[*PROMPTS, "new"]).tasks())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"entrants": []}, "at least one recipe"),
        ({"entrants": [entrant(), entrant("b")]}, "a and b are the same recipe"),
        ({"entrants": [entrant(), entrant("a", "L2.H0")]}, "two recipes are called a"),
        ({"entrants": [Entrant("a", Recipe("L1.H0", scale=0.0))]}, "the recipe a does nothing"),
        ({"prompts": ["one"]}, "at least 2 tasks, and there is 1"),
        ({"prompts": []}, "at least 2 tasks, and there is 0"),
        ({"prompts": ["one", " "]}, "' ', which is no prompt"),
        ({"prompts": ["one", "two", "One "]}, "'One ' twice"),
        ({"seeds": 0}, "seeds must be at least 1"),
        ({"first_seed": -1}, "must not be negative"),
        ({"cfg_scales": [1.0, 2.0]}, "above 1"),
        ({"cfg_scales": [2.0, 2.0]}, "must be different"),
        ({"cfg_scales": [2.0, 2.0000001]}, "must be different"),
        ({"steps": 0}, "steps must be at least 1"),
        ({"features": RewardSpec("judge")}, "give --reference FOLDER"),
        (
            {"prompts": ["flat,  Red apple", "new"]},
            r"search of recipe a has used 1 of the 2 prompts: 'flat,  Red apple'",
        ),
        ({"first_seed": 1}, "has used the seed 1, .* such as 2"),
        ({"tuning_prompts": ["flat, sun", "x"]}, "1 of the prompts are among the tuning prompts, too: 'flat, sun'"),
        ({"entrants": [entrant(evidence={})]}, "give --steps"),
        ({"entrants": [entrant(), entrant("b", "L2.H0", evidence={"steps": 9})]}, "different steps .a: 4, b: 9."),
        ({"entrants": [entrant(objective=[])]}, "give at least one --reward"),
        ({"entrants": [entrant(evidence={**EVIDENCE, "search_tasks": [["x"]]})]}, r"\['x'\] among its search_tasks"),
        ({"entrants": [entrant(evidence={**EVIDENCE, "search_tasks": 3})]}, "3 among its search_tasks"),
        ({"entrants": [entrant(evidence={**EVIDENCE, "steps": "many"})]}, "steps = 'many'"),
        ({"entrants": [entrant(objective=[{"weight": 1.0}])]}, "objective of recipe a names no reward"),
    ],
)
def test_what_makes_no_sense_is_refused(changes: dict[str, object], message: str) -> None:
    base = Comparison([entrant()], PROMPTS)
    with pytest.raises(PagoptError, match=message):
        replace(base, **changes)  # type: ignore[arg-type]


def test_models_that_differ_and_what_is_allowed() -> None:
    two = Comparison([entrant(), entrant("b", "L2.H0", model="sd3-medium")], PROMPTS)
    with pytest.raises(StudyError, match=r"different model \(a: emoji, b: sd3-medium\)"):
        two.drawn_model()
    assert replace(two, model="emoji").drawn_model() == "emoji"
    with pytest.raises(StudyError, match="give --model"):
        Comparison([Entrant("a", Recipe("L1.H0"))], PROMPTS, rewards=[RewardSpec("clip")], steps=2).drawn_model()
    seen = Comparison([entrant()], ["flat, red apple", "flat, sun"], allow_seen=True)
    assert len(seen.tasks()) == 2


@pytest.mark.parametrize("label", ["no guidance", "CFG 2", "best layer L1", "best of 1.67"])
def test_a_recipe_is_not_called_as_a_baseline_is(label: str) -> None:
    heads = HeadMap(tuple(Site(block, "attn", 2) for block in range(3)))
    Baselines(Comparison([entrant()], PROMPTS), heads, 4, {"clip": 1.0})
    with pytest.raises(StudyError, match=f"a recipe is called '{label}', as a baseline is: give it another name"):
        Baselines(Comparison([entrant(label)], PROMPTS), heads, 4, {"clip": 1.0})


def test_every_best_of_n_has_a_name_of_its_own() -> None:
    recipes = [Recipe("L3.H0", interval=(0, 0.3125)), Recipe("L6.H0", interval=(0, 0.8125)), Recipe("L4.H0")]
    comparison = Comparison([replace(entrant(str(i)), recipe=recipe) for i, recipe in enumerate(recipes)], PROMPTS)
    heads = HeadMap(tuple(Site(block, "attn", 2) for block in range(8)))
    assert list(Baselines(comparison, heads, 16, {"clip": 1.0}).bests.values()) == [
        "best of 1.195", "best of 1.203", "best of 1.5"
    ]  # fmt: skip


def test_prompts_are_read_line_by_line(tmp_path: Path) -> None:
    file = tmp_path / "prompts.txt"
    file.write_bytes("\ufeff# new ones\nflat, cat face\n\n  flat, café \r\nflat, sun\u2028moon\n".encode())
    assert read_prompts(file) == ["flat, cat face", "flat, café", "flat, sun\u2028moon"]
    for content, message in (
        (b"# nothing\n\n", "holds no prompt"),
        (b"a\nb\n\na\n", "'a' in lines 1 and 4"),
        (b"\xff\xfe\x00", "no text in UTF-8"),
    ):
        file.write_bytes(content)
        with pytest.raises(StudyError, match=message):
            read_prompts(file)
    with pytest.raises(StudyError, match="No such file"):
        read_prompts(tmp_path / "none.txt")
    with pytest.raises(StudyError, match="Is a directory"):
        read_prompts(tmp_path)


def test_rewards_are_names_mappings_or_files(tmp_path: Path) -> None:
    (tmp_path / "list.yaml").write_text("- clip\n- {name: style, args: {style: flat}, weight: -1}\n")
    style = RewardSpec("style", -1.0, {"style": "flat"})
    assert reward_specs(["judge", str(tmp_path / "list.yaml"), "{name: hps}"]) == [
        RewardSpec("judge"), RewardSpec("clip"), style, RewardSpec("hps")
    ]  # fmt: skip
    for word, message in (
        ("{name: clip", "is no reward's name"),
        ("{nam: clip}", "unknown key of a reward: 'nam'"),
        ("{name: clip, weight: much}", "it must be a finite number"),
        ("{name: clip, weight: 0}", "other than 0"),
        ("none.yaml", "cannot read the rewards"),
    ):
        with pytest.raises(PagoptError, match=message):
            reward_specs([word])


def outcome(p: float = 0.01, **gains: tuple[float, float, float]) -> Outcome:
    """One recipe against four baselines by one reward, with the given intervals; ``p`` where they leave 0 out."""
    names = {"no guidance": "none", "CFG 2": "cfg", "best of 1.5": "best-of", "mine": "recipe"}
    against = dict(zip(("none", "cfg", "best"), ("no guidance", "CFG 2", "best of 1.5"), strict=True))
    return Outcome(
        "0", "emoji", "x", 2, (Measure("clip", "clip", {}, True, ()),), (("a", 1), ("b", 2)), (),
        (Choice("cfg", "clip", "CFG 2", {"CFG 2": 1.0}, 0.5),),
        tuple(Standing(n, k, {"scale": 1.0, "cfg": 1.0}, 1.5, {}, {}, {}, (), ()) for n, k in names.items()),
        tuple(
            Difference("mine", other, "clip", *gain, wins=0.5, p_value=0.5 if gain[1] <= 0 <= gain[2] else p)
            for gain, other in ((gains.get(short, (2.0, 1.0, 3.0)), other) for short, other in against.items())
        ),
    )  # fmt: skip


def test_tables_have_no_more_digits_and_comparisons_than_there_are() -> None:
    tuned = outcome()
    *others, mine = tuned.standings
    mine = replace(mine, recipe={"scale": 7.360012, "cfg": 1.25}, means={"clip": 1.0}, errors={"clip": 0.1})
    others = [replace(one, means={"clip": 1.0}, errors={"clip": 0.1}) for one in others]
    assert methods_rows(replace(tuned, standings=(*others, mine)))[-1][0] == "mine (w 7.36, CFG 1.25)"
    assert "corrected for 3 comparisons (Holm)" in legend(tuned)
    assert "corrected for 1 comparison (Holm)" in legend(replace(tuned, differences=tuned.differences[:1]))


def test_a_gain_that_disappears_is_said_in_words() -> None:
    assert warnings(outcome()) == ()
    assert warnings(outcome(none=(0.5, -0.1, 1.1), cfg=(-2.0, -3.0, -1.0))) == (), "there was no gain to lose"
    (gone,) = warnings(outcome(cfg=(0.5, -0.5, 1.5)))
    assert "mine gains +2.00 (+1.00 to +3.00) in clip over no guidance, but that gain disappears against CFG 2" in gone
    (worse,) = warnings(outcome(cfg=(-2.0, -3.0, -1.0)))
    assert "but it is worse against CFG 2, tuned for it: −2.00 (−3.00 to −1.00)." in worse
    (luck,) = warnings(outcome(best=(0.0, -1.0, 1.0)))
    assert "against best of 1.5 unguided pictures, which cost the same" in luck
    calm = outcome()
    watched = tuple(replace(d, reward="judge", low=-1.0) for d in calm.differences)
    two_rewards = replace(
        calm,
        rewards=(Measure("clip", "clip", {}, True, ("mine",)), Measure("judge", "judge", {}, True, ())),
        differences=(*calm.differences, *watched),
    )
    (only,) = warnings(two_rewards)
    assert only.startswith("mine gains in what its search maximised (clip) and in nothing else")
    (loss,) = warnings(outcome(none=(-2.0, -3.0, -1.0)))
    assert loss.startswith("mine loses against no guidance in: clip")


def test_few_prompts_to_one_side_are_no_difference() -> None:
    """Of three gains a bootstrap never draws a loss, and by chance all of them have one sign in a quarter of cases."""
    found = difference(("mine", "no guidance", "clip"), [2.0, 3.0, 9.0], [0.0, 0.0, 0.0], ["a", "b", "c"])
    assert found.low > 0
    assert found.p_value > 0.1
    assert not found.better
    assert not found.worse
    assert warnings(outcome(p=found.p_value, none=(-2.0, -3.0, -1.0))) == ()
    assert warnings(outcome(p=found.p_value, cfg=(0.5, -0.5, 1.5))) == (), "there was no clear gain to lose"


def test_evaluate_prints_and_refuses(
    capsys: pytest.CaptureFixture[str], tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    known = Provenance(
        str(tiny_model), fingerprint(load_pipeline(str(tiny_model))), OBJECTIVE, {**EVIDENCE, "steps": 2}
    )
    Path("runs/mine").mkdir(parents=True)
    Recipe("L1.H0", cfg=1.0).save("runs/mine/recipe.json", known)
    Path("new.txt").write_text("\n".join(PROMPTS))
    base = ["evaluate", "runs/mine/recipe.json", "--prompts", "new.txt", "--trainer.accelerator", "cpu"]
    words = [*base, "--reward", "brightness", "--reward", "colorfulness"]
    words += ["--compare_layers", "false", "--cfg_scales", "[2]"]
    assert main(words) == 0
    text = capsys.readouterr().out
    for part in ("2 new prompts", "no guidance", "CFG 2", "best of 1.67", "mine (w 3)", "gain (95 %)", "brightness"):
        assert part in text
    assert "runs/evaluate-mine/table.md" in text
    assert "with 2 prompts the intervals are rough" in text.lower()
    assert json.loads(Path("runs/evaluate-mine/comparison.json").read_text())["model"] == str(tiny_model)
    assert "evaluate" in yaml.safe_load(Path("runs/evaluate-mine/config.yaml").read_text())
    Path("used.txt").write_text("flat, house\nflat, sun\n")
    for more, message in (
        (["--prompts", "none.txt"], "cannot read the prompts"),
        (["--prompts", "used.txt"], "the search of recipe mine has used 1 of the 2 prompts"),
        (["--reward", "brightnes"], "Did you mean 'brightness'?"),
        (["--reward", "clip", "--features", "clip"], "give --reference FOLDER"),
        (["--reward", "brightness", "--reference", "none"], "takes a folder of pictures"),
        (["--reward", "brightness", "--model", "emoji"], "was found on another model"),
        (["--reward", "brightness", "--store", "new.txt"], "is a file"),
        (["--reward", "brightness", "--batch_size", "0"], "batch_size must be at least 1"),
    ):
        assert main([*base, "--out", "other", *more]) == 2, more
        error = " ".join(capsys.readouterr().err.split())
        assert message in error
        assert "Traceback" not in error
    assert not Path("other").exists()


def test_recipes_are_named_by_their_files(tmp_path: Path) -> None:
    for name in ("flat/recipe.json", "ink.json", "more/ink.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Recipe("L1.H0").save(tmp_path / name)
    found = load_entrants([tmp_path / "flat" / "recipe.json", tmp_path / "ink.json"])
    assert [one.label for one in found] == ["flat", "ink"]
    same = [tmp_path / "ink.json", tmp_path / "more" / "ink.json"]
    assert [one.label for one in load_entrants(same)] == list(map(str, same))
    with pytest.raises(StudyError, match="is given twice"):
        load_entrants([tmp_path / "ink.json", tmp_path / "more" / ".." / "ink.json"])
    with pytest.raises(RecipeError, match="there is no recipe file"):
        load_entrants([tmp_path / "none.json"])


def test_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parser().parse_args(["--help"])
    text = capsys.readouterr().out
    for word in ("best of N", "\n  pagopt evaluate runs/flat/recipe.json --prompts new.txt\n", "--trainer.devices"):
        assert word in text
