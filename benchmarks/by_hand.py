"""Guidance by one perturbed head as a careful user of diffusers would write it today, without pagopt.

The stock pipeline runs as it is. Its transformer sees every image twice in one batch, [plain, perturbed], and returns
the guided prediction; one block has an attention processor that builds the explicit map of one head in the perturbed
row and moves it to the identity. All other heads stay with the fused kernel.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.embeddings import apply_rotary_emb
from torch import Tensor

from pagopt.heads import Head

BATCHED = ("hidden_states", "encoder_hidden_states", "pooled_projections", "timestep", "guidance")


def attend(q: Tensor, k: Tensor, v: Tensor, head: int, strength: float) -> Tensor:
    """Attention of (rows, heads, tokens, width), with one head of the last row perturbed; (rows, tokens, all)."""
    output = F.scaled_dot_product_attention(q, k, v)
    attention = torch.softmax(q[-1, head] @ k[-1, head].T / math.sqrt(q.shape[-1]), dim=-1)
    identity = torch.eye(len(attention), dtype=attention.dtype, device=attention.device)
    output[-1, head] = torch.lerp(attention, identity, strength) @ v[-1, head]
    return output.transpose(1, 2).flatten(2)


def split_heads(projected: Tensor, heads: int, norm: Any) -> Tensor:
    """(rows, tokens, all) to (rows, heads, tokens, width), normalised where the model does that."""
    parts = projected.view(*projected.shape[:2], heads, -1).transpose(1, 2)
    normalised: Tensor = parts if norm is None else norm(parts)
    return normalised


class PerturbedHead:
    """An attention processor for SD3's blocks and both kinds of FLUX.1's."""

    def __init__(self, head: int, strength: float, text_first: bool) -> None:
        self.head, self.strength, self.text_first = head, strength, text_first

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        image_rotary_emb: Any = None,
    ) -> Any:
        """What the model's own processor does, with one perturbed head."""
        tokens, heads = hidden_states.shape[1], attn.heads
        q = split_heads(attn.to_q(hidden_states), heads, attn.norm_q)
        k = split_heads(attn.to_k(hidden_states), heads, attn.norm_k)
        v = split_heads(attn.to_v(hidden_states), heads, None)
        if encoder_hidden_states is not None:
            more = (
                split_heads(attn.add_q_proj(encoder_hidden_states), heads, attn.norm_added_q),
                split_heads(attn.add_k_proj(encoder_hidden_states), heads, attn.norm_added_k),
                split_heads(attn.add_v_proj(encoder_hidden_states), heads, None),
            )
            pairs = zip(more, (q, k, v), strict=True) if self.text_first else zip((q, k, v), more, strict=True)
            q, k, v = (torch.cat(pair, dim=2) for pair in pairs)
        if image_rotary_emb is not None:
            q, k = (apply_rotary_emb(part, image_rotary_emb) for part in (q, k))
        output = attend(q, k, v, self.head, self.strength)
        if encoder_hidden_states is None:  # one of FLUX.1's single blocks, which projects the output itself
            return output
        text = output.shape[1] - tokens
        image = output[:, text:] if self.text_first else output[:, :tokens]
        words = output[:, :text] if self.text_first else output[:, tokens:]
        image = attn.to_out[1](attn.to_out[0](image))
        return image, words if getattr(attn, "context_pre_only", None) else attn.to_add_out(words)


@contextmanager
def by_hand(pipe: Any, blocks: Any, head: Head, scale: float, strength: float = 1.0) -> Iterator[None]:
    """Guide the calls of a pipeline, one image each, away from one perturbed head.

    Args:
        pipe: A stock SD3 or FLUX.1 pipeline.
        blocks: The blocks of its transformer.
        head: The head; of a block's main attention.
        scale: Of the guidance.
        strength: Of the perturbation.
    """
    attention, transformer = blocks[head.block].attn, pipe.transformer
    stock, forward = attention.processor, transformer.forward

    def guided_forward(**given: Any) -> tuple[Tensor]:
        both = {name: torch.cat([x, x]) if name in BATCHED and x is not None else x for name, x in given.items()}
        plain, perturbed = forward(**both)[0].chunk(2)
        return (plain + scale * (plain - perturbed),)

    attention.processor = PerturbedHead(head.head, strength, text_first="Flux" in type(transformer).__name__)
    transformer.forward = guided_forward
    try:
        yield
    finally:
        del transformer.forward
        attention.processor = stock
