"""A head that does nothing, as after pruning: no search ends with it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pagopt.atlas import Atlas, run_atlas
from pagopt.atlas.findings import MOVED
from pagopt.errors import GuidanceError
from pagopt.evaluate import Evaluator, make_trainer
from pagopt.experiment import run_study
from pagopt.models import load_pipeline
from pagopt.recipe import Recipe
from pagopt.render import Renderer
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
def test_a_search_goes_past_it(pruned: Path, study: Study, tmp_path: Path) -> None:
    results = run_study(replace(study, model=str(pruned)), "pruned", tmp_path / "run", trainer=CPU)
    scores = results.rounds[0].scores
    assert scores["L1.H0"].mean == scores["L2.H1"].mean == pytest.approx(results.baseline.mean)
    assert scores["L0.H0"].mean != scores["L1.H0"].mean


def test_if_none_does_anything_it_is_an_error(pruned: Path, tmp_path: Path) -> None:
    renderer = Renderer(load_pipeline(str(pruned)), steps=2)
    one, other = Recipe("L1.H0", cfg=1.0), Recipe("L2.H1", cfg=1.0)
    with Store(tmp_path / "store") as store:
        lax = Evaluator(renderer, {}, store, make_trainer(**CPU), strict=False)
        with pytest.raises(GuidanceError, match="none of 2 recipes changes anything"):
            lax.module._report([one, other], {one, other})
