"""Room in a GPU's memory: batches that do not fit are worked through in parts, networks may be kept elsewhere.

What is drawn does not depend on it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

from pagopt.device import free_memory, is_out_of_memory
from pagopt.errors import StudyError, UnknownName

__all__ = ["OFFLOADS", "Room", "check_offload"]

OFFLOADS = ("model", "sequential")
"""What stays on the CPU while it is not needed: whole networks, or single layers (slow, and needs the least memory)."""

Item = TypeVar("Item")
Result = TypeVar("Result")


class Room:
    """How many items fit at once, found out by halving.

    Args:
        what: They are, for the warning: "images".

    Attributes:
        most: Items that fit at once; ``None`` as long as all did.
    """

    def __init__(self, what: str) -> None:
        self.what = what
        self.most: int | None = None

    def __call__(self, work: Callable[[Sequence[Item]], Sequence[Result]], items: Sequence[Item]) -> list[Result]:
        """Work on all items, in as few parts as there is room for.

        Args:
            work: Gives a result for each item.
            items: In any number.

        Raises:
            RuntimeError: If one alone does not fit; torch's, see :func:`pagopt.device.is_out_of_memory`.
        """
        found: list[Result] = []
        while len(found) < len(items):
            part = items[len(found) : len(found) + (self.most or len(items))]
            try:
                found += work(part)
                continue
            except RuntimeError as error:
                if len(part) == 1 or not is_out_of_memory(error):
                    raise
            # Only here, behind the exception, is what it held let go.
            self.most = len(part) // 2
            free_memory()
            warnings.warn(
                f"{len(part)} {self.what} at once do not fit into the GPU's memory: going on with {self.most}. "
                f"--batch_size {self.most} saves the attempt",
                stacklevel=2,
            )
        return found


def check_offload(offload: str | None, device: torch.device) -> None:
    """Make sure that there is something to be gained.

    Raises:
        UnknownName: If there is no such way.
        StudyError: On the CPU.
    """
    if offload is None:
        return
    if offload not in OFFLOADS:
        raise UnknownName("way to offload", offload, OFFLOADS)
    if device.type == "cpu":
        raise StudyError("offload keeps networks off the GPU while it does not need them, and this runs on the CPU")
