"""A slow and obvious reference for what a CLIP makes of pictures and texts: transformers alone, one at a time."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor
from transformers import CLIPImageProcessorPil, CLIPModel, CLIPTokenizer

__all__ = ["Towers"]


class Towers:
    """The model in a folder."""

    def __init__(self, folder: str) -> None:
        self.model, self.tokenizer = CLIPModel.from_pretrained(folder), CLIPTokenizer.from_pretrained(folder)
        self.processor = CLIPImageProcessorPil.from_pretrained(folder)

    @torch.no_grad()
    def images(self, images: Sequence[Image.Image], projected: bool) -> list[Tensor]:
        """A unit vector for each image."""
        found = []
        for image in images:
            pixels = self.processor(image, return_tensors="pt")["pixel_values"]
            pooled = self.model.vision_model(pixels).pooler_output[0]
            vector = self.model.visual_projection(pooled) if projected else pooled
            found.append(vector / vector.norm())
        return found

    @torch.no_grad()
    def texts(self, texts: Sequence[str]) -> list[Tensor]:
        """A unit vector for each text."""
        found = []
        for text in texts:
            vector = self.model.text_projection(
                self.model.text_model(**self.tokenizer([text], return_tensors="pt")).pooler_output[0]
            )
            found.append(vector / vector.norm())
        return found
