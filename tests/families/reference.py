"""Guidance once more, slow and obvious: every map is built and moved, see ``explicit.py``, in full second passes.

Nothing here uses pagopt.guide, pagopt.guidance, pagopt.fork, pagopt.sites, pagopt.perturb or pagopt.targets. Of a
recipe only the attributes are read.
"""

from __future__ import annotations

import copy

import torch
from explicit import ExplicitFlux, ExplicitFlux2Single, ExplicitQwen, ExplicitZImage
from tiny_families import at, call


def blocks_of(model):
    """(block, explicit processor for it), in the order of execution."""
    kind = type(model).__name__
    if kind == "QwenImageTransformer2DModel":
        return [(block, ExplicitQwen) for block in model.transformer_blocks]
    if kind == "ZImageTransformer2DModel":
        return [(block, ExplicitZImage) for block in model.layers]
    single = ExplicitFlux2Single if kind == "Flux2Transformer2DModel" else ExplicitFlux
    return [
        *((block, ExplicitFlux) for block in model.transformer_blocks),
        *((block, single) for block in model.single_transformer_blocks),
    ]


def predict(transformer, recipes, arguments, grid):
    """The prediction for every row with the maps of its recipe's heads moved (``None``: nothing moved)."""
    model = copy.deepcopy(transformer)
    for number, (block, explicit) in enumerate(blocks_of(model)):
        plans = {
            (row, head.head): (strength, recipe)
            for row, recipe in enumerate(recipes)
            if recipe is not None
            for head, strength in zip(recipe.heads, recipe.strengths, strict=True)
            if head.block == number and strength > 0
        }
        attention = block.attention if explicit is ExplicitZImage else block.attn
        attention.processor = explicit(plans, arguments["encoder_hidden_states"].shape[1], grid)
    with torch.no_grad():
        return call(model, arguments, grid)


def guided_prediction(transformer, recipes, arguments, grid):
    """``cond + w (cond - perturbed)`` for every row."""
    plain = predict(transformer, [None] * len(recipes), arguments, grid)
    perturbed = predict(transformer, recipes, arguments, grid)
    scales = torch.tensor([recipe.scale for recipe in recipes], dtype=plain.dtype)[:, None, None]
    return plain + scales * (plain - perturbed)


def sample(pipe, variant, recipes, prompt, latents, grid, g=1.0, negative=None, begin=0):
    """Euler sampling of all rows by the equations alone; returns the final latents.

    Args:
        pipe: Its transformer and the schedule that it ran last are used.
        variant: Which of the tiny families it is of: Z-Image predicts with the other sign, and Qwen-Image gives the
            combination the norm of the conditional prediction.
        recipes: One a row.
        prompt: All arguments of the transformer but latents and timestep.
        latents: To begin with, packed.
        grid: Rows and columns of image tokens.
        g: Scale of classifier-free guidance.
        negative: Like ``prompt``, for the unconditional prediction; ``None`` where there is none.
        begin: First step: image-to-image begins late.
    """
    sigmas, timesteps = pipe.scheduler.sigmas, pipe.scheduler.timesteps
    steps, nothing = len(timesteps), [None] * len(recipes)
    sign = -1 if variant == "zimage" else 1
    for i in range(begin, steps):
        moment = {"hidden_states": latents, "timestep": at(variant, timesteps[i], len(latents), latents.dtype)}
        cond = predict(pipe.transformer, nothing, prompt | moment, grid)
        perturbed = predict(pipe.transformer, recipes, prompt | moment, grid)
        shift = torch.zeros_like(cond)
        for row, recipe in enumerate(recipes):
            start, stop = recipe.interval
            if start <= (i - begin) / (steps - begin) < stop:
                shift[row] = recipe.scale * (cond[row] - perturbed[row])
        velocity = cond + shift
        if negative is not None:
            uncond = predict(pipe.transformer, nothing, negative | moment, grid)
            velocity = uncond + g * (cond - uncond) + shift
            if variant == "qwen":
                norms = (cond + shift).norm(dim=-1, keepdim=True) / velocity.norm(dim=-1, keepdim=True)
                velocity = velocity * norms
        latents = latents + (sigmas[i + 1] - sigmas[i]) * sign * velocity
    return latents
