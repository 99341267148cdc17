"""Guidance once more, slow and obvious: explicit attention maps, full second passes, a hand-written sampling loop.

Nothing here uses pagopt.guide, pagopt.guidance, pagopt.fork, pagopt.sites, pagopt.perturb or pagopt.targets.
"""

from __future__ import annotations

import copy

import torch

from tests.families.explicit import Layout, moved_map


class ExplicitMap:
    """An SD3 attention processor that builds every row's and head's map A and moves it as the recipe says."""

    def __init__(self, plans=None, grid=None):
        self.plans = plans or {}  # (row, head) -> (u, recipe)
        self.grid = grid

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, **ignored):
        streams = [(hidden_states, attn.to_q, attn.to_k, attn.to_v, attn.norm_q, attn.norm_k)]
        if encoder_hidden_states is not None:
            streams.append(
                (
                    encoder_hidden_states,
                    attn.add_q_proj,
                    attn.add_k_proj,
                    attn.add_v_proj,
                    attn.norm_added_q,
                    attn.norm_added_k,
                )
            )
        rows, images = hidden_states.shape[:2]
        outputs = []
        for row in range(rows):
            heads = []
            for head in range(attn.heads):
                queries, keys, values = [], [], []
                for tokens, to_q, to_k, to_v, norm_q, norm_k in streams:
                    width = to_q.out_features // attn.heads
                    part = slice(head * width, (head + 1) * width)
                    q, k, v = (project(tokens[row])[:, part] for project in (to_q, to_k, to_v))
                    queries.append(norm_q(q) if norm_q is not None else q)
                    keys.append(norm_k(k) if norm_k is not None else k)
                    values.append(v)
                q, k, v = torch.cat(queries), torch.cat(keys), torch.cat(values)
                layout = Layout(slice(0, images), slice(images, len(k)), self.grid)
                seen = torch.ones(len(k), dtype=torch.bool)
                heads.append(moved_map(q, k, layout, seen, *self.plans.get((row, head), (0.0, None))) @ v)
            outputs.append(torch.cat(heads, dim=-1))
        output = torch.stack(outputs)
        image = attn.to_out[0](output[:, :images])
        if encoder_hidden_states is None:
            return image
        text = output[:, images:]
        return image, text if attn.context_pre_only else attn.to_add_out(text)


def predict(transformer, recipes, latents, timestep, embeds, pooled):
    """The prediction for every row with the maps of its recipe's heads replaced (``None``: nothing replaced)."""
    model = copy.deepcopy(transformer)
    for number, block in enumerate(model.transformer_blocks):
        for name in ("attn", "attn2"):
            site = getattr(block, name, None)
            if site is not None:
                plans = {
                    (row, head.head): (u, recipe)
                    for row, recipe in enumerate(recipes)
                    if recipe is not None
                    for head, u in zip(recipe.heads, recipe.strengths, strict=True)
                    if (head.block, head.site) == (number, name)
                }
                site.processor = ExplicitMap(plans, tuple(side // 2 for side in latents.shape[-2:]))
    with torch.no_grad():
        return model(latents, embeds, pooled, timestep.expand(len(latents)), return_dict=False)[0]


def sample(pipe, recipes, steps, g, latents, prompt, negative=None, begin=0):
    """Euler sampling of all rows by the equations alone; returns the final latents.

    ``prompt`` and ``negative`` are (embeddings, pooled embeddings); ``g`` = 1 is no CFG; img2img begins late.
    """
    pipe.scheduler.set_timesteps(steps)
    sigmas, timesteps = pipe.scheduler.sigmas, pipe.scheduler.timesteps
    nothing = [None] * len(recipes)
    for i in range(begin, steps):
        timestep = timesteps[i]
        cond = predict(pipe.transformer, nothing, latents, timestep, *prompt)
        perturbed = predict(pipe.transformer, recipes, latents, timestep, *prompt)
        velocity = cond.clone()
        if g > 1:
            uncond = predict(pipe.transformer, nothing, latents, timestep, *negative)
            velocity = uncond + g * (cond - uncond)
        for row, recipe in enumerate(recipes):
            start, stop = recipe.interval
            if start <= (i - begin) / (steps - begin) < stop:
                velocity[row] += recipe.scale * (cond[row] - perturbed[row])
        latents = latents + (sigmas[i + 1] - sigmas[i]) * velocity
    return latents
