"""An atlas of the tiny model: what it says is what drawing and measuring one picture at a time says."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from scipy import stats

from pagopt.atlas import EXAMPLES, Atlas, Findings, load_findings, run_atlas
from pagopt.atlas.findings import MOVED
from pagopt.cli import main
from pagopt.errors import PagoptError, RecipeError, StudyError, UnknownName
from pagopt.evaluate import Progress
from pagopt.looks import SINGLE, distances, measure
from pagopt.models import load_pipeline
from pagopt.recipe import Recipe
from pagopt.render import Job, Renderer, Task
from pagopt.reward import load_reward
from tests.atlas.conftest import CPU

NAMES = [f"L{block}.H{head}" for block in range(3) for head in range(2)] + ["L0", "L1", "L2"]


def test_every_head_and_layer_is_drawn(drawn: tuple[Findings, Path], tiny_atlas: Atlas):
    found, out = drawn
    assert list(found.images) == NAMES
    seeds = {"flat, red apple": (0, 100_000), "flat, house": (1, 100_001), "ink, sun": (2, 100_002)}
    assert found.tasks == [(prompt, seed) for prompt, some in seeds.items() for seed in some]
    assert found.tasks == tiny_atlas.tasks()
    assert found.perturbed == {**{name: name for name in NAMES[:6]}, **{f"L{n}": f"L{n}.H0-1" for n in range(3)}}
    assert found.images_generated == 10 * 6
    assert list(found.effects) == [MOVED, *SINGLE, "colorfulness"]
    assert {path.name for path in out.iterdir()} == {
        "atlas.html", "heads.png", "effects.png", "heads.csv", "atlas.json", "config.yaml", "store",
    }  # fmt: skip
    assert repr(load_findings(out / "atlas.json")) == repr(found)


def test_effects_are_those_of_pictures_drawn_one_by_one(drawn: tuple[Findings, Path], tiny_atlas: Atlas):
    found, _ = drawn
    renderer = Renderer(load_pipeline(tiny_atlas.model), steps=2)
    colour = load_reward("colorfulness")
    tasks = [Task(*task) for task in found.tasks]

    def pictures(recipe: Recipe) -> list[Image.Image]:
        return [renderer.render([Job(recipe, task)])[0] for task in tasks]

    plain = pictures(Recipe(scale=0.0, cfg=1.0))
    for name, heads in (("L1.H0", "L1.H0"), ("L2", "L2.H0-1")):
        guided = pictures(Recipe(heads, scale=2.0, cfg=1.0))
        before, after = ([measure(picture) for picture in some] for some in (plain, guided))
        gaps = [distances([one, other])[0, 1] for one, other in zip(before, after, strict=True)]
        assert found.effects[MOVED][name].mean == pytest.approx(np.mean(gaps), rel=1e-3)
        assert found.effects[MOVED][name].mean > 0
        changes = {
            "brightness": [b.brightness - a.brightness for a, b in zip(before, after, strict=True)],
            "colorfulness": (colour(guided, [""] * 6) - colour(plain, [""] * 6)).tolist(),
        }
        for label, gains in changes.items():
            prompts = np.reshape(gains, (3, 2)).mean(axis=1)  # the seeds of a prompt count as one
            effect = found.effects[label][name]
            assert effect.mean == pytest.approx(prompts.mean(), rel=1e-3, abs=1e-6)
            assert effect.se == pytest.approx(prompts.std(ddof=1) / np.sqrt(3), rel=1e-2, abs=1e-6)
            assert effect.p >= stats.ttest_1samp(prompts, 0).pvalue - 1e-3


def test_it_goes_on_where_it_was(drawn: tuple[Findings, Path], tiny_atlas: Atlas, tmp_path: Path):
    found, out = drawn
    again = run_atlas(tiny_atlas, tmp_path / "again", out / "store", trainer=CPU)
    assert again.images_generated == 0
    assert repr(replace(again, images_generated=60, seconds=found.seconds)) == repr(found)
    more = run_atlas(replace(tiny_atlas, prompts=[*tiny_atlas.prompts, "ink, cat face"], layers=False, heads="L1.H*"),
                     tmp_path / "again", out / "store", trainer=CPU)  # fmt: skip
    assert more.images_generated == 3 * 2, "plain and two heads, two seeds of the new prompt"
    assert list(more.images) == ["L1.H0", "L1.H1"]
    assert not more.layers(MOVED)
    config = yaml.safe_load((tmp_path / "again" / "config.yaml").read_text(encoding="utf-8"))
    assert config["heads"] == "L1.H*"


def test_the_bar_never_goes_back(
    drawn: tuple[Findings, Path], tiny_atlas: Atlas, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    shares = []

    class Watched(Progress):
        def add(self, jobs: int) -> None:
            super().add(jobs)
            shares.append(self.done / self.bar.total)

    monkeypatch.setattr("pagopt.atlas.run.Progress", Watched)
    run_atlas(tiny_atlas, tmp_path / "again", drawn[1] / "store", trainer=CPU)
    assert shares == sorted(shares)
    assert shares[-1] == 1


def test_a_searchs_own_pictures_are_used(tiny_atlas: Atlas, drawn: tuple[Findings, Path], tmp_path: Path):
    """An exhaustive search's first round draws each head on prompts with the seeds 0, 1, ..."""
    study = {"reward": "brightness", "prompts": list(tiny_atlas.prompts), "model": tiny_atlas.model, "steps": 2,
             "rounds": 1, "heads_per_round": 1, "scale": 2.0, "cfg_scales": []}  # fmt: skip
    file = tmp_path / "study.yaml"
    file.write_text(yaml.safe_dump(study), encoding="utf-8")
    words = ["search", str(file), "--out", str(tmp_path / "run"), "--trainer.accelerator", "cpu"]
    assert main(words) == 0
    one = replace(tiny_atlas, seeds=1)
    found = run_atlas(one, tmp_path / "atlas", tmp_path / "run" / "store", trainer=CPU)
    assert found.images_generated == 0


def test_foreign_folders_are_left_alone(tiny_atlas: Atlas, tmp_path: Path):
    (tmp_path / "thesis.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(StudyError, match="is not empty and holds no atlas"):
        run_atlas(tiny_atlas, tmp_path, trainer=CPU)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"model": "sd3-medium", "prompts": []}, StudyError, "at least one prompt for sd3-medium"),
        ({"prompts": ["a", " "]}, StudyError, "' ', which is no prompt"),
        ({"prompts": ["a", "a"]}, StudyError, "'a' twice"),
        ({"seeds": 0}, StudyError, "seeds must be at least 1"),
        ({"first_seed": -1}, StudyError, "must not be negative"),
        ({"scale": 0.0}, StudyError, "no head does anything"),
        ({"strength": 0.0}, StudyError, "no head does anything"),
        ({"strength": 2.0}, RecipeError, "strength"),
        ({"interval": (0.9, 0.95), "steps": 4}, PagoptError, "holds none of the 4 sampling steps"),
        ({"dtype": "float8"}, UnknownName, "dtype"),
        ({"rewards": [""]}, PagoptError, "reward"),
        ({"target": "unifrom"}, UnknownName, "Did you mean 'uniform'"),
        ({"target": "blur", "target_options": {"sigma": -1}}, RecipeError, "sigma of blur"),
    ],
)
def test_what_makes_no_sense_is_said_before_anything_is_loaded(changes, error, words):
    with pytest.raises(error, match=words):
        Atlas(**{"prompts": ["a"], **changes})


def test_heads_that_are_not_there_are_refused(tiny_atlas: Atlas, tmp_path: Path):
    with pytest.raises(UnknownName, match=r"L7\.H0"):
        run_atlas(replace(tiny_atlas, heads="L7.H0"), tmp_path / "out", trainer=CPU)


def test_the_embedded_model_has_examples():
    assert Atlas().prompts == EXAMPLES


def test_the_command_says_what_stands_out(
    drawn: tuple[Findings, Path], tiny_atlas: Atlas, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    found, out = drawn
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("# two\nflat, house\nink, sun\n", encoding="utf-8")
    words = ["atlas", tiny_atlas.model, "--prompt", "flat, red apple", "--prompts", str(prompts), "--seeds", "2"]
    words += ["--reward", "colorfulness", "--scale", "2", "--steps", "2", "--out", str(tmp_path / "run")]
    words += ["--store", str(out / "store"), "--trainer.accelerator", "cpu"]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "6 heads alone, 6 pictures of each" in said
    assert "0 new images" in said
    furthest = max(found.single(MOVED).items(), key=lambda item: item[1].mean)[0]
    assert f"furthest (0 to 1) with {furthest} " in said
    assert max(map(len, said.splitlines()[3:9])) <= 80
    for label in found.effects:
        assert label == MOVED or label in said
    assert (tmp_path / "run" / "atlas.html").is_file()
    assert main([*words, "--heads", "L9.H0"]) == 2
    assert "error: " in capsys.readouterr().err
    words = ["atlas", tiny_atlas.model, "--prompt", "flat, sun", "--steps", "2", "--heads", "L1.H0", "--layers", "no"]
    words += ["--target", "blur", "--target_options.sigma", "2", "--out", str(tmp_path / "blur")]
    assert main([*words, "--trainer.accelerator", "cpu"]) == 0
    assert load_findings(tmp_path / "blur" / "atlas.json").recipe["target_options"] == {"sigma": 2.0}
    assert "give more prompts to test" in capsys.readouterr().out
    assert main(["atlas", "flux-dev"]) == 2
    assert "give at least one prompt for flux-dev" in capsys.readouterr().err


def test_two_processes_draw_the_same_atlas(drawn: tuple[Findings, Path], tiny_atlas: Atlas, tmp_path: Path):
    found, _ = drawn
    words = [sys.executable, "-m", "pagopt", "atlas", tiny_atlas.model, "--out", str(tmp_path / "pair")]
    for prompt in tiny_atlas.prompts:
        words += ["--prompt", prompt]
    words += ["--seeds", "2", "--reward", "colorfulness", "--scale", "2", "--steps", "2"]
    words += ["--trainer.accelerator", "cpu", "--trainer.devices", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=280, check=False)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count("6 heads alone") == 1, "one process speaks"
    pair = load_findings(tmp_path / "pair" / "atlas.json")
    assert (pair.images, pair.plain) == (found.images, found.plain)
    for label, row in found.effects.items():
        for name, one in row.items():
            assert pair.effects[label][name].mean == pytest.approx(one.mean, rel=1e-3, abs=1e-5), (label, name)
