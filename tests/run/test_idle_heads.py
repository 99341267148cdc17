"""A head that does nothing, as after pruning: no search ends with it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pagopt.atlas import Atlas, run_atlas
from pagopt.atlas.findings import MOVED
from pagopt.errors import GuidanceError
from pagopt.evaluate import Evaluator, make_trainer
from pagopt.experiment import Run, run_study
from pagopt.folder import Folder
from pagopt.models import load_pipeline
from pagopt.plan import Trial
from pagopt.recipe import PLAIN, Recipe
from pagopt.render import Renderer, Task
from pagopt.store import Store
from pagopt.study import Study

CPU = {"accelerator": "cpu"}


@pytest.fixture
def pruned(tiny_model: Path, tmp_path: Path) -> Path:
    """The tiny model without head L1.H0; the heads of the last block give nothing either."""
    pipe = load_pipeline(str(tiny_model))
    for block, heads in ((1, 1), (2, 2)):
        attention = pipe.transformer.transformer_blocks[block].attn
        for out in (attention.to_out[0], attention.to_add_out):
            if out is not None:
                out.weight.data[:, : heads * out.in_features // 2] = 0
    pipe.save_pretrained(tmp_path / "pruned")
    return tmp_path / "pruned"


def test_an_atlas_says_that_it_moves_nothing(pruned: Path, tmp_path: Path) -> None:
    atlas = Atlas(prompts=["flat, sun", "flat, house"], model=str(pruned), steps=2, layers=False)
    with pytest.warns(UserWarning, match=r"perturbing L\d\.H\d with strength 1\.0 changes nothing") as said:
        found = run_atlas(atlas, tmp_path / "atlas", trainer=CPU)
    still = [str(head) for head, effect in found.single(MOVED).items() if effect.mean == 0]
    assert still == ["L1.H0", "L2.H0", "L2.H1"]
    assert sum("changes nothing" in str(one.message) for one in said) == 3, "once for each head"


@pytest.mark.filterwarnings("ignore:perturbing")
@pytest.mark.parametrize("batch_size", [2, 16])
def test_a_search_goes_past_it(pruned: Path, study: Study, tmp_path: Path, batch_size: int) -> None:
    """In batches of two some hold nothing but heads that do nothing."""
    some = replace(study, model=str(pruned), heads="L1.H0-1 L2.H0-1", compare_layers=False)
    results = run_study(some, "pruned", tmp_path / "run", batch_size, trainer=CPU)
    scores = results.rounds[0].scores
    assert scores["L1.H0"].mean == scores["L2.H1"].mean == pytest.approx(results.baseline.mean)
    assert scores["L1.H1"].mean != scores["L1.H0"].mean


@pytest.mark.parametrize("batch_size", [1, 16])
def test_if_none_does_anything_it_is_an_error(pruned: Path, tmp_path: Path, batch_size: int) -> None:
    """So it is when the store has the images, as in a run that goes on."""
    renderer = Renderer(load_pipeline(str(pruned)), steps=2)
    still, tasks = [Recipe("L1.H0", cfg=1.0), Recipe("L2.H1", cfg=1.0)], [Task("house", 0), Task("cat", 1)]
    with Store(tmp_path / "store") as store:
        for recipes in (still[:1], still, still):
            lax = Evaluator(renderer, {}, store, make_trainer(**CPU), batch_size, strict=False)
            context = (
                pytest.warns(UserWarning, match=r"perturbing L1\.H0")
                if len(recipes) == 1
                else pytest.raises(GuidanceError, match="none of 2 recipes changes anything")
            )
            with context:
                lax([PLAIN, *recipes], tasks)


@pytest.mark.filterwarnings("ignore:perturbing")
def test_once_a_recipe_did_something_others_may_do_nothing(pruned: Path, tmp_path: Path) -> None:
    """As at the end of a race, where those may be left that do no harm."""
    renderer = Renderer(load_pipeline(str(pruned)), steps=2)
    still, task = [Recipe("L1.H0", cfg=1.0), Recipe("L2.H1", cfg=1.0)], Task("house", 0)
    with Store(tmp_path / "store") as store:
        lax = Evaluator(renderer, {}, store, make_trainer(**CPU), strict=False)
        lax([*still, Recipe("L0.H0", cfg=1.0)], [task])
        lax(still, [task, Task("cat", 1)])


def test_a_plan_draws_it_like_any_other(pruned: Path, study: Study, tmp_path: Path) -> None:
    folder = Folder(tmp_path / "run", {})
    run = Run(replace(study, model=str(pruned)), "pruned", folder, 16, CPU, quiet=True)
    trial = Trial(run.evaluator, run.tasks)
    try:
        assert trial.seconds([Recipe("L2.H0"), Recipe("L2.H1")], run.tasks, least=0.0) > 0
    finally:
        trial.close()
        run.close()
