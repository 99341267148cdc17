"""`quantize: float8_dynamic` on any device, for tests and pictures: PyTorch multiplies in eight bits on a CPU, too.

What comes out is rounded as on a GPU; only sums are added up in another order.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

__all__ = ["float8_anywhere"]


@contextmanager
def float8_anywhere() -> Iterator[None]:
    """Leave out our question, and torchao's, whether the GPU can do it."""

    def no_question(*_: Any) -> None:
        return None

    with (
        patch("pagopt.models.weights._computes_in_float8", lambda: True),
        patch("torchao.quantization.quant_api._check_hardware_support", no_question),
    ):
        yield
