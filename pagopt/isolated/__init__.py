"""Rewards whose packages cannot live beside ours: an environment and a process of their own, images in, scores out."""

from __future__ import annotations

from pagopt.isolated.environment import (
    Environment,
    find_environment,
    find_record,
    home,
    installed,
    not_installed,
    remove,
)
from pagopt.isolated.install import install
from pagopt.isolated.record import Record, available_records, read_record
from pagopt.isolated.reward import Isolated

__all__ = [
    "Environment",
    "Isolated",
    "Record",
    "available_records",
    "find_environment",
    "find_record",
    "home",
    "install",
    "installed",
    "not_installed",
    "read_record",
    "remove",
]
