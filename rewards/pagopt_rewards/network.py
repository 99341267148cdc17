"""The two towers behind an encoder: the interface, and transformers; openclip.py has open_clip's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from PIL import Image
from torch import Tensor

from pagopt.errors import RewardError
from pagopt_rewards.weights import fingerprint

__all__ = ["DTYPES", "Network", "TransformersNetwork", "load_transformers", "number_type"]

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class Network(Protocol):
    """What an encoder needs of a CLIP, whichever library runs it."""

    model: Any
    folder: Path
    """Where its files are; for messages and for what lies beside them."""
    limit: int
    """Tokens of a text, those at its beginning and end included."""
    width: int
    """Numbers in a feature."""
    patch: int
    """Pixels a side of what its vision transformer takes as one token; 0 if it is none."""

    def prepare(self, image: Image.Image) -> Tensor:
        """The pixels of an RGB image, float32 ``(3, h, w)``, as the model wants them."""

    def see(self, pixels: Tensor) -> Tensor:
        """Features ``(n, width)`` of float32 pixels ``(n, 3, h, w)``, on the model's device."""

    def look(self, pixels: Tensor) -> Tensor:
        """What ``see`` projects into the space shared with texts: features ``(n, any width)`` of the image tower alone.

        Raises:
            RewardError: If the model has no such projection.
        """

    def read(self, texts: Sequence[str]) -> Tensor:
        """Features ``(n, width)`` of texts, cut at the limit, on the model's device."""

    def cut(self, text: str) -> str:
        """What of a text lies beyond the limit; empty when it fits."""

    def scale(self) -> float:
        """What the model multiplies a cosine by, before it becomes a probability."""

    def move(self, device: torch.device) -> None:
        """Move the model."""

    def fingerprint(self) -> str:
        """Hex digest of weights and configuration."""


def number_type(name: str) -> torch.dtype:
    """The torch type that a reward's argument ``dtype`` names.

    Raises:
        RewardError: If it names none.
    """
    if name not in DTYPES:
        raise RewardError(f"dtype is one of {', '.join(DTYPES)}, not {name!r}")
    return DTYPES[name]


class TransformersNetwork:
    """A transformers ``CLIPModel`` with its tokenizer.

    Args:
        model: The model, in evaluation mode.
        tokenizer: A transformers ``CLIPTokenizer``.
        prepare: From an RGB image to float32 ``(3, h, w)``.
        files: Everything that the scores depend on.
        clean: What is done to each text first.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        prepare: Callable[[Image.Image], Tensor],
        files: Sequence[Path],
        clean: Callable[[str], str] = str,
    ) -> None:
        self.model, self.tokenizer, self.prepare, self.files, self.clean = model, tokenizer, prepare, files, clean
        self.folder = files[0].parent
        self.limit = int(model.config.text_config.max_position_embeddings)
        self.width = int(model.config.projection_dim)
        self.patch = int(model.config.vision_config.patch_size)

    def see(self, pixels: Tensor) -> Tensor:
        """Features of pixels."""
        return self.model.get_image_features(pixel_values=pixels.to(self.model.device, self.model.dtype)).pooler_output  # type: ignore[no-any-return]

    def look(self, pixels: Tensor) -> Tensor:
        """Features of pixels before their projection."""
        pixels = pixels.to(self.model.device, self.model.dtype)
        return self.model.vision_model(pixel_values=pixels).pooler_output  # type: ignore[no-any-return]

    def read(self, texts: Sequence[str]) -> Tensor:
        """Features of texts."""
        tokens = self.tokenizer(
            [self.clean(text) for text in texts],
            padding=True,
            truncation=True,
            max_length=self.limit,
            return_tensors="pt",
        ).to(self.model.device)
        return self.model.get_text_features(  # type: ignore[no-any-return]
            input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]
        ).pooler_output

    def cut(self, text: str) -> str:
        """What lies beyond the limit, in the user's own letters."""
        cleaned = self.clean(text)
        found = self.tokenizer(cleaned, return_offsets_mapping=True, add_special_tokens=False, verbose=False)
        places, kept = found["offset_mapping"], self.limit - 2  # beginning and end
        return cleaned[places[kept][0] :] if len(places) > kept else ""

    def scale(self) -> float:
        """exp(logit_scale)."""
        return float(self.model.logit_scale.detach().float().exp())

    def move(self, device: torch.device) -> None:
        """Move the model."""
        self.model.to(device)

    def fingerprint(self) -> str:
        """sha256 over the files; large ones are sampled."""
        return fingerprint(*self.files)


def load_transformers(folder: Path, dtype: torch.dtype) -> Any:
    """The ``CLIPModel`` in a folder, in evaluation mode; weights are read from safetensors only.

    Raises:
        RewardError: If it cannot be read, or holds another model.
    """
    # Here, because importing transformers takes seconds, and `pagopt rewards` only wants a docstring.
    from transformers import CLIPConfig, CLIPModel

    try:
        kind = CLIPConfig.get_config_dict(folder)[0].get("model_type", "clip")
        if kind != "clip":
            raise RewardError(
                f"{folder} holds a model of type {kind!r}, not a CLIP. Others work through open_clip: "
                '"open_clip:ViT-B-16-SigLIP/webli", with pip install "pagopt[openclip]".'
            )
        model, report = CLIPModel.from_pretrained(folder, dtype=dtype, use_safetensors=True, output_loading_info=True)
        faults = {key: sorted(map(str, report[f"{key}_keys"])) for key in ("missing", "unexpected")}
        if any(faults.values()):
            # transformers would fill what is missing with random numbers, and score with them.
            said = "; ".join(f"{len(names)} {key} ({', '.join(names[:3])})" for key, names in faults.items() if names)
            raise RewardError(f"the weights in {folder} are not those of its config.json: tensors {said}")
    except RewardError:
        raise
    except Exception as error:
        said = str(error).splitlines()[0] if str(error) else ""
        raise RewardError(
            f"cannot load a CLIP model from {folder}: {type(error).__name__}: {said}. It takes config.json, "
            "model.safetensors, a tokenizer and preprocessor_config.json, as CLIPModel.save_pretrained makes them."
        ) from error
    return model.eval()
