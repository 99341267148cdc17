"""Image tokens look at themselves and at the text: perturbed-attention guidance as diffusers does it for SD3.

diffusers' ``PAGJointAttnProcessor2_0`` masks the logits between different image tokens and leaves all others. The
paper's identity (arXiv 2506.10978, Eq. 6) goes further: it takes the text away too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from pagopt.targets.target import Target
from pagopt.targets.view import View, chunks

__all__ = ["ImageToImage"]


@dataclass(frozen=True)
class ImageToImage(Target):
    """The row of image token i is ``softmax`` over itself and all text tokens; text tokens keep their attention.

    Only the logits of the text and of the token itself are computed: (P, n, text + 1), piece by piece.
    """

    name: ClassVar[str] = "image_to_image"
    rows: ClassVar[Literal["all", "image"]] = "image"
    full_support: ClassVar[bool] = False

    def values(self, view: View, rows: slice) -> Tensor:
        """The weighted sum of a token's own V and the text's."""
        found = view.v.new_empty(view.v.shape[0], rows.stop - rows.start, view.v.shape[-1])
        for some, piece in chunks(view.v.shape[0], rows, 1 + view.text.stop - view.text.start):
            part = view.part(some)
            kind = torch.promote_types(part.q.dtype, torch.float32)
            queries, keys, values = (x.to(kind) for x in (part.q[:, piece], part.k, part.v))
            own = (queries * keys[:, piece]).sum(dim=-1, keepdim=True)
            text = queries @ keys[:, view.text].mT
            if part.mask is not None:
                text = text.masked_fill(~part.mask[:, None, view.text], -torch.inf)
            weights = (torch.cat([own, text], dim=-1) * view.scale).softmax(dim=-1)
            mixed = weights[..., :1] * values[:, piece] + weights[..., 1:] @ values[:, view.text]
            found[some, piece.start - rows.start : piece.stop - rows.start] = mixed.to(found.dtype)
        return found

    def map(self, view: View, rows: slice) -> Tensor:
        """The map with the logits between different image tokens taken out."""
        logits = view.logits(rows)
        place = torch.arange(view.tokens, device=logits.device)
        is_image = (place >= view.image.start) & (place < view.image.stop)
        other = is_image & (place != place[rows, None])
        return logits.masked_fill(other, -torch.inf).softmax(dim=-1)
