"""pagopt finds where and how to perturb a diffusion transformer to get more of what you want, without training."""

from __future__ import annotations

__version__ = "0.1.0"
