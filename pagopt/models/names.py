"""What the name of a model says, before anything of it is loaded; neither torch nor diffusers."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from huggingface_hub import try_to_load_from_cache

from pagopt.embedded import EMBEDDED
from pagopt.errors import ModelError, UnknownName
from pagopt.own_code import digest_of_own, is_own

__all__ = [
    "ALIASES",
    "check_model",
    "has_weights",
    "is_own_model",
    "model_files",
    "own_source",
    "resolve_model",
]

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


def is_own_model(name: str) -> bool:
    """Whether a name is that of a function, and not of a folder that is called so."""
    return is_own(name) and not Path(name).expanduser().is_dir()


def own_source(name: str) -> str:
    """sha256 of the file that defines the function; empty for other models. It is not run.

    Raises:
        ModelError: If it cannot be read.
    """
    return digest_of_own("model", name, ModelError) if is_own_model(name) else ""


def has_weights(name: str) -> bool:
    """Whether the transformer's weights are on this machine, in the model's folder or in the hub's cache.

    Raises:
        UnknownName: If there is no such model.
        ModelError: If it is a folder without a pipeline, or a file of code that cannot be read.
    """
    if is_own_model(name):
        own_source(name)
        return True  # for all that is known before it is run
    source = resolve_model(name)
    if Path(source).is_dir():
        return any((Path(source) / "transformer").glob("*.safetensors"))
    files = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.safetensors.index.json")
    return any(isinstance(try_to_load_from_cache(source, f"transformer/{file}"), str) for file in files)
