"""A model from its configuration alone: how many heads, parameters and operations it has, without any weight.

The networks are made on PyTorch's ``meta`` device, where a tensor has a shape and nothing in it.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from pagopt.errors import StudyError
from pagopt.heads import HeadMap
from pagopt.models.anatomy import Family
from pagopt.models.families import family_in, family_of_transformer
from pagopt.models.loading import cannot_load, read_index, read_part
from pagopt.models.names import resolve_model
from pagopt.models.published import published

__all__ = ["Outline", "outline_of"]

TEXT_TOKENS = {"sd3": 77 + 256, "flux": 512}
"""Rows of the text embeddings that the pipelines make; of FLUX.1-schnell 256."""

_VAE = {
    "_class_name": "AutoencoderKL",
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "latent_channels": 16,
    "layers_per_block": 2,
    "norm_num_groups": 32,
    "use_quant_conv": False,
    "use_post_quant_conv": False,
}


@dataclass(frozen=True)
class Outline:
    """What a configuration says of a model.

    Attributes:
        name: As it was asked for.
        family: Which family it is of.
        head_map: The addressable heads.
        transformer: On the ``meta`` device.
        vae: The decoder, on the ``meta`` device.
        parameters: Of both.
    """

    name: str
    family: Family
    head_map: HeadMap
    transformer: nn.Module
    vae: nn.Module
    parameters: int

    def operations(self, steps: int, height: int | None = None, width: int | None = None) -> int | None:
        """Floating-point operations of one unguided image, decoding included; a multiplication and an addition are two.

        Args:
            steps: Inference steps.
            height: Pixels; ``None`` is what the pipeline takes by default.
            width: The same.

        Returns:
            ``None`` for a family whose inputs are not known here.

        Raises:
            StudyError: If the model cannot draw that size.
        """
        if self.family.name not in TEXT_TOKENS:
            return None
        shrink = 2 ** (len(self._config(self.vae).block_out_channels) - 1)
        default = int(getattr(self._config(self.transformer), "sample_size", None) or 128) * shrink
        rows, columns = ((size or default) // shrink for size in (height, width))
        try:
            with FlopCounterMode(display=False) as counter, torch.inference_mode():
                self.transformer(**self._inputs(rows, columns))
            passes = int(counter.get_total_flops())
            with FlopCounterMode(display=False) as counter, torch.inference_mode():
                latents = torch.empty(1, self._config(self.vae).latent_channels, rows, columns, device="meta")
                self.vae.decode(latents)  # type: ignore[operator]
        except (RuntimeError, ValueError) as error:
            raise StudyError(f"{self.name} cannot draw {height} x {width} pixels: {error}") from error
        return steps * passes + int(counter.get_total_flops())

    def _inputs(self, rows: int, columns: int) -> dict[str, Any]:
        """Of the transformer, for one image of this many latent pixels."""
        config = self._config(self.transformer)

        def empty(*shape: int) -> torch.Tensor:
            return torch.empty(*shape, device="meta")

        flux = self.family.name == "flux"
        distilled = not flux or config.guidance_embeds
        text = TEXT_TOKENS[self.family.name] if distilled else 256
        inputs = {
            "encoder_hidden_states": empty(1, text, config.joint_attention_dim),
            "pooled_projections": empty(1, config.pooled_projection_dim),
            "timestep": empty(1),
        }
        if not flux:
            return {**inputs, "hidden_states": empty(1, config.in_channels, rows, columns)}
        tokens = (rows // 2) * (columns // 2)
        inputs |= {"img_ids": empty(tokens, 3), "txt_ids": empty(text, 3)}
        inputs |= {"guidance": empty(1)} if distilled else {}
        return {**inputs, "hidden_states": empty(1, tokens, config.in_channels)}

    @staticmethod
    def _config(module: nn.Module) -> Any:
        return cast("Any", module).config


def outline_of(name: str) -> Outline:
    """The outline of a model by name.

    Args:
        name: As for :func:`pagopt.models.resolve_model`. Of a hub id only the configuration is fetched; for the
            published models that ask for a login, nothing.

    Raises:
        UnknownName: If there is no such model.
        ModelError: If its configuration cannot be read, or its family is not supported.
    """
    source = resolve_model(name)
    if (known := published(source)) is not None:
        family, parts = family_of_transformer(known["_class_name"]), {"transformer": known, "vae": _VAE}
        kinds = {key: ["diffusers", config["_class_name"]] for key, config in parts.items()}
    else:
        index = read_index(source)
        family = family_in(index)
        kinds = {key: index[key] for key in ("transformer", "vae")}
        parts = {key: read_part(source, key) for key in kinds}
    head_map = family.head_map_from_config(parts["transformer"])
    try:
        with torch.device("meta"):
            transformer, vae = (
                getattr(importlib.import_module(kinds[key][0]), kinds[key][1]).from_config(parts[key]).eval()
                for key in ("transformer", "vae")
            )
    except Exception as error:
        raise cannot_load(source, error) from error
    parameters = sum(p.numel() for module in (transformer, vae) for p in module.parameters())
    return Outline(name, family, head_map, transformer, vae, parameters)
