"""One call of a transformer under guidance, and the targets that are tried."""

from __future__ import annotations

import torch
from tiny_families import at, make_pipeline, schedule

from pagopt.guide import guided

TARGETS = {
    "identity": ("identity", {}),
    "image_identity": ("image_identity", {}),
    "image_to_image": ("image_to_image", {}),
    "uniform": ("uniform", {}),
    "mean_all": ("mean_query", {"over": "all"}),
    "mean_image": ("mean_query", {"over": "image"}),
    "mean_text": ("mean_query", {"over": "text"}),
    "blur": ("blur", {"sigma": 0.8}),
    "flatter": ("temperature", {"tau": 3.0}),
    "sharper": ("temperature", {"tau": 0.4}),
    "row_maximum": ("row_maximum", {}),
}
HAVE_ZEROS = ("identity", "image_identity", "image_to_image", "row_maximum")


def error(found, expected):
    return ((found - expected).norm() / expected.norm()).item()


def predict_under_guidance(variant, transformer, recipes, arguments):
    """One call of the transformer in the second step of four; also the guidance, for its counts."""
    pipe = make_pipeline(variant, transformer)
    arguments = arguments | {"timestep": at(schedule(pipe)[1], arguments["hidden_states"].shape[0])}
    with torch.no_grad(), guided(pipe, recipes) as guidance:
        found = transformer(**arguments, return_dict=False)[0]
    return found, guidance, arguments
