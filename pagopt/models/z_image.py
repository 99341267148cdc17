"""Z-Image and Z-Image-Turbo (https://github.com/Tongyi-MAI/Z-Image): ``ZImageTransformer2DModel``.

All addressable blocks are single ones: image and text run through the same projections, in the order [image, text].
Each kind is filled up to a multiple of 32 with pad tokens that were learned and that every token may look at; they
count as text here. Captions of one batch that are of unequal length even then are padded further, and that padding is
masked.

Before them come the refiners, two blocks that see the image tokens alone and two that see the caption alone. They are
left out: from what they give, the transformer builds the joint tokens of just the rows that it was called with, so that
perturbed copies can only join behind them, at the first block of ``layers``.

Classifier-free guidance is one call of the transformer, on the conditional and then the unconditional rows, and the
pipeline's ``guidance_scale`` counts from 0: ``cond + s (cond - uncond)`` is ``uncond + g (cond - uncond)`` with
``g = s + 1``. In the steps that ``cfg_truncation`` takes out, there are conditional rows only, and ``g`` is 1. In all
of them the sum is ``uncond + g (cond - uncond) + w (cond - perturbed)``. With ``cfg_normalization`` the pipeline then
shortens it, where it is longer than that many times ``cond + (w / g) (cond - perturbed)``. Last it changes the sign.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, cast

import torch
from diffusers.models.transformers.transformer_qwenimage import apply_rotary_emb_qwen
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from pagopt.errors import GuidanceError, ModelError
from pagopt.heads import HeadMap, Site
from pagopt.models.anatomy import Attention, Family, Output, Stream
from pagopt.models.taps import split_taps

__all__ = ["ZImage"]

_NAMES = {"x": "hidden_states", "t": "timestep", "cap_feats": "encoder_hidden_states"}
_PATCH, _FRAMES = 2, 1  # what the transformer takes by default, and all pipelines


class ZImage(Family):
    """Anatomy of Z-Image."""

    name: ClassVar[str] = "z-image"
    transformer: ClassVar[str] = "ZImageTransformer2DModel"
    pipelines: ClassVar[tuple[str, ...]] = (
        "ZImagePipeline",
        "ZImageImg2ImgPipeline",
        "ZImageInpaintPipeline",
        "ZImageControlNetPipeline",
        "ZImageControlNetInpaintPipeline",
    )
    processors: ClassVar[frozenset[str]] = frozenset({"ZSingleStreamAttnProcessor"})
    conditional_first: ClassVar[bool] = True
    scale_offset: ClassVar[float] = 1.0
    residuals: ClassVar[frozenset[str]] = frozenset({"controlnet_block_samples"})
    leaves_at_tail: ClassVar[bool] = True

    def head_map_from_config(self, config: Mapping[str, Any]) -> HeadMap:
        if config.get("siglip_feat_dim") is not None:
            raise ModelError(
                "this Z-Image transformer has siglip_feat_dim (Z-Image-Omni), and takes several pictures a row; pagopt "
                "does not support that: take Z-Image or Z-Image-Turbo"
            )
        patches = [*config["all_patch_size"], *config["all_f_patch_size"]]
        if patches != [_PATCH, _FRAMES]:
            raise ModelError(
                f"this Z-Image transformer has patches of {patches}; pagopt knows those of 2 x 2 latent pixels in one "
                "frame, as Z-Image and Z-Image-Turbo have them"
            )
        heads, blocks = int(config["n_heads"]), int(config["n_layers"])
        return HeadMap(tuple(Site(block, "attn", heads) for block in range(blocks)))

    def blocks(self, transformer: nn.Module) -> Sequence[nn.Module]:
        return list(cast("nn.ModuleList", transformer.layers))

    def attentions(self, transformer: nn.Module) -> Sequence[Attention]:
        found = []
        for block, module in enumerate(self.blocks(transformer)):
            attention: Any = module.attention
            width = int(attention.inner_dim)
            taps = split_taps(attention, ("to_q", "to_k", "to_v"), "to_qkv", width)
            norms = (attention.norm_q, attention.norm_k)
            stream = Stream("joint", *taps, norms, Output(attention.to_out[0], width))
            found.append(Attention(block, "attn", int(attention.heads), attention, (stream,)))
        return found

    def tail(self, transformer: nn.Module) -> Sequence[nn.Module]:
        return list(cast("nn.ModuleDict", transformer.all_final_layer).values())

    def batched(self, given: Mapping[str, Any]) -> Mapping[str, Any]:
        pictures, texts = list(given["x"]), list(given["cap_feats"])
        if isinstance(pictures[0], list):
            raise GuidanceError(
                "guidance does not work with several pictures in a row, as Z-Image-Omni has them: call a pipeline of "
                "Z-Image or Z-Image-Turbo"
            )
        if len({picture.shape for picture in pictures}) > 1:
            raise GuidanceError("guidance does not work with pictures of several sizes in one batch: draw them apart")
        return {_NAMES.get(name, name): value for name, value in given.items()} | {
            "hidden_states": torch.stack(pictures),
            "encoder_hidden_states": pad_sequence(texts, batch_first=True),
            "lengths": torch.tensor([len(text) for text in texts], device=texts[0].device),
        }

    def unbatched(self, given: Mapping[str, Any]) -> dict[str, Any]:
        rest = dict(given)
        lengths = rest.pop("lengths").tolist()
        return (
            {name: rest.pop(ours) for name, ours in _NAMES.items()}
            | rest
            | {
                "x": list(given["hidden_states"]),
                "cap_feats": [
                    text[:length] for text, length in zip(given["encoder_hidden_states"], lengths, strict=True)
                ],
            }
        )

    def predictions(self, sample: Any, copies: Tensor | None, transformer: nn.Module) -> Tensor:
        rows = torch.stack(sample)
        if copies is None:
            return rows
        model: Any = transformer
        found = model.unpatchify(list(copies), [tuple(rows.shape[2:])] * len(copies), _PATCH, _FRAMES)
        return torch.cat([rows, torch.stack(found)])

    def returned(self, predictions: Tensor) -> Any:
        return list(predictions)

    def image_tokens(self, given: Mapping[str, Any]) -> slice:
        down, across = _grid(given)
        return slice(0, down * across)

    def passed(self, timesteps: Tensor, dtype: torch.dtype) -> Tensor:
        return (1000 - timesteps) / 1000

    def pauses(self, pipe: Any, timestep: Tensor) -> bool:
        until = pipe._cfg_truncation
        return until is not None and until < 1 and bool(timestep.reshape(-1)[0].item() > until)

    def encode(self, pipe: Any, prompts: Sequence[str]) -> list[dict[str, Tensor]]:
        rows, _ = pipe.encode_prompt(prompt=list(prompts), do_classifier_free_guidance=False)
        return [{"prompt_embeds": row} for row in rows]

    def join(self, rows: Sequence[Mapping[str, Tensor]]) -> dict[str, Any]:
        return {"prompt_embeds": [row["prompt_embeds"] for row in rows]}

    def cfg_arguments(self, pipe: Any, cfg: float) -> dict[str, float]:
        return {"guidance_scale": cfg - self.scale_offset}

    def default_size(self, pipe: Any) -> int:
        return 1024

    def pixels(self, pipe: Any) -> int:
        return 2 * int(pipe.vae_scale_factor)

    def grid(self, given: Mapping[str, Any], transformer: nn.Module) -> tuple[int, int]:
        return _grid(given)

    def rotate(self, parts: Sequence[Tensor], call: Mapping[str, Any], rows: Tensor) -> Sequence[Tensor]:
        # Also the formula of Z-Image's own processor, from where it cannot be imported. The longer the caption, the
        # further on are the positions of the image.
        positions = call["freqs_cis"].index_select(0, rows)
        return [apply_rotary_emb_qwen(part[:, None], positions, use_real=False)[:, 0] for part in parts]

    def key_mask(self, call: Mapping[str, Any]) -> Tensor | None:
        mask: Tensor | None = call.get("attention_mask")
        return mask

    def unsupported(self, given: Mapping[str, Any]) -> str | None:
        frames = int(given["hidden_states"].shape[2])
        return None if frames == 1 else f"latents of {frames} frames"


def _grid(given: Mapping[str, Any]) -> tuple[int, int]:
    """Rows and columns of the image tokens."""
    down, across = given["hidden_states"].shape[-2:]
    return down // _PATCH, across // _PATCH
