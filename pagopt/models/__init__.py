"""Models: finding them by name, loading them, and which family each belongs to.

The names below are imported when they are first used: what only asks for a name does not wait for diffusers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pagopt.lazy import on_first_use

if TYPE_CHECKING:
    from pagopt.models.anatomy import Attention, Family, Output, Stream, Tap
    from pagopt.models.families import FAMILIES, family_of
    from pagopt.models.fingerprints import fingerprint
    from pagopt.models.loading import head_map_of, load_model, load_pipeline
    from pagopt.models.names import (
        ALIASES,
        check_model,
        has_weights,
        is_own_model,
        model_files,
        own_source,
        resolve_model,
    )
    from pagopt.models.weights import Weights

_HOMES = {
    "ALIASES": "names",
    "FAMILIES": "families",
    "Attention": "anatomy",
    "Family": "anatomy",
    "Output": "anatomy",
    "Stream": "anatomy",
    "Tap": "anatomy",
    "Weights": "weights",
    "check_model": "names",
    "family_of": "families",
    "fingerprint": "fingerprints",
    "has_weights": "names",
    "head_map_of": "loading",
    "is_own_model": "names",
    "load_model": "loading",
    "load_pipeline": "loading",
    "model_files": "names",
    "own_source": "names",
    "resolve_model": "names",
}

__all__ = [
    "ALIASES",
    "FAMILIES",
    "Attention",
    "Family",
    "Output",
    "Stream",
    "Tap",
    "Weights",
    "check_model",
    "family_of",
    "fingerprint",
    "has_weights",
    "head_map_of",
    "is_own_model",
    "load_model",
    "load_pipeline",
    "model_files",
    "own_source",
    "resolve_model",
]

__getattr__ = on_first_use(__name__, _HOMES)
