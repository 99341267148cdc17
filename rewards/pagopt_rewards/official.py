"""The authors' own packages of three rewards, each in an environment of its own; see docs/isolated-rewards.md.

Three in one file, because nothing of a reward is here: each only says which record, and where its files are.
"""

from __future__ import annotations

from pathlib import Path

from pagopt.errors import RewardError
from pagopt.isolated import Isolated, not_installed, read_record
from pagopt_rewards.weights import checkpoint

__all__ = ["HPSv2Package", "HPSv3Package", "ImageRewardPackage"]

IMAGEREWARD, BERT = "THUDM/ImageReward", "google-bert/bert-base-uncased"
HPS = {"2.0": "HPS_v2_compressed.pt", "2.1": "HPS_v2.1_compressed.pt"}


class ImageRewardPackage(Isolated):
    """ImageReward by the authors' package `image-reward` 1.5, in an environment of its own; compare `imagereward`.

    In standard deviations of the authors' choice; most scores lie between -2 and 2.

    Args:
        weights: ImageReward.pt of https://huggingface.co/THUDM/ImageReward, or the folder that holds it; ``None`` takes
            the hub's cache, and downloads it (1.8 GB) on first use.
        config: Its med_config.json; ``None`` looks beside the weights, then on the hub.
        tokenizer: vocab.txt of https://huggingface.co/google-bert/bert-base-uncased, or the folder that holds it;
            ``None`` looks beside the weights, then on the hub.
        device: Where it computes, "cpu" or "cuda:1"; ``None`` goes where pagopt goes.
        start_seconds: How long it may take to load.
        batch_seconds: How long it may take for a batch.

    Raises:
        RewardError: If its environment is not installed, or a file is not there.
    """

    def __init__(
        self,
        weights: str | None = None,
        config: str | None = None,
        tokenizer: str | None = None,
        device: str | None = None,
        start_seconds: float = 1800.0,
        batch_seconds: float = 600.0,
    ) -> None:
        _need("image-reward")
        path = checkpoint(weights, IMAGEREWARD, "ImageReward.pt")
        args = {
            "weights": str(path),
            "config": _beside(path, config, IMAGEREWARD, "med_config.json"),
            "tokenizer": _beside(path, tokenizer, BERT, "vocab.txt"),
        }
        super().__init__("image-reward", args, device, start_seconds, batch_seconds)

    @classmethod
    def missing(cls) -> str:
        """How to build its environment."""
        return not_installed(read_record("image-reward"))


class HPSv2Package(Isolated):
    """HPSv2 and 2.1 by the authors' package `hpsv2` 1.2.0, in an environment of its own; compare `hps`.

    Cosine similarity, from -1 to 1. On a GPU the package rounds to float16.

    Args:
        version: "2.1" or "2.0".
        weights: HPS_v2.1_compressed.pt (2.0: HPS_v2_compressed.pt) of https://huggingface.co/xswu/HPSv2, or the folder
            that holds it; ``None`` takes the hub's cache, and downloads it on first use.
        device: Where it computes, "cpu" or "cuda:1"; ``None`` goes where pagopt goes.
        start_seconds: How long it may take to load.
        batch_seconds: How long it may take for a batch.

    Raises:
        RewardError: If its environment is not installed, or a file is not there.
    """

    def __init__(
        self,
        version: str | float = "2.1",
        weights: str | None = None,
        device: str | None = None,
        start_seconds: float = 1800.0,
        batch_seconds: float = 600.0,
    ) -> None:
        if str(version) not in HPS:  # a study's `version: 2.1` is a number
            raise RewardError(f"version is one of {', '.join(HPS)}, not {version!r}", reward=self.name)
        _need("hpsv2")
        path = checkpoint(weights, "xswu/HPSv2", HPS[str(version)])
        super().__init__("hpsv2", {"weights": str(path)}, device, start_seconds, batch_seconds)

    @classmethod
    def missing(cls) -> str:
        """How to build its environment."""
        return not_installed(read_record("hpsv2"))


class HPSv3Package(Isolated):
    """HPSv3 by the authors' package `hpsv3` 1.0.0 (Qwen2-VL 7B, needs a GPU), in an environment of its own.

    The mean that it predicts for people's preference; no fixed range.

    Args:
        weights: HPSv3.safetensors of https://huggingface.co/MizzenAI/HPSv3, or the folder that holds it; ``None`` takes
            the hub's cache, and downloads it (16 GB) on first use. The package downloads Qwen2-VL-7B-Instruct besides.
        device: Where it computes, "cuda:1"; ``None`` goes where pagopt goes.
        start_seconds: How long it may take to load.
        batch_seconds: How long it may take for a batch.

    Raises:
        RewardError: If its environment is not installed, or a file is not there.
    """

    def __init__(
        self,
        weights: str | None = None,
        device: str | None = None,
        start_seconds: float = 1800.0,
        batch_seconds: float = 600.0,
    ) -> None:
        _need("hpsv3")
        path = checkpoint(weights, "MizzenAI/HPSv3", "HPSv3.safetensors")
        super().__init__("hpsv3", {"weights": str(path)}, device, start_seconds, batch_seconds)

    @classmethod
    def missing(cls) -> str:
        """How to build its environment."""
        return not_installed(read_record("hpsv3"))


def _need(name: str) -> None:
    """Say that the environment is missing before gigabytes are downloaded for it."""
    todo = not_installed(read_record(name))
    if todo:
        raise RewardError(f"{name} has no environment yet. Build it: {todo}")


def _beside(weights: Path, location: str | None, repository: str, filename: str) -> str:
    """A small file that belongs to the weights: as given, beside them, or from the hub."""
    if location is None and (weights.parent / filename).is_file():
        return str(weights.parent / filename)
    return str(checkpoint(location, repository, filename))
