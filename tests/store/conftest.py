"""A new store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pagopt.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Any:
    with Store(tmp_path / "store") as store:
        yield store
