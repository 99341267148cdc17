"""What is in a store: how much, of which models, recipes and rewards."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass

from tqdm.auto import tqdm

from pagopt.store.store import Store

__all__ = ["Contents", "contents"]


@dataclass(frozen=True)
class Contents:
    """Numbers about a store.

    Attributes:
        folder: Where it is.
        images: How many.
        image_bytes: Size of their files.
        index_bytes: Size of the index.
        models: Images by model: class of its pipeline, fingerprint.
        prompts: How many different ones.
        recipes: How many different ones; no guidance is one.
        rewards: Scores by key of the reward.
        oldest: When the first image was made, in seconds since 1970; ``None`` without images.
        newest: The same of the last one.
    """

    folder: str
    images: int
    image_bytes: int
    index_bytes: int
    models: dict[str, int]
    prompts: int
    recipes: int
    rewards: dict[str, int]
    oldest: float | None
    newest: float | None


def contents(store: Store) -> Contents:
    """Count; a million images take some seconds.

    Raises:
        StoreError: If it cannot be read.
    """
    models: Counter[str] = Counter()
    prompts, recipes = set(), set()
    size, images = 0, 0
    oldest: float | None = None
    newest: float | None = None
    for _, text, some, made in tqdm(store.rows(), desc="info", unit="image", delay=2, leave=False):
        facts = json.loads(text)
        models[f"{facts.get('pipeline', 'unknown')} {facts.get('model', 'unknown')}"] += 1
        prompts.add(facts.get("prompt"))
        recipes.add(json.dumps(facts.get("recipe"), sort_keys=True))
        images += 1
        size += some or 0
        if made is not None:
            oldest, newest = min(made, oldest or made), max(made, newest or made)
    return Contents(
        folder=str(store.folder),
        images=images,
        image_bytes=size,
        index_bytes=store.index.stat().st_size,
        models=dict(models.most_common()),
        prompts=len(prompts),
        recipes=len(recipes),
        rewards=store.rewards(),
        oldest=oldest,
        newest=newest,
    )
