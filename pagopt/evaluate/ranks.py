"""A process of a run on several devices that ends before the others, said in words.

The others find out by an error of torch, where they wait for it; or Lightning finds out, and ends them all at once.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from pagopt.errors import StudyError

__all__ = ["announced", "together"]

LAUNCHER = "lightning.fabric.strategies.launchers.subprocess_script"
ENDED = (
    "another process of this run has ended{how}, so all of them do. What is finished is kept; the same command goes on "
    "from there"
)


@contextmanager
def together() -> Iterator[None]:
    """What several processes do together.

    Raises:
        StudyError: If another process has ended.
    """
    try:
        yield
    except RuntimeError as error:
        lost = isinstance(error, torch.distributed.DistError) if torch.distributed.is_available() else False
        if lost or "gloo" in str(error):
            raise StudyError(ENDED.format(how="")) from error
        raise


def announced() -> None:
    """Say why, when Lightning kills all processes since one has ended; it says so itself where few people look."""
    logger = logging.getLogger(LAUNCHER)
    logger.setLevel(logging.INFO)
    if not any(isinstance(known, _Announcement) for known in logger.filters):
        logger.addFilter(_Announcement())


class _Announcement(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        _, ended, code = record.getMessage().partition("terminated with code")
        if not ended:
            return record.levelno >= logging.ERROR
        how = f" (status {code.split('.')[0].strip()})"
        print(f"\nerror: {ENDED.format(how=how)}", file=sys.stderr, flush=True)
        return False
