"""Attention with every map of every row and head built and moved, as processors for the models of diffusers.

Nothing here uses pagopt.sites, pagopt.perturb or pagopt.targets. Of a recipe only the attributes are read.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

TARGETS = {
    "identity": ("identity", {}),
    "image_identity": ("image_identity", {}),
    "image_to_image": ("image_to_image", {}),
    "uniform": ("uniform", {}),
    "mean_all": ("mean_query", {"over": "all"}),
    "mean_image": ("mean_query", {"over": "image"}),
    "mean_text": ("mean_query", {"over": "text"}),
    "blur": ("blur", {"sigma": 0.8}),
    "flatter": ("temperature", {"tau": 3.0}),
    "sharper": ("temperature", {"tau": 0.4}),
    "row_maximum": ("row_maximum", {}),
}
"""The targets to try: (name, options)."""
HAVE_ZEROS = ("identity", "image_identity", "image_to_image", "row_maximum")


def error(found, expected):
    return ((found - expected).norm() / expected.norm()).item()


IMAGE_ROWS = ("image_identity", "image_to_image", "blur")
"""Targets that leave the rows of text tokens as they are."""


@dataclass
class Layout:
    """Where the tokens are in a joint map. ``text`` first or ``image`` first: both are slices."""

    image: slice
    text: slice
    grid: tuple[int, int]


# One map.


def target_map(name, options, logits, layout, seen):
    """T for one row and head: (S, S), from the logits (S, S) and which tokens may be looked at (S,).

    A mean or a blur of queries is one of their logits, which are linear in them.
    """
    tokens = logits.shape[-1]

    def softmax(asked, tau=1.0):
        return (asked / tau).masked_fill(~seen, -math.inf).softmax(dim=-1)

    if name in ("identity", "image_identity"):
        return torch.eye(tokens, dtype=logits.dtype)
    if name == "image_to_image":
        logits = logits.clone()
        for i in range(layout.image.start, layout.image.stop):
            for j in range(layout.image.start, layout.image.stop):
                if i != j:
                    logits[i, j] = -math.inf
        return softmax(logits)
    if name == "uniform":
        return (seen.to(logits.dtype) / seen.sum()).expand(tokens, tokens)
    if name == "mean_query":
        span = {"all": slice(0, tokens), "image": layout.image, "text": layout.text}[options.get("over", "all")]
        asked = torch.stack([row for row, use in zip(logits[span], seen[span], strict=True) if use]).mean(dim=0)
        return softmax(asked).expand(tokens, tokens)
    if name == "blur":
        rows, columns = layout.grid
        places = [(r, c) for r in range(rows) for c in range(columns)]
        weights = torch.zeros(len(places), len(places), dtype=logits.dtype)
        for i, (r, c) in enumerate(places):
            for j, (down, across) in enumerate(places):
                weights[i, j] = math.exp(-((r - down) ** 2 + (c - across) ** 2) / (2 * options.get("sigma", 1.0) ** 2))
        blurred = logits.clone()
        blurred[layout.image] = weights / weights.sum(dim=1, keepdim=True) @ logits[layout.image]
        return softmax(blurred)
    if name == "temperature":
        return softmax(logits, options.get("tau", 2.0))
    if name == "row_maximum":
        return torch.eye(tokens, dtype=logits.dtype)[softmax(logits).argmax(dim=-1)]
    raise AssertionError(name)


def between(path, a, t, u):
    """The map at strength u on the way from A to T."""
    if path == "straight":
        return (1 - u) * a + u * t
    if path == "log_linear":
        product = a ** (1 - u) * t**u
        return product / product.sum(dim=-1, keepdim=True)
    if path == "fisher_rao":
        angle = torch.acos((a * t).sqrt().sum(dim=-1, keepdim=True).clamp(max=1))
        root = torch.sin((1 - u) * angle) * a.sqrt() + torch.sin(u * angle) * t.sqrt()
        return torch.where(angle > 0, (root / angle.sin()) ** 2, a)  # the way from a row to itself has no length
    raise AssertionError(path)


def moved_map(queries, keys, layout, seen, strength, recipe, added=0.0):
    """A' of one row and head, (S, S); ``recipe`` is ``None`` where nothing is perturbed. ``added`` is to the logits."""
    logits = queries @ keys.T / math.sqrt(queries.shape[-1]) + added
    plain = logits.masked_fill(~seen, -math.inf).softmax(dim=-1)
    if recipe is None:
        return plain
    target = target_map(recipe.target, dict(recipe.target_options), logits, layout, seen)
    moved = between(recipe.path, plain, target, strength)
    if recipe.target in IMAGE_ROWS:
        moved[layout.text] = plain[layout.text]
    return moved


# One attention.


class ExplicitMaps:
    """What all explicit attention processors share.

    Args:
        plans: (row, head) -> (strength, recipe).
        text: Number of text tokens.
        grid: Rows and columns of image tokens.
    """

    def __init__(self, plans, text, grid):
        self.plans, self.text, self.grid = plans, text, grid

    def attend(self, queries, keys, values, layout, seen=None, added=None):
        """(rows, S, heads, D) to (rows, S, heads * D); ``seen`` is (rows, S), ``added`` to the logits (rows, S, S)."""
        rows, tokens, heads, _ = queries.shape
        seen = torch.ones(rows, tokens, dtype=torch.bool) if seen is None else seen
        added = [0.0] * rows if added is None else added
        output = torch.empty_like(values)
        for row in range(rows):
            for head in range(heads):
                strength, recipe = self.plans.get((row, head), (0.0, None))
                q, k, v = (x[row, :, head] for x in (queries, keys, values))
                output[row, :, head] = moved_map(q, k, layout, seen[row], strength, recipe, added[row]) @ v
        return output.flatten(-2)

    def text_first(self):
        """The layout [text, image]."""
        tokens = self.text + self.grid[0] * self.grid[1]
        return Layout(image=slice(self.text, tokens), text=slice(0, self.text), grid=self.grid)


def heads_of(attn, tokens, norm):
    """(rows, S, heads * D) to (rows, S, heads, D), normalised."""
    split = tokens.unflatten(-1, (attn.heads, -1))
    return split if norm is None else norm(split)


def rotate(x, cosine, sine):
    """Turn neighbouring pairs of columns; ``x`` is (rows, S, heads, D), the tables are ([rows,] S, D / 2)."""
    cosine, sine = cosine.to(x.dtype).unsqueeze(-2), sine.to(x.dtype).unsqueeze(-2)
    first, second = x[..., 0::2], x[..., 1::2]
    return torch.stack([first * cosine - second * sine, first * sine + second * cosine], dim=-1).flatten(-2)


class ExplicitFlux(ExplicitMaps):
    """Double blocks of FLUX.1, FLUX.2 and Chroma, and single blocks of FLUX.1 and Chroma, which has a mask."""

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, image_rotary_emb=None):
        queries = heads_of(attn, attn.to_q(hidden_states), attn.norm_q)
        keys = heads_of(attn, attn.to_k(hidden_states), attn.norm_k)
        values = heads_of(attn, attn.to_v(hidden_states), None)
        if encoder_hidden_states is not None:
            added_queries = heads_of(attn, attn.add_q_proj(encoder_hidden_states), attn.norm_added_q)
            added_keys = heads_of(attn, attn.add_k_proj(encoder_hidden_states), attn.norm_added_k)
            added_values = heads_of(attn, attn.add_v_proj(encoder_hidden_states), None)
            queries = torch.cat([added_queries, queries], dim=1)
            keys = torch.cat([added_keys, keys], dim=1)
            values = torch.cat([added_values, values], dim=1)
        cosine, sine = (table[:, 0::2] for table in image_rotary_emb)
        queries, keys = rotate(queries, cosine, sine), rotate(keys, cosine, sine)
        mask = {}
        if attention_mask is not None:  # (rows, 1, S, S), of booleans or of numbers
            hard = attention_mask.dtype == torch.bool
            mask = {"seen": attention_mask[:, 0].any(dim=1)} if hard else {"added": attention_mask[:, 0]}
        output = self.attend(queries, keys, values, self.text_first(), **mask)
        if encoder_hidden_states is None:
            return output
        return attn.to_out[0](output[:, self.text :]), attn.to_add_out(output[:, : self.text])


class ExplicitFlux2Single(ExplicitMaps):
    """Single blocks of FLUX.2, whose projections do attention and MLP at once."""

    def __call__(self, attn, hidden_states, attention_mask=None, image_rotary_emb=None):
        width = attn.inner_dim
        queries, keys, values, gate, linear = attn.to_qkv_mlp_proj(hidden_states).split(
            [width, width, width, attn.mlp_hidden_dim, attn.mlp_hidden_dim], dim=-1
        )
        cosine, sine = (table[:, 0::2] for table in image_rotary_emb)
        queries = rotate(heads_of(attn, queries, attn.norm_q), cosine, sine)
        keys = rotate(heads_of(attn, keys, attn.norm_k), cosine, sine)
        output = self.attend(queries, keys, heads_of(attn, values, None), self.text_first())
        return attn.to_out(torch.cat([output, torch.nn.functional.silu(gate) * linear], dim=-1))


class ExplicitQwen(ExplicitMaps):
    """Blocks of Qwen-Image."""

    def __call__(
        self,
        attn,
        hidden_states,
        encoder_hidden_states=None,
        encoder_hidden_states_mask=None,
        attention_mask=None,
        image_rotary_emb=None,
    ):
        streams = (
            (encoder_hidden_states, "add_q_proj", "add_k_proj", "add_v_proj", "norm_added_q", "norm_added_k"),
            (hidden_states, "to_q", "to_k", "to_v", "norm_q", "norm_k"),
        )
        queries, keys, values = [], [], []
        for (tokens, *names), turns in zip(streams, reversed(image_rotary_emb), strict=True):
            to_q, to_k, to_v, norm_q, norm_k = (getattr(attn, name) for name in names)
            queries.append(rotate(heads_of(attn, to_q(tokens), norm_q), turns.real, turns.imag))
            keys.append(rotate(heads_of(attn, to_k(tokens), norm_k), turns.real, turns.imag))
            values.append(heads_of(attn, to_v(tokens), None))
        seen = None
        if encoder_hidden_states_mask is not None:
            image = torch.ones(hidden_states.shape[:2], dtype=torch.bool)
            seen = torch.cat([encoder_hidden_states_mask.bool(), image], dim=1)
        joint = (torch.cat(parts, dim=1) for parts in (queries, keys, values))
        output = self.attend(*joint, self.text_first(), seen)
        return attn.to_out[0](output[:, self.text :]), attn.to_add_out(output[:, : self.text])


class ExplicitZImage(ExplicitMaps):
    """Blocks of Z-Image: first the image tokens, and all others count as text."""

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, freqs_cis=None):
        cosine, sine = freqs_cis.real, freqs_cis.imag
        queries = rotate(heads_of(attn, attn.to_q(hidden_states), attn.norm_q), cosine, sine)
        keys = rotate(heads_of(attn, attn.to_k(hidden_states), attn.norm_k), cosine, sine)
        values = heads_of(attn, attn.to_v(hidden_states), None)
        image = self.grid[0] * self.grid[1]
        layout = Layout(image=slice(0, image), text=slice(image, hidden_states.shape[1]), grid=self.grid)
        return attn.to_out[0](self.attend(queries, keys, values, layout, attention_mask))
