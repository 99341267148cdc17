"""Paths may be texts, everywhere in Python."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from pagopt.atlas import Atlas, load_findings, run_atlas
from pagopt.comparison import Comparison, load_entrants, read_prompts, run_comparison
from pagopt.experiment import run_study
from pagopt.files import write_text
from pagopt.results import load_results
from pagopt.store import Store, export, needed_by
from pagopt.study import Study

TRAINER = {"accelerator": "cpu"}


def test_paths_may_be_texts(study: Study, tmp_path: Path) -> None:
    store, run, prompts = (str(tmp_path / name) for name in ("store", "run", "prompts.txt"))
    small = dataclasses.replace(study, heads="L1.H0", rounds=1, cfg_scales=[], compare_layers=False)
    results = run_study(small, "tiny", run, trainer=TRAINER, store=store)
    assert load_results(f"{run}/results.json") == results
    results.save(f"{run}/again.json")
    atlas = Atlas(prompts=["house"], model=study.model, heads="L1.H0", layers=False, steps=2)
    found = run_atlas(atlas, str(tmp_path / "atlas"), trainer=TRAINER)
    assert load_findings(str(tmp_path / "atlas" / "atlas.json")).images == found.images
    write_text(prompts, "boat\ntree\n")
    comparison = Comparison(
        load_entrants([f"{run}/recipe.json"]), read_prompts(prompts), cfg_scales=[], compare_layers=False, best_of=0
    )
    for place in (None, store):
        assert run_comparison(comparison, str(tmp_path / "compared"), place, trainer=TRAINER).standings
    assert needed_by([run, str(tmp_path / "atlas")]).keys > set(found.plain)
    with Store(store) as kept:
        assert export(kept, str(tmp_path / "exported")) == kept.counts()["images"] > 0
