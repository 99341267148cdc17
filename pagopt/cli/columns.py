"""Columns of the tables that commands print."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pagopt.report.reading import decimals, measured
from pagopt.results import Estimate, PairedTest

__all__ = ["compared", "estimates"]


def estimates(column: Sequence[Estimate], *, sign: bool = False) -> list[str]:
    """``16.1 ± 0.7``: to as many decimals as the largest standard error deserves, as in the report.

    Where nothing varies, or there is a single task, there is no error to show.
    """
    places = decimals(estimate.se for estimate in column)
    return [measured(estimate.mean, estimate.se or math.nan, places, sign) for estimate in column]


def compared(names: Sequence[str], tests: Sequence[PairedTest]) -> list[tuple[str, str, str]]:
    """Difference, wins and p of each method's test; empty where a method has none, or the test no p-value."""
    differences = estimates([Estimate(test.difference, test.se) for test in tests], sign=True)
    known = {
        test.against: (difference, f"{test.wins:.0%}", f"{test.p_value:.2g}" if math.isfinite(test.p_value) else "")
        for test, difference in zip(tests, differences, strict=True)
    }
    return [known.get(name, ("", "", "")) for name in names]
