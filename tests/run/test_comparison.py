"""A comparison on the tiny model: what it says is what drawing and scoring one picture at a time says."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from scipy import stats

from pagopt.comparison import Comparison, Entrant, Outcome, load_entrants, run_comparison
from pagopt.errors import RewardError, StudyError
from pagopt.evaluate import Evaluator, make_trainer
from pagopt.models import fingerprint, load_pipeline
from pagopt.recipe import Provenance, Recipe
from pagopt.render import Job, Renderer, Task
from pagopt.reward import RewardSpec, load_reward
from pagopt.store import Store

TRAINER = {"accelerator": "cpu"}
SEARCHED = [("flat, red apple", 0), ("flat, house", 1)]
PROMPTS = ["flat, cat face", "flat, evergreen tree", "flat, sun"]
RECIPES = {"late": Recipe("L2.H1", scale=2.0, cfg=1.0), "early": Recipe("L0.H1 L1.H0", strength=0.5, cfg=1.0)}
REWARD = "pixels.py"
PIXELS = '''
import numpy as np

def redness(images, prompts):
    return [float(np.asarray(image)[..., 0].mean()) for image in images]

class Grid:
    """Also offers features: the picture in 2 x 2 pixels."""

    def __call__(self, images, prompts):
        return [float(np.asarray(image)[..., 2].mean()) for image in images]

    def features(self, images):
        return np.stack([np.asarray(image.resize((2, 2))).ravel() for image in images])

class Broken(Grid):
    def features(self, images):
        return np.zeros(3)
'''


@dataclass
class Finished:
    """A comparison that was run."""

    comparison: Comparison
    outcome: Outcome
    out: Path


def entrants(folder: Path, model: Path) -> list[Entrant]:
    """Recipe files with their evidence, read."""
    known = Provenance(
        str(model),
        fingerprint(load_pipeline(str(model))),
        [{"label": "brightness", "name": "brightness", "weight": 1.0, "args": {}}],
        {"steps": 2, "search_tasks": [list(task) for task in SEARCHED], "held_out_tasks": [["flat, sun", 1000]]},
    )
    for name, recipe in RECIPES.items():
        recipe.save(folder / f"{name}.json", known)
    return load_entrants([folder / f"{name}.json" for name in RECIPES])


@pytest.fixture(scope="module")
def reward_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rewards") / REWARD
    path.write_text(PIXELS)
    return path


@pytest.fixture(scope="module")
def finished(tiny_model: Path, reward_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """Two recipes, three prompts of two seeds, two rewards of which lower is better for the second."""
    folder = tmp_path_factory.mktemp("comparison")
    comparison = Comparison(
        entrants(folder, tiny_model),
        PROMPTS,
        seeds=2,
        cfg_scales=[1.5, 3.0],
        rewards=[RewardSpec("brightness"), RewardSpec(f"{reward_file}:redness", -1.0)],
    )
    return Finished(comparison, run_comparison(comparison, folder / "out", trainer=TRAINER), folder / "out")


@pytest.fixture(scope="module")
def renderer(tiny_model: Path) -> Renderer:
    return Renderer(load_pipeline(str(tiny_model)), steps=2)


def pictures(store: Path) -> list[Path]:
    """The image files of a store, whatever their format."""
    return sorted(path for path in (store / "images").rglob("*") if path.is_file())


def scores(renderer: Renderer, reward: str, recipe: Recipe, tasks: Sequence[tuple[str, int]]) -> list[float]:
    """One picture at a time."""
    judge = load_reward(reward)
    found = []
    for prompt, seed in tasks:
        (image,) = renderer.render([Job(recipe, Task(prompt, seed))])
        found.append(judge([image], [prompt]).item())
    return found


def test_scores_and_differences_are_those_of_single_pictures(finished: Finished, renderer: Renderer) -> None:
    outcome = finished.outcome
    assert outcome.tasks == tuple((p, 100_000 + 100_000 * j + i) for i, p in enumerate(PROMPTS) for j in range(2))
    names = [standing.name for standing in outcome.standings]
    assert (names[0], names[-2:]) == ("no guidance", ["late", "early"])
    for name, recipe in {"no guidance": Recipe(scale=0.0), **RECIPES}.items():
        plain = scores(renderer, "brightness", recipe, outcome.tasks)
        # A batch of another size may differ by one level in a few pixels.
        np.testing.assert_allclose(outcome.standing(name).scores["brightness"], plain, atol=1e-4)
    late, none = (np.array(outcome.standing(name).scores["redness"]) for name in ("late", "no guidance"))
    found = outcome.difference("late", "no guidance", "redness")
    assert found.mean == pytest.approx(np.mean(none - late)), "less red is better"
    assert found.wins == np.mean(late < none)
    assert found.p_value == pytest.approx(stats.ttest_1samp((none - late).reshape(3, 2).mean(axis=1), 0).pvalue)
    assert len(outcome.differences) == 2 * 2 * (len(names) - 3), "each against all baselines, one best-of-N each"
    assert all(one.corrected >= one.p_value for one in outcome.differences)


def test_baselines_are_chosen_on_the_search_tasks_alone(finished: Finished, renderer: Renderer) -> None:
    outcome = finished.outcome
    assert outcome.tuning_tasks == tuple(SEARCHED)
    means = {g: np.mean(scores(renderer, "brightness", Recipe(scale=0.0, cfg=g), SEARCHED)) for g in (1.5, 3.0)}
    assert outcome.tuned("brightness") == f"CFG {max(means, key=lambda g: means[g]):g}"
    choice = next(choice for choice in outcome.choices if choice.kind == "layer")
    assert choice.reward == "brightness"
    heads = {layer: f"L{layer}.H0 L{layer}.H1" for layer in range(3)}
    bases = {"late": Recipe(scale=2.0, cfg=1.0), "early": Recipe(strength=0.5, cfg=1.0)}
    layers = {
        f"best layer L{layer} (as {label})": np.mean(
            scores(renderer, "brightness", base.replace(heads=heads[layer]), SEARCHED)
        )
        for label, base in bases.items()
        for layer in heads
    }
    assert choice.means == pytest.approx(layers, abs=1e-4)
    assert choice.method == max(layers, key=lambda name: layers[name])
    assert outcome.standing(choice.method).kind == "layer"


@pytest.mark.parametrize(
    ("recipe", "compute", "counts"), [("late", 4 / 3, [2, 1, 1, 2, 1, 1]), ("early", 2.0, [2] * 6)]
)
def test_best_of_n_is_the_best_of_what_the_recipe_pays_for(
    finished: Finished, renderer: Renderer, recipe: str, compute: float, counts: list[int]
) -> None:
    outcome = finished.outcome
    assert outcome.standing(recipe).compute == pytest.approx(compute)
    best = next(s for s in outcome.standings if s.kind == "best-of" and s.compute == pytest.approx(compute))
    assert f"{sum(counts)} unguided pictures for 6 tasks" in " ".join(outcome.notes)
    further = [Task(prompt, seed + 10**9) for prompt, seed in outcome.tasks]
    with Store(finished.out / "store") as store:
        look = Evaluator(renderer, {"b": load_reward("brightness")}, store, make_trainer(**TRAINER))
        others = look([Recipe(scale=0.0)], further)["b"][0]
        assert look.images_generated == 0
    own = outcome.standing("no guidance").scores["brightness"]
    for i, count in enumerate(counts):
        candidates = {outcome.tasks[i][1]: own[i]} | ({further[i].seed: others[i]} if count == 2 else {})
        assert best.scores["brightness"][i] == max(candidates.values())
        assert candidates[best.seeds[i]] == max(candidates.values())
    assert any(seed >= 10**9 for seed in best.seeds)
    assert best.means["brightness"] > outcome.standing("no guidance").means["brightness"]


def test_the_folder_holds_what_it_promises(finished: Finished) -> None:
    outcome, out = finished.outcome, finished.out
    assert {path.name for path in out.iterdir()} == {
        "comparison.json", "config.yaml", "differences.csv", "scores.csv", "sheet.png", "store", "table.csv", "table.md"
    }  # fmt: skip
    data = json.loads((out / "comparison.json").read_text(encoding="utf-8"))
    assert data["schema"] == 1
    assert data["standings"][0]["scores"]["brightness"] == list(outcome.standings[0].scores["brightness"])
    page = (out / "table.md").read_text(encoding="utf-8")
    assert "| method | compute | brightness* | redness ↓ |" in page
    assert "| late (w 2) | 1.33 |" in page
    assert "1 of the prompts were held-out prompts" in page
    rows = list(csv.DictReader((out / "table.csv").read_text(encoding="utf-8").splitlines()))
    assert [row["method"] for row in rows] == [s.name for s in outcome.standings]
    assert float(rows[-1]["redness mean"]) == pytest.approx(outcome.standing("early").means["redness"], rel=1e-5)
    assert len(list(csv.DictReader((out / "scores.csv").read_text().splitlines()))) == 6 * len(outcome.standings)
    assert len((out / "differences.csv").read_text().splitlines()) == 1 + len(outcome.differences)
    assert yaml.safe_load((out / "config.yaml").read_text(encoding="utf-8"))["seeds"] == 2
    with Image.open(out / "sheet.png") as sheet:
        assert sheet.width > 3 * 128
        assert sheet.height > len(outcome.standings) * 128


def test_the_second_time_nothing_is_drawn_and_another_reward_costs_its_scoring(
    finished: Finished, tmp_path: Path
) -> None:
    again = run_comparison(finished.comparison, finished.out, trainer=TRAINER)
    assert finished.outcome.images_generated == 2 + 2 * 2 + 6 * 2 + 6 + 6 * (len(again.standings) - 3) + 6
    assert replace(again, images_generated=0, seconds=0.0) == replace(finished.outcome, images_generated=0, seconds=0.0)
    assert again.images_generated == 0
    more = replace(finished.comparison, rewards=[*finished.comparison.rewards, RewardSpec("sharpness")], best_of=False)
    shared = run_comparison(more, tmp_path / "other", finished.out / "store", trainer=TRAINER)
    assert shared.images_generated in {0, 6}, "a CFG scale that only sharpness prefers may be new"
    assert {"sharpness", "brightness"} < shared.standings[0].scores.keys()
    assert not any(standing.kind == "best-of" for standing in shared.standings)
    # A search's store serves as well; a folder of something else does not.
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "mother.txt").write_text("dear")
    with pytest.raises(StudyError, match="holds no comparison"):
        run_comparison(more, tmp_path / "letters", trainer=TRAINER)


def test_a_stopped_comparison_loses_nothing(finished: Finished, tmp_path: Path) -> None:
    stopping = tmp_path / "stopping.py"
    stopping.write_text(
        "import numpy as np\nfrom pathlib import Path\nmark = Path(__file__).with_name('mark')\n"
        "def brightness(images, prompts):\n"
        "    count = int(mark.read_text()) if mark.exists() else 0\n"
        "    mark.write_text(str(count + 1))\n"
        "    if count == 8:\n        raise KeyboardInterrupt\n"
        "    return [float(np.asarray(i).mean()) for i in images]\n"
    )
    comparison = replace(
        finished.comparison, rewards=[RewardSpec(f"{stopping}:brightness")], seeds=1, compare_layers=False
    )
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        run_comparison(comparison, out, batch_size=2, trainer=TRAINER)
    before = {path.name: path.stat().st_mtime_ns for path in pictures(out / "store")}
    assert len(before) > 8
    assert not (out / "comparison.json").exists()
    rest = run_comparison(comparison, out, batch_size=2, trainer=TRAINER)
    after = {path.name: path.stat().st_mtime_ns for path in pictures(out / "store")}
    assert before.items() <= after.items()
    assert rest.images_generated == len(after) - len(before)


def test_distances_to_reference_pictures(finished: Finished, reward_file: Path, tmp_path: Path) -> None:
    drawn = pictures(finished.out / "store")[:9]
    (tmp_path / "real" / "more").mkdir(parents=True)
    for number, path in enumerate(drawn):
        shutil.copy(path, tmp_path / "real" / ("more" if number % 2 else "") / f"{number}{path.suffix}")
    (tmp_path / "real" / "notes.txt").write_text("not a picture")
    comparison = replace(
        finished.comparison, reference=tmp_path / "real", features=RewardSpec(f"{reward_file}:Grid"), best_of=False
    )
    outcome = run_comparison(comparison, tmp_path / "out", finished.out / "store", trainer=TRAINER)
    found = outcome.distances
    assert found is not None
    assert (found.width, found.references) == (12, 9)
    assert [one.method for one in found.methods] == [standing.name for standing in outcome.standings]

    def features(files: Sequence[Path]) -> np.ndarray:
        return np.stack([np.asarray(Image.open(file).convert("RGB").resize((2, 2))).ravel() for file in files])

    real = features(drawn).astype(float)
    files = {path.stem: path for path in pictures(finished.out / "store")}
    for one in found.methods:
        keys = outcome.standing(one.method).images
        own = features([files[key] for key in keys]).astype(float)
        # The formula as it stands, with a matrix root by eigenvalues.
        a, b = np.cov(real.T), np.cov(own.T)
        root = np.sqrt(np.clip(np.linalg.eigvals(a @ b).real, 0, None)).sum()
        expected = ((real.mean(0) - own.mean(0)) ** 2).sum() + np.trace(a) + np.trace(b) - 2 * root
        assert one.frechet.value == pytest.approx(expected, rel=1e-3)
        assert 0 <= one.manifold.coverage <= 1
    assert set(found.differences) == {
        f"{recipe} - {other}" for recipe in RECIPES for other in ("no guidance", outcome.tuned("brightness"))
    }
    page = (tmp_path / "out" / "table.md").read_text(encoding="utf-8")
    assert "| method | Frechet ↓ | precision | recall | density | coverage |" in page
    assert "| late - no guidance |" in page
    with pytest.raises(StudyError, match="none of the rewards brightness, redness has features"):
        run_comparison(replace(comparison, features=None), tmp_path / "out", trainer=TRAINER)
    broken = replace(comparison, features=RewardSpec(f"{reward_file}:Broken"))
    with pytest.raises(Exception, match=r"have the shape \(3,\) for 9 pictures"):
        run_comparison(broken, tmp_path / "out", finished.out / "store", trainer=TRAINER)


def test_reference_pictures_that_cannot_be_read_are_named(finished: Finished, tmp_path: Path) -> None:
    comparison = replace(finished.comparison, reference=tmp_path / "real", features=RewardSpec("brightness"))
    with pytest.raises(StudyError, match="takes a folder of pictures"):
        run_comparison(comparison, tmp_path / "out", trainer=TRAINER)
    (tmp_path / "real").mkdir()
    for number in range(6):
        with pytest.raises(StudyError, match=f"holds {number} pictures"):
            run_comparison(comparison, tmp_path / "out", trainer=TRAINER)
        Image.new("RGB", (8, 8)).save(tmp_path / "real" / f"{number}.png")
    with pytest.raises(Exception, match="the reward 'brightness' has no features"):
        run_comparison(comparison, tmp_path / "out", trainer=TRAINER)
    (tmp_path / "real" / "3.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    with pytest.raises(StudyError, match=r"cannot read the reference picture .*3\.png"):
        run_comparison(comparison, tmp_path / "out", trainer=TRAINER)
    assert not (tmp_path / "out").exists()


def test_prompts_that_a_reward_refuses_are_named_before_anything_is_loaded(finished: Finished, tmp_path: Path) -> None:
    comparison = replace(finished.comparison, rewards=["classifier"], prompts=["flat, cat face", "a sun"], model="none")
    with pytest.raises(RewardError, match="the prompt 'a sun' names no style"):
        run_comparison(comparison, tmp_path / "out", trainer=TRAINER)


def test_a_recipe_of_another_model_is_refused_unless_it_is_meant(finished: Finished, tmp_path: Path) -> None:
    first = finished.comparison.entrants[0]
    assert first.provenance is not None
    other = replace(first, provenance=replace(first.provenance, fingerprint="feed" * 8))
    comparison = replace(finished.comparison, entrants=[other], seeds=1, compare_layers=False, cfg_scales=[])
    message = rf"late was found on another model: .*feedfeed.* has {finished.outcome.fingerprint}"
    with pytest.raises(StudyError, match=message):
        run_comparison(comparison, tmp_path / "out", trainer=TRAINER)
    assert not (tmp_path / "out").exists()
    store = finished.out / "store"
    allowed = run_comparison(replace(comparison, allow_other_model=True), tmp_path / "out", store, trainer=TRAINER)
    assert any("Found on other weights" in note for note in allowed.notes)
    wide = replace(other, recipe=Recipe("L7.H0"))
    with pytest.raises(Exception, match=r"late does not fit this model: unknown head 'L7\.H0'"):
        run_comparison(replace(comparison, entrants=[wide], allow_other_model=True), tmp_path / "o", trainer=TRAINER)


def test_a_recipe_without_evidence_has_no_tuned_baselines(finished: Finished, tiny_model: Path, tmp_path: Path) -> None:
    bare = Entrant("bare", RECIPES["late"])
    comparison = replace(
        finished.comparison, entrants=[bare], seeds=1, model=str(tiny_model), steps=2, cfg_scales=[1.5, 3.0]
    )
    store = finished.out / "store"
    outcome = run_comparison(comparison, tmp_path / "out", store, trainer=TRAINER)
    assert [standing.kind for standing in outcome.standings] == ["none", "best-of", "recipe"]
    text = " ".join(outcome.notes)
    assert "neither a tuned CFG nor a best layer" in text
    assert "Not known is what the search of bare used" in text
    tuned = run_comparison(
        replace(comparison, tuning_prompts=["flat, house"], compare_layers=False),
        tmp_path / "out",
        store,
        trainer=TRAINER,
    )
    assert outcome.tuned("brightness") == ""
    assert tuned.tuned("brightness") in {"CFG 1.5", "CFG 3"}
    assert tuned.tuning_tasks == (("flat, house", 0),)


@pytest.mark.slow
def test_two_processes_find_the_same(finished: Finished, tmp_path: Path) -> None:
    (tmp_path / "new.txt").write_text("\n".join(PROMPTS))
    folder = finished.out.parent
    words = [sys.executable, "-m", "pagopt", "evaluate", *(str(folder / f"{name}.json") for name in RECIPES)]
    words += ["--prompts", str(tmp_path / "new.txt"), "--seeds", "2", "--cfg_scales", "[1.5, 3.0]"]
    words += ["--out", str(tmp_path / "out"), "--trainer.accelerator", "cpu", "--trainer.devices", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("gains on the same prompts and seeds") == 1, "one process speaks"
    found = json.loads((tmp_path / "out" / "comparison.json").read_text(encoding="utf-8"))
    for standing in found["standings"]:
        alone = finished.outcome.standing(standing["name"])
        np.testing.assert_allclose(standing["scores"]["brightness"], alone.scores["brightness"], atol=1e-4)
