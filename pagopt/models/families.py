"""The families of models, and which of them a pipeline or a transformer belongs to."""

from __future__ import annotations

from typing import Any

from pagopt.errors import ModelError
from pagopt.models.anatomy import Family
from pagopt.models.chroma import Chroma
from pagopt.models.flux import FLUX
from pagopt.models.flux2 import FLUX2, FLUX2Klein
from pagopt.models.qwen_image import QwenImage
from pagopt.models.sd3 import SD3
from pagopt.models.z_image import ZImage

__all__ = ["FAMILIES", "family_in", "family_of", "family_of_transformer"]

FAMILIES: tuple[Family, ...] = (SD3(), FLUX(), FLUX2(), FLUX2Klein(), QwenImage(), Chroma(), ZImage())


def family_of(model: Any) -> Family:
    """The family of a pipeline or of a transformer.

    Raises:
        ModelError: If it belongs to no supported family; says which there are.
    """
    compiled = getattr(model, "_orig_mod", model)  # torch.compile wraps modules
    names = {cls.__name__ for cls in type(compiled).__mro__}
    for family in FAMILIES:
        if names & {family.transformer, *family.pipelines}:
            return family
    raise _unsupported(type(compiled).__name__)


def family_in(index: dict[str, Any]) -> Family:
    """Which family it is, before any weight is read.

    Raises:
        ModelError: If it is none that is supported.
    """
    pipeline = index.get("_class_name")
    for family in FAMILIES:
        if pipeline in family.pipelines:
            return family
    raise _unsupported(str(pipeline))


def family_of_transformer(name: str) -> Family:
    """The family whose transformer is of this class; of several the first.

    Raises:
        ModelError: If there is none.
    """
    for family in FAMILIES:
        if name == family.transformer:
            return family
    raise _unsupported(name)


def _unsupported(name: str) -> ModelError:
    supported = ", ".join(pipeline for family in FAMILIES for pipeline in family.pipelines)
    return ModelError(f"{name} belongs to no supported family of models. Supported: {supported}.")
