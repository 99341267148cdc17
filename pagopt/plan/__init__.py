"""What a run will cost, before it is paid: images, block evaluations, time and memory, and what the store has.

The images of the exhaustive search are exact; the other searches state the most that they ask for. Times come from
batches that are drawn, scored and stored on this machine, one or a few for each kind of picture. Of a model whose
weights are not here, everything but the time here is worked out from its configuration.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pagopt.lazy import on_first_use

if TYPE_CHECKING:
    from pagopt.plan.atlas import make_atlas_plan, outline_atlas_plan
    from pagopt.plan.plan import GPUS, SHARE, Plan, Stage
    from pagopt.plan.search import make_plan, outline_plan
    from pagopt.plan.trial import Trial, operations

_HOMES = {
    "GPUS": "plan",
    "SHARE": "plan",
    "Plan": "plan",
    "Stage": "plan",
    "Trial": "trial",
    "make_atlas_plan": "atlas",
    "make_plan": "search",
    "operations": "trial",
    "outline_atlas_plan": "atlas",
    "outline_plan": "search",
}

__all__ = [
    "GPUS",
    "SHARE",
    "Plan",
    "Stage",
    "Trial",
    "make_atlas_plan",
    "make_plan",
    "operations",
    "outline_atlas_plan",
    "outline_plan",
]

__getattr__ = on_first_use(__name__, _HOMES)
