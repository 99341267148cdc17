"""The folders of four commands: none takes over what another made."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pagopt.atlas import Atlas, run_atlas
from pagopt.comparison import Comparison, Entrant, run_comparison
from pagopt.errors import StudyError
from pagopt.experiment import run_study
from pagopt.recipe import Recipe
from pagopt.reward import RewardSpec
from pagopt.study import Study
from pagopt.tuning import Tuning, tune

CPU = {"accelerator": "cpu"}
Commands = dict[str, Callable[[Path], object]]


@pytest.fixture
def commands(tiny_model: Path) -> Commands:
    """As little of each as there can be, into a folder."""
    model, prompts = str(tiny_model), ["sun", "cat"]
    study = Study(
        reward="colorfulness",
        prompts=prompts,
        model=model,
        rounds=1,
        heads_per_round=1,
        compare_layers=False,
        cfg_scales=[],
        steps=1,
    )
    comparison = Comparison(
        [Entrant("a", Recipe("L0.H0"), None)],
        prompts,
        rewards=[RewardSpec("colorfulness")],
        best_of=False,
        model=model,
        steps=1,
        dtype="float32",
        quantize="none",
    )
    tuning = Tuning(study, recipe="L0.H0", space={"strength": [0, 1]}, trials=3)
    return {
        "search": lambda out: run_study(study, "tiny", out, trainer=CPU),
        "tune": lambda out: tune(tuning, "tiny", out, trainer=CPU),
        "evaluate": lambda out: run_comparison(comparison, out, trainer=CPU),
        "atlas": lambda out: run_atlas(Atlas(prompts, model, heads="L0.H*", layers=False, steps=1), out, trainer=CPU),
    }


@pytest.mark.parametrize("made", ["search", "tune", "evaluate", "atlas"])
def test_what_another_command_made_is_refused(commands: Commands, tmp_path: Path, made: str) -> None:
    out = tmp_path / "run"
    commands[made](out)
    for unfinished in (False, True):
        for file in out.glob("*.json") if unfinished else ():
            file.unlink()
        before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
        for name in set(commands) - {made}:
            with pytest.raises(StudyError, match=f"holds what `pagopt {made}` made; choose another folder with --out"):
                commands[name](out)
        assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
        commands[made](out)
