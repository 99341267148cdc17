"""Recipes against no guidance, tuned CFG, the best layer and best-of-N, on prompts that no search has seen."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pagopt.lazy import on_first_use

if TYPE_CHECKING:
    from pagopt.comparison.comparison import CFG_SCALES, Comparison, read_prompts
    from pagopt.comparison.entrants import Entrant, load_entrants
    from pagopt.comparison.outcome import Outcome
    from pagopt.comparison.run import run_comparison

_HOMES = {
    "CFG_SCALES": "comparison",
    "Comparison": "comparison",
    "Entrant": "entrants",
    "Outcome": "outcome",
    "load_entrants": "entrants",
    "read_prompts": "comparison",
    "run_comparison": "run",
}

__all__ = ["CFG_SCALES", "Comparison", "Entrant", "Outcome", "load_entrants", "read_prompts", "run_comparison"]

__getattr__ = on_first_use(__name__, _HOMES)
