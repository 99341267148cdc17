"""Recipes x tasks to scores, on any Lightning ``Trainer``: the loop that spends the GPU time.

Every image and every score goes to the store as soon as its batch is finished, and what the store has is not
made again. So a killed run loses at most the batch in flight, and a second reward over the same images costs the
scoring only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pagopt.lazy import on_first_use

if TYPE_CHECKING:
    from pagopt.evaluate.evaluator import Evaluator
    from pagopt.evaluate.generation import Generation
    from pagopt.evaluate.precision import at_load, precision_of
    from pagopt.evaluate.progress import Progress
    from pagopt.evaluate.ranks import together
    from pagopt.evaluate.trainer import make_trainer

_HOMES = {
    "Evaluator": "evaluator",
    "Generation": "generation",
    "Progress": "progress",
    "at_load": "precision",
    "make_trainer": "trainer",
    "precision_of": "precision",
    "together": "ranks",
}

__all__ = ["Evaluator", "Generation", "Progress", "at_load", "make_trainer", "precision_of", "together"]

__getattr__ = on_first_use(__name__, _HOMES)
