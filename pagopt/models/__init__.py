"""Models: finding them by name, loading them, and which family each belongs to."""

from __future__ import annotations

import hashlib
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from diffusers import ConfigMixin, DiffusionPipeline
from huggingface_hub import try_to_load_from_cache

from pagopt.embedded import EMBEDDED, scorer_folder
from pagopt.errors import ModelError, UnknownName
from pagopt.heads import HeadMap
from pagopt.models.anatomy import Attention, Family, Output, Stream, Tap
from pagopt.models.chroma import Chroma
from pagopt.models.fingerprint import fingerprint
from pagopt.models.flux import FLUX
from pagopt.models.flux2 import FLUX2, FLUX2Klein
from pagopt.models.own import is_own_model, own_pipeline, own_source
from pagopt.models.published import published
from pagopt.models.qwen_image import QwenImage
from pagopt.models.sd3 import SD3
from pagopt.models.weights import Weights, dtype_of
from pagopt.models.z_image import ZImage

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
    "head_map_of",
    "is_own_model",
    "load_model",
    "load_pipeline",
    "model_files",
    "own_source",
    "resolve_model",
    "scorer_folder",
]

FAMILIES: tuple[Family, ...] = (SD3(), FLUX(), FLUX2(), FLUX2Klein(), QwenImage(), Chroma(), ZImage())

ALIASES: dict[str, str] = {
    "emoji": str(EMBEDDED / "pipeline"),
    "sd3-medium": "stabilityai/stable-diffusion-3-medium-diffusers",
    "sd3.5-medium": "stabilityai/stable-diffusion-3.5-medium",
    "sd3.5-large": "stabilityai/stable-diffusion-3.5-large",
    "flux-dev": "black-forest-labs/FLUX.1-dev",
    "flux-schnell": "black-forest-labs/FLUX.1-schnell",
    "flux2-dev": "black-forest-labs/FLUX.2-dev",
    "flux2-klein": "black-forest-labs/FLUX.2-klein-4B",
    "qwen-image": "Qwen/Qwen-Image",
    "chroma": "lodestones/Chroma1-HD",
    "z-image": "Tongyi-MAI/Z-Image",
    "z-image-turbo": "Tongyi-MAI/Z-Image-Turbo",
}
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


class _Configuration(ConfigMixin):  # type: ignore[misc]
    """Any component's configuration, whatever its class."""

    config_name = "config.json"


def resolve_model(name: str) -> str:
    """Turn what a user calls a model into what diffusers can load.

    Args:
        name: An alias (``"emoji"``, ``"sd3-medium"``, ...), a folder that holds a diffusers pipeline, or the
            id of one on the Hugging Face hub (``"organisation/name"``). A folder goes before an id of the
            same name.

    Returns:
        A path or a hub id.

    Raises:
        UnknownName: If it is none of these.
        ModelError: If it is a folder without a pipeline in it.
    """
    found = ALIASES.get(name, name)
    folder = Path(found).expanduser()
    if folder.is_dir():
        if not (folder / "model_index.json").is_file():
            raise ModelError(f"the folder {folder} holds no diffusers pipeline: it has no model_index.json")
        return str(folder)
    if name == "emoji":
        raise ModelError(f"the embedded model is missing ({folder}): reinstall pagopt, or run `make emoji`")
    if _HUB_ID.fullmatch(found):
        return found
    hint = (
        "The folder of a diffusers pipeline, a hub id 'organisation/name', or a function of yours that makes one, "
        "'file.py:function', will do too."
    )
    raise UnknownName("model", name, ALIASES, hint=hint)


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


def check_model(name: str) -> str:
    """Make sure that there is such a model, as far as its name tells; nothing is loaded.

    Returns:
        As :func:`resolve_model`; the name itself where it is that of a function.

    Raises:
        UnknownName: If there is none.
        ModelError: If it is a folder without a pipeline in it, or a file of code that cannot be read.
    """
    if is_own_model(name):
        own_source(name)
        return name
    return resolve_model(name)


def model_files(name: str) -> str:
    """What tells without reading them whether files of a model may have changed.

    Of a folder these are names, sizes and times (what is hidden, ``.cache``, does not count), of a hub id it is the
    commit in the cache of this machine. Whether the model has changed with them, its :func:`fingerprint` tells.

    Returns:
        16 hexadecimal digits; nothing for a function of the user's, a model that comes with pagopt, and one that is not
        on this machine.
    """
    folder = Path(name).expanduser()
    if name not in ALIASES and folder.is_dir():
        files = {file.relative_to(folder): file.stat() for file in folder.rglob("*") if file.is_file()}
        known = sorted(
            (place.as_posix(), found.st_size, found.st_mtime_ns)
            for place, found in files.items()
            if not any(part.startswith(".") for part in place.parts)
        )
        return hashlib.sha256(repr(known).encode()).hexdigest()[:16]
    hub = ALIASES.get(name, name)
    index = try_to_load_from_cache(hub, "model_index.json") if _HUB_ID.fullmatch(hub) else None
    return Path(index).parent.name[:16] if isinstance(index, str) else ""


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
