"""Searches: which heads to perturb. One algorithm a file, named by its source."""

from __future__ import annotations

from pagopt.search.headhunter import Evaluate, HeadHunter

__all__ = ["Evaluate", "HeadHunter"]
