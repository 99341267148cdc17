"""A pipeline that a function of the user's makes: with a LoRA, another scheduler, four-bit weights, a merge of two."""

from __future__ import annotations

import inspect
from typing import Any

from diffusers import DiffusionPipeline

from pagopt.errors import ModelError, PagoptError
from pagopt.models.weights import DTYPES
from pagopt.own_code import load_own, said

__all__ = ["own_pipeline"]


def own_pipeline(name: str, dtype: str | None = None, quantize: str | None = None) -> Any:
    """The pipeline that a function gives.

    Args:
        name: ``path/to/file.py:function`` or ``package.module:function``. It is called without arguments, or with
            ``dtype``, if one is asked for.
        dtype: One of :data:`DTYPES`; the function gets torch's.
        quantize: Not for such a pipeline: the function does it.

    Raises:
        ModelError: If there is no such function, it fails (the cause is attached), gives something that is no
            pipeline of diffusers, or takes no dtype where one is asked for.
    """
    make = load_own("model", name, ModelError)
    if not callable(make):
        raise ModelError(
            f"model {name!r} is an object of type {type(make).__name__}, not a function that gives a pipeline, such as "
            "every process calls for its own"
        )
    if quantize is not None:
        raise ModelError(f"quantize: {quantize} is for models that pagopt loads; {name} has to quantise its own")
    given: dict[str, Any] = {}
    if dtype is not None:
        if not _takes(make, "dtype"):
            raise ModelError(
                f"{name} takes no dtype, and {dtype} is asked for: give it a parameter dtype (a torch.dtype), or ask "
                "for none and let it decide"
            )
        given["dtype"] = DTYPES[dtype]
    try:
        pipe = make(**given)
    except PagoptError:
        raise
    except Exception as error:
        raise ModelError(f"the model {name} could not be made: {said(error)}") from error
    if not isinstance(pipe, DiffusionPipeline):
        raise ModelError(f"{name} gave an object of type {type(pipe).__name__}, and no pipeline of diffusers")
    return pipe


def _takes(function: Any, parameter: str) -> bool:
    try:
        kinds = {name: one.kind for name, one in inspect.signature(function).parameters.items()}
    except (TypeError, ValueError):
        return False
    return parameter in kinds or inspect.Parameter.VAR_KEYWORD in kinds.values()
