"""In what form a model's weights are held: the number format, and whether linear layers are quantised."""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from pagopt.errors import ModelError, RecipeError, UnknownName
from pagopt.recipe import Provenance

__all__ = ["DTYPES", "QUANTIZATIONS", "Weights", "bytes_of", "dtype_of", "plain_tensors", "torchao_config"]

DTYPES: dict[str, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float64": torch.float64,
}

QUANTIZATIONS: dict[str, str] = {
    "int8": "Int8WeightOnlyConfig",
    "float8": "Float8WeightOnlyConfig",
    "float8_dynamic": "Float8DynamicActivationFloat8WeightConfig",
}
"""Our names, and torchao's. The first two hold weights in eight bits; the third computes in them, too, with a scale of
its own for every token, so that a picture does not depend on the others in its batch."""

_CLIP = "CLIP"
_BYTE = 1
_SMALLEST = 1e-12  # what a token's largest activation counts as at least


@dataclass(frozen=True)
class Weights:
    """How weights are loaded.

    Attributes:
        dtype: One of :data:`DTYPES`. Parameters that a text encoder needs in float32 stay so, as in diffusers.
        quantize: One of :data:`QUANTIZATIONS`, for the linear layers of the transformer and of its large text encoders
            (those of CLIP are small); ``None`` for none. The rest is of ``dtype``, and so are the products, but for
            "float8_dynamic".

    Raises:
        UnknownName: If it is neither.
        ModelError: If they do not go together.
    """

    dtype: str = "float32"
    quantize: str | None = None

    def __post_init__(self) -> None:
        if str(self.dtype) not in DTYPES:
            raise UnknownName("dtype", str(self.dtype), DTYPES)
        if self.quantize is not None and str(self.quantize) not in QUANTIZATIONS:
            raise UnknownName("quantization", str(self.quantize), QUANTIZATIONS)
        if self.quantize == "float8_dynamic" and self.dtype != "bfloat16":
            raise ModelError(
                f"quantize: float8_dynamic computes beside bfloat16, not {self.dtype}: leave dtype out, or take int8 "
                "or float8"
            )

    @classmethod
    def asked(cls, dtype: str | None, quantize: str | None) -> Weights:
        """What a study asks for. Without a dtype: float32, and bfloat16 around weights that are quantised.

        Raises:
            UnknownName: If there is none such.
            ModelError: If they do not go together.
        """
        return cls(dtype or ("float32" if quantize is None else "bfloat16"), quantize)

    @classmethod
    def of(cls, provenance: Provenance | None) -> Weights:
        """How they were held when a recipe was found; plain where its file does not say.

        Raises:
            RecipeError: If it says something that is no dtype or quantization.
        """
        evidence = provenance.evidence if provenance else {}
        try:
            return cls(evidence.get("dtype", "float32"), evidence.get("quantize"))
        except (UnknownName, ModelError) as error:
            raise RecipeError(f"the recipe's evidence says how its model was held, but {error}") from error

    @property
    def torch_dtype(self) -> torch.dtype:
        """The number format for torch."""
        return DTYPES[self.dtype]

    def to_dict(self) -> dict[str, str]:
        """As JSON; empty for plain float32."""
        given = {"dtype": self.dtype} if self.dtype != "float32" else {}
        return given | ({"quantize": self.quantize} if self.quantize else {})

    def __str__(self) -> str:
        return f"{self.dtype}, {self.quantize}" if self.quantize else self.dtype

    def arguments(self, index: Mapping[str, Any]) -> dict[str, Any]:
        """What ``DiffusionPipeline.from_pretrained`` takes to load them so.

        Args:
            index: The pipeline's components, as ``model_index.json`` has them.

        Raises:
            ModelError: If torchao, or a GPU that computes in eight bits, is needed and not there.
        """
        arguments: dict[str, Any] = {"dtype": self.torch_dtype}
        if self.quantize is None:
            return arguments
        try:
            torchao_config(self.quantize)
        except ImportError as error:
            raise ModelError(f"quantize: {self.quantize} needs torchao: pip install 'pagopt[quantize]'") from error
        if self.quantize == "float8_dynamic" and not _computes_in_float8():
            raise ModelError(
                "quantize: float8_dynamic computes in eight bits, which takes a GPU that can (NVIDIA's from compute "
                "capability 8.9 on, such as RTX 4090, L40S or H100); take float8 or int8, which only hold weights so"
            )
        import diffusers
        import transformers

        mapping: dict[str, Any] = {"transformer": diffusers.TorchAoConfig(torchao_config(self.quantize))}
        for name, entry in index.items():
            if name.startswith("text_encoder") and entry[1] is not None and not entry[1].startswith(_CLIP):
                mapping[name] = transformers.TorchAoConfig(torchao_config(self.quantize))
        return {**arguments, "quantization_config": diffusers.PipelineQuantizationConfig(quant_mapping=mapping)}

    def bytes_in(self, transformer: nn.Module, others: Iterable[nn.Module] = ()) -> int:
        """What the networks take in this form, from their shapes alone (``meta`` tensors will do).

        Args:
            transformer: Its linear layers are quantised.
            others: These are not.
        """
        width: int = self.torch_dtype.itemsize
        every: int = sum(p.numel() for module in (transformer, *others) for p in module.parameters()) * width
        if self.quantize is None:
            return every
        linear: int = sum(m.weight.numel() for m in transformer.modules() if isinstance(m, nn.Linear))
        return every - linear * (width - _BYTE)


def torchao_config(quantize: str) -> Any:
    """What ``torchao.quantization.quantize_`` takes for one of :data:`QUANTIZATIONS`.

    Raises:
        ImportError: If there is no torchao.
    """
    torchao = importlib.import_module("torchao.quantization")
    # By default torchao scales a whole batch by one number, divides by zero where a token is zero (as SD3's are without
    # T5), and changes how everything else is compiled.
    own = {"granularity": torchao.PerRow(), "activation_value_lb": _SMALLEST} if quantize == "float8_dynamic" else {}
    return getattr(torchao, QUANTIZATIONS[quantize])(**own, set_inductor_config=False)


def _computes_in_float8() -> bool:
    return torch.cuda.is_available() and torch.cuda.get_device_capability() >= (8, 9)


def plain_tensors(tensor: torch.Tensor) -> Iterator[torch.Tensor]:
    """The plain tensors inside one: quantised weights are several under one name."""
    if not hasattr(tensor, "__tensor_flatten__"):
        yield tensor
        return
    for name in tensor.__tensor_flatten__()[0]:
        yield from plain_tensors(getattr(tensor, name))


def dtype_of(module: nn.Module) -> str:
    """What a network computes in: the dtype of its first parameter of one of :data:`DTYPES`."""
    names = {dtype: name for name, dtype in DTYPES.items()}
    return next((names[p.dtype] for p in module.parameters() if p.dtype in names), "float32")


def bytes_of(module: nn.Module) -> int:
    """Bytes that a network's parameters take."""
    return sum(math.prod(t.shape) * t.element_size() for p in module.parameters() for t in plain_tensors(p))
