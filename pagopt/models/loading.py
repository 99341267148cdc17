"""Loading models, or their configurations alone."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from diffusers import ConfigMixin, DiffusionPipeline

from pagopt.errors import ModelError
from pagopt.heads import HeadMap
from pagopt.models.families import family_in, family_of, family_of_transformer
from pagopt.models.names import is_own_model, resolve_model
from pagopt.models.own import own_pipeline
from pagopt.models.published import published
from pagopt.models.weights import Weights, dtype_of

__all__ = ["cannot_load", "head_map_of", "load_model", "load_pipeline", "read_index", "read_part"]


class _Configuration(ConfigMixin):  # type: ignore[misc]
    """Any component's configuration, whatever its class."""

    config_name = "config.json"


def load_pipeline(name: str, dtype: torch.dtype | str | None = None, quantize: str | None = None) -> Any:
    """Load a pipeline. Only safetensors are read, and no code that comes with a model is run.

    Args:
        name: As for :func:`resolve_model`, or a function of yours that makes it: ``path/to/file.py:function`` or
            ``package.module:function``, see :func:`pagopt.models.own.own_pipeline`.
        dtype: Of the weights: "float32", "bfloat16", "float16" or "float64", or torch's. What the file has is turned
            into it while it is read, so that no more memory is needed. By default float32, and bfloat16 around weights
            that are quantised; a function of yours decides for itself.
        quantize: Hold the linear layers of the transformer and of its large text encoders in eight bits, by torchao:
            "int8", "float8", or "float8_dynamic", which computes in them, too.

    Returns:
        The diffusers pipeline, on the CPU.

    Raises:
        UnknownName: If there is no such model, dtype or quantization.
        ModelError: If it cannot be loaded, or is of a family that is not supported.
    """
    return load_model(name, None if dtype is None else str(dtype).removeprefix("torch."), quantize)[0]


def load_model(name: str, dtype: str | None = None, quantize: str | None = None) -> tuple[Any, Weights]:
    """The same, and in what form its weights are held: as was asked for, or as a function of yours made them."""
    weights = Weights.asked(dtype, quantize)
    if is_own_model(name):
        pipe = own_pipeline(name, dtype, quantize)
        family_of(pipe)
        return pipe, Weights(dtype_of(pipe.transformer))
    source = resolve_model(name)
    index = read_index(source)
    family_in(index)
    absent = {name: None for name, entry in index.items() if entry == [None, None]}  # saved without, such as no T5
    arguments = {"use_safetensors": True, **weights.arguments(index), **absent}
    with _loading(source):
        return DiffusionPipeline.from_pretrained(source, **arguments), weights


def head_map_of(name: str) -> HeadMap:
    """The addressable heads of a model by name, from its configuration alone: no weights are read.

    The configurations that the hub shows only after a login come with pagopt. A function that makes a model is called.

    Raises:
        UnknownName: If there is no such model.
        ModelError: If its configuration cannot be read, or its family is not supported.
    """
    if is_own_model(name):
        pipe, _ = load_model(name)
        return family_of(pipe).head_map(pipe.transformer)
    source = resolve_model(name)
    if (known := published(source)) is not None:
        return family_of_transformer(known["_class_name"]).head_map_from_config(known)
    return family_in(read_index(source)).head_map_from_config(read_part(source, "transformer"))


def read_part(source: str, name: str) -> Any:
    """The configuration of one component of a pipeline; ``source`` is what :func:`resolve_model` gives.

    Raises:
        ModelError: If it cannot be read.
    """
    with _loading(source):
        return _Configuration.load_config(source, subfolder=name)


def read_index(source: str) -> dict[str, Any]:
    """A pipeline's class and the classes of its components.

    Raises:
        ModelError: If they cannot be read.
    """
    with _loading(source):
        index = DiffusionPipeline.load_config(source)
    return {key: list(value) if isinstance(value, list | tuple) else value for key, value in dict(index).items()}


@contextmanager
def _loading(source: str) -> Iterator[None]:
    """What a library says while it reads a model: errors are ours, and a user can do nothing about some warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        warnings.filterwarnings("ignore", message=".*local_dir_use_symlinks")  # diffusers passes it to the hub's client
        try:
            yield
        except Exception as error:
            raise cannot_load(source, error) from error


def cannot_load(source: str, error: Exception) -> ModelError:
    """What a library said, as an error of ours, with what to do."""
    lines = str(error).strip().splitlines()
    reason = lines[0] if lines else type(error).__name__
    hint = (
        ""
        if Path(source).is_dir()
        else (" (a hub id needs network access; a gated model needs its licence accepted and `hf auth login`)")
    )
    return ModelError(f"cannot load the model {source}: {reason}{hint}")
