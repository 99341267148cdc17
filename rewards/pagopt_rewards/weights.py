"""Published checkpoints: from a local file or folder, or from the Hugging Face hub; never one that runs code."""

from __future__ import annotations

import hashlib
import pickle
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pagopt.errors import RewardError
from pagopt.reward.identity import add_file

__all__ = [
    "check_tensors",
    "checkpoint",
    "code_fingerprint",
    "fingerprint",
    "published_file",
    "read_weights",
    "tensors_fingerprint",
    "uncached",
]

SAMPLES = 4096  # values of a tensor that go into a fingerprint
SHOWN = 3  # names of tensors in a message


def checkpoint(location: str | None, repository: str, filename: str) -> Path:
    """Where a published checkpoint lies.

    Args:
        location: The file itself, or a folder that holds ``filename``, as the user gave it; ``None`` looks in the
            cache of the Hugging Face hub, and downloads it there on first use.
        repository: Its repository on the hub, "xswu/HPSv2".
        filename: Its name there, "HPS_v2.1_compressed.pt".

    Raises:
        RewardError: If there is no such file; it says which file to put where.
    """
    if location is not None:
        path = Path(location).expanduser()
        found = path / filename if path.is_dir() else path
        if not found.is_file():
            raise RewardError(
                f"there is no checkpoint {found}. Download {filename} from https://huggingface.co/{repository} and "
                "give its path, or the folder that holds it."
            )
        return found
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    # First, because without a network the hub is asked six times, half a minute in all, before its cache is.
    if isinstance(cached := try_to_load_from_cache(repository, filename), str):
        return Path(cached)
    try:
        return Path(hf_hub_download(repository, filename))
    except Exception as error:
        raise RewardError(
            f"the hub does not give {filename} of {repository}: {type(error).__name__}: {error}. Without a network, "
            f"download it elsewhere from https://huggingface.co/{repository} and give its path, or the folder that "
            "holds it, as the reward's argument `weights`."
        ) from error


def published_file(location: str | None, url: str, digest: str) -> Path:
    """Where a small checkpoint lies that is published at an address of its own, not on the hub.

    Args:
        location: The file itself, or a folder that holds it, as the user gave it; ``None`` looks in torch's cache
            (``torch.hub.get_dir()``), and downloads it there on first use.
        url: Its address; the last part is its name.
        digest: Its sha256 as hex digits. A download with another one is refused.

    Raises:
        RewardError: If there is no such file; it says which file to put where.
    """
    filename = url.rpartition("/")[2].replace("%2B", "+")
    if location is not None:
        path = Path(location).expanduser()
        found = path / filename if path.is_dir() else path
        if not found.is_file():
            raise RewardError(
                f"there is no checkpoint {found}. Download {url} and give its path, or the folder that holds it."
            )
        return found
    found = Path(torch.hub.get_dir()) / "checkpoints" / filename
    if not found.is_file():
        try:
            found.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(found), hash_prefix=digest, progress=False)
        except Exception as error:
            raise RewardError(
                f"cannot download {url}: {type(error).__name__}: {error}. Without a network, download it elsewhere and "
                f"put it at {found}, or give its path as the reward's argument `weights`."
            ) from error
    return found


def uncached(repository: str, filename: str, size: str = "") -> str:
    """What to say while the hub's cache does not hold a file of a repository; empty when it does. Downloads nothing."""
    from huggingface_hub import try_to_load_from_cache

    if isinstance(try_to_load_from_cache(repository, filename), str):
        return ""
    return f"{filename} of {repository}{f' ({size})' if size else ''} is not here yet: downloaded on first use"


def check_tensors(tensors: Mapping[str, Tensor], expected: Mapping[str, Sequence[int]], path: Path, model: str) -> None:
    """Compare a checkpoint with the model it is meant for.

    Args:
        tensors: What the checkpoint holds.
        expected: The shape of each tensor of the model.
        path: The checkpoint, and ``model`` what it should hold, for the message.

    Raises:
        RewardError: If a tensor is missing, unknown or of another shape; it names some of each.
    """
    missing = [name for name in expected if name not in tensors]
    unknown = [name for name in tensors if name not in expected]
    wrong = [
        f"{name} {tuple(tensors[name].shape)} instead of {tuple(shape)}"
        for name, shape in expected.items()
        if name in tensors and tuple(tensors[name].shape) != tuple(shape)
    ]
    faults = [
        f"{len(names)} of {total} tensors {what} ({', '.join(names[:SHOWN])}{', ...' if len(names) > SHOWN else ''})"
        for names, total, what in (
            (missing, len(expected), "are missing"),
            (unknown, len(tensors), "do not belong to it"),
            (wrong, len(expected), "have another shape"),
        )
        if names
    ]
    if faults:
        raise RewardError(
            f"{path} is no checkpoint of {model}: {'; '.join(faults)}. Give the file made for that model."
        )


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint by name, on the CPU, as they are stored.

    A file ending in ``.safetensors`` is read as such, any other by ``torch.load(weights_only=True)``, which knows
    tensors and plain containers only; its tensors may still lie in the file, so copy what you keep. Where they lie
    one level deeper (``{"state_dict": {...}}``), they are taken from there.

    Raises:
        RewardError: If the file is damaged, holds code, or holds no tensors.
    """
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        # Mapped into memory where the format allows, so that four gigabytes are not held twice.
        mapped = zipfile.is_zipfile(path)
        content: Any = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        raise RewardError(
            f"{path} holds more than tensors, and loading it could run code; pagopt refuses it. Take the file from "
            f"the model's authors, or convert it to safetensors where you trust it. ({str(error).splitlines()[0]})"
        ) from error
    except Exception as error:
        raise RewardError(f"cannot read {path} as a checkpoint: {type(error).__name__}: {error}") from error
    if isinstance(content, Mapping):
        for inner in ("state_dict", "model", "module"):
            if isinstance(content.get(inner), Mapping):
                content = content[inner]
                break
    if not isinstance(content, Mapping):
        raise RewardError(f"{path} holds a {type(content).__name__}, not named tensors")
    tensors = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    if not tensors:
        raise RewardError(f"{path} holds no tensors")
    return tensors


def fingerprint(*paths: Path) -> str:
    """sha256 over files, in order; of those above 64 MiB the size, the first and last MiB, and 4 kB of each."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(f"{path.name} ".encode())
        add_file(digest, path)
    return digest.hexdigest()


def tensors_fingerprint(tensors: Mapping[str, Tensor]) -> str:
    """sha256 over names, shapes, types and 4096 evenly spaced values of each tensor, for weights without a file."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        flat = tensor.detach().reshape(-1)
        step = max(1, flat.numel() // SAMPLES)
        digest.update(flat[::step].to(device="cpu", dtype=torch.float64).numpy().tobytes())
    return digest.hexdigest()


def code_fingerprint(*modules: str) -> str:
    """sha256 over the source of modules of this package, by name; the store's key covers a reward's own file only."""
    digest = hashlib.sha256()
    for module in modules:
        digest.update(Path(__file__).with_name(f"{module}.py").read_bytes())
    return digest.hexdigest()[:16]
