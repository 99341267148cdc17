"""Published checkpoints: from a local file or folder, or from the Hugging Face hub; never one that runs code."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pagopt.errors import RewardError

__all__ = ["checkpoint", "fingerprint", "read_weights"]

WHOLE = 64 * 2**20  # bytes; larger files are sampled for their fingerprint


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
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(repository, filename))
    except Exception as error:
        raise RewardError(
            f"the hub does not give {filename} of {repository}: {type(error).__name__}: {error}. Without a network, "
            f"download it elsewhere from https://huggingface.co/{repository} and give its path, or the folder that "
            "holds it, as the reward's argument `weights`."
        ) from error


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint by name, on the CPU, as they are stored.

    A file ending in ``.safetensors`` is read as such, any other by ``torch.load(weights_only=True)``, which knows
    tensors and plain containers only. Where the tensors lie one level deeper (``{"state_dict": {...}}``), they are
    taken from there.

    Raises:
        RewardError: If the file is damaged, holds code, or holds no tensors.
    """
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
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
    """sha256 over files, in order; of those above 64 MiB the size, the first MiB and 64 samples."""
    digest = hashlib.sha256()
    for path in paths:
        size = path.stat().st_size
        digest.update(f"{path.name} {size}\n".encode())
        with path.open("rb") as file:
            if size <= WHOLE:
                digest.update(file.read())
                continue
            digest.update(file.read(2**20))
            for part in range(64):
                file.seek(size * part // 64)
                digest.update(file.read(4096))
    return digest.hexdigest()
