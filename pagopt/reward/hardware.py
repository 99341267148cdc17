"""Telling a missing GPU from other failures, whose words differ from library to library."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from pagopt.errors import RewardError

if TYPE_CHECKING:
    from pagopt.reward.protocol import Reward

__all__ = ["gpu_hint", "move_reward", "usable_device"]

SAID = (
    "not compiled with cuda enabled",
    "found no nvidia driver",
    "no cuda gpus are available",
    "no cuda-capable device",
    "attempting to deserialize object on a cuda device",
    "cuda driver version is insufficient",
    "driver on your system is too old",
    "invalid device string",
    "pytorch is not linked with support for mps",
)


def gpu_hint(error: BaseException) -> str:
    """A remark, in brackets, where an error says that a device is missing; else empty."""
    if any(words in str(error).lower() for words in SAID):
        return f" (it asks for a device that this machine lacks; torch can use: {', '.join(devices())})"
    return ""


def move_reward(label: str, reward: Reward, device: torch.device) -> None:
    """Move a reward's networks.

    Raises:
        RewardError: If that fails; it names the reward and the device.
    """
    try:
        reward.move(device)
    except Exception as error:
        said = f"{type(error).__name__}: {error}{gpu_hint(error)}"
        raise RewardError(f"reward {label!r} cannot be moved to {device}: {said}", reward=label) from error


def devices() -> list[str]:
    """The kinds of devices that torch can use here."""
    there = {"cuda": torch.cuda, "mps": torch.backends.mps, "xpu": torch.xpu}
    return ["cpu", *(kind for kind, backend in there.items() if backend.is_available())]


def usable_device(name: str | None) -> torch.device:
    """The device with this name; without one, CUDA where there is it, else the CPU.

    Raises:
        ValueError: If there is no such device here.
    """
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    known = devices()
    if device is None or device.type not in known:
        raise ValueError(f"there is no device {name!r} here; torch can use: {', '.join(known)}")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"there is no device {name!r} here; the last one is cuda:{torch.cuda.device_count() - 1}")
    return device
