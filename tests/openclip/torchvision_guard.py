"""A pytest plug-in: lets torchvision's CUDA build be imported beside a CPU build of torch.

That wheel's compiled operators are then missing, and the import fails where Python describes them. open_clip needs the
transforms only, so the two operators are declared, and nothing else is changed.
"""

import sys

import torch

_OPERATORS = {
    "nms": "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}

try:
    import torchvision
except RuntimeError as error:
    if "torchvision::" not in str(error):
        raise
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]
    LIBRARY = torch.library.Library("torchvision", "DEF")
    for schema in _OPERATORS.values():
        LIBRARY.define(schema)
    import torchvision  # noqa: F401
