"""What every head of a model does, alone: pictures, measurements, and a page to look at."""

from __future__ import annotations

from pagopt.atlas.atlas import EXAMPLES, Atlas
from pagopt.atlas.findings import Effect, Findings, load_findings
from pagopt.atlas.run import run_atlas

__all__ = ["EXAMPLES", "Atlas", "Effect", "Findings", "load_findings", "run_atlas"]
