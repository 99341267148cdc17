"""Recipes against no guidance, tuned CFG, the best layer and best-of-N, on prompts that no search has seen."""

from __future__ import annotations

from pagopt.comparison.comparison import CFG_SCALES, Comparison, read_prompts
from pagopt.comparison.entrants import Entrant, load_entrants
from pagopt.comparison.outcome import Outcome
from pagopt.comparison.run import run_comparison

__all__ = ["CFG_SCALES", "Comparison", "Entrant", "Outcome", "load_entrants", "read_prompts", "run_comparison"]
