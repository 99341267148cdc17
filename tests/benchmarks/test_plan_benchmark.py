"""The benchmark of plans, on the tiny model: it runs, and its numbers are numbers. Not that they are right."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import plan


def test_it_compares_a_plan_with_its_run(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("pagopt.plan.trial.LEAST", 0.0)
    monkeypatch.setattr("pagopt.tuning.plan.SHORT", 0.0)
    file = tmp_path / "table.json"
    names = ["exhaustive, 1 round", "tuning, nothing pruned"]
    monkeypatch.setitem(plan.STUDIES, names[1], plan.replace(plan.STUDIES[names[1]], recipe="L1.H0 L2.H1", trials=3))
    words = ["--studies", *names, "--model", str(tiny_model), "--steps", "2", "--clock", "cpu", "--json", str(file)]
    assert plan.main(words) == 0
    rows = json.loads(file.read_text(encoding="utf-8"))
    assert [row["study"] for row in rows] == names
    assert all(row["exact"] for row in rows)
    assert all(row["planned / real"] > 0 for row in rows)
    # Exhaustive: 1 + 2 + 3 + 6 + 1 recipes on 4 tasks, 4 methods on 12; two heads may be a whole layer, drawn once.
    assert rows[0]["images planned"] - 4 <= rows[0]["images drawn"] <= rows[0]["images planned"] == 13 * 4 + 4 * 12
    assert "| tuning, nothing pruned |" in capsys.readouterr().out
