"""One call of a transformer under guidance."""

from __future__ import annotations

import torch
from tiny_families import at, call, make_pipeline, schedule

from pagopt.guide import guided


def predict_under_guidance(variant, transformer, recipes, arguments):
    """One call of the transformer in the second step of four; also the guidance, for its counts."""
    pipe = make_pipeline(variant, transformer)
    arguments = arguments | {"timestep": at(variant, schedule(pipe)[1], arguments["hidden_states"].shape[0])}
    with torch.no_grad(), guided(pipe, recipes) as guidance:
        found = call(transformer, arguments)
    return found, guidance, arguments
