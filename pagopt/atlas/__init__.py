"""What every head of a model does, alone: pictures, measurements, and a page to look at."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pagopt.lazy import on_first_use

if TYPE_CHECKING:
    from pagopt.atlas.atlas import EXAMPLES, Atlas
    from pagopt.atlas.findings import Effect, Findings, load_findings
    from pagopt.atlas.run import run_atlas

_HOMES = {
    "EXAMPLES": "atlas",
    "Atlas": "atlas",
    "Effect": "findings",
    "Findings": "findings",
    "load_findings": "findings",
    "run_atlas": "run",
}

__all__ = ["EXAMPLES", "Atlas", "Effect", "Findings", "load_findings", "run_atlas"]

__getattr__ = on_first_use(__name__, _HOMES)
