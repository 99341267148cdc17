"""The benchmark that kills searches: what it counts as passed, and one case of it."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import kills
from benchmarks.disturbed import size_of
from benchmarks.kills import Case, cases


def test_twenty_cases_hold_every_way_with_both_searches_and_one_or_two_processes() -> None:
    made = cases(20)
    assert Counter(case.way for case in made) == dict.fromkeys(kills.WAYS, 5)
    for way in kills.WAYS:
        own = [case for case in made if case.way == way]
        assert {case.search for case in own} == set(kills.SEARCHES)
        assert {case.processes for case in own} == ({2} if way == "one of two" else {1, 2})


def test_a_case_passes_only_if_nothing_was_lost() -> None:
    good = Case(
        0, "Ctrl-C", "racing", 1, status=130, again=8, limit=8, recipe=True, difference=1e-4, pixels=1, share=1e-5,
        verified=(0, 0),
    )  # fmt: skip
    assert good.passed
    for change in (
        {"recipe": False}, {"again": 9}, {"verified": (1, 0)}, {"verified": (0, 2)}, {"pixels": 2}, {"share": 1e-3},
        {"difference": 1.0}, {"left": True}, {"status": 0},
    ):  # fmt: skip
        assert not replace(good, **change).passed, change  # type: ignore[arg-type]


def test_a_disk_counts_in_pages(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a").write_bytes(b"1")
    (tmp_path / "b").write_bytes(b"1" * 4097)
    (tmp_path / "c").write_bytes(b"")
    assert size_of(tmp_path) == 3 * 4096


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_one_case(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert kills.main(["--out", str(tmp_path), "--only", "0"]) == 0
    assert "| the same |" in capsys.readouterr().out
    (case,) = json.loads((tmp_path / "cases.json").read_text())
    assert case["status"] == -9
    assert kills.main(["--out", str(tmp_path), "--count", "1"]) == 0, "what is finished is only compared again"
