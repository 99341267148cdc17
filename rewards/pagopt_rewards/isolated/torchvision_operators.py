"""Repair: torchvision from PyPI beside a torch without CUDA, whose registry has no CPU build of torchvision.

Its compiled part then does not load, and ``import torchvision`` fails over two operators that it looks for. No scorer
calls them: they are declared, only after that failure, and torchvision is imported again.
"""

from __future__ import annotations

import sys

import torch

try:
    import torchvision  # type: ignore[import-not-found]
except RuntimeError as error:
    if "torchvision::nms" not in str(error):
        raise
    LIBRARY = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call] # lasts as long as this name
    for operator in ("nms", "qnms"):
        LIBRARY.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")  # type: ignore[no-untyped-call]
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]
    import torchvision  # noqa: F401
