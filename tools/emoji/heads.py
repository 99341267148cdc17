"""What every head of the embedded model does, measured: `python -m tools.emoji.heads`.

Each head alone is perturbed in the same tasks, and the pictures are compared with the unguided ones of the same prompts
and seeds. Resumable: pictures and scores lie in the folder `heads` of the build folder. Leaves `heads.json` there and
two pictures.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from jsonargparse import auto_cli
from numpy.typing import NDArray
from scipy import stats

from pagopt.errors import StudyError
from pagopt.evaluate import Evaluator, Progress, make_trainer
from pagopt.files import write_png, write_text
from pagopt.heads import Head
from pagopt.models import family_of, load_pipeline
from pagopt.recipe import Recipe
from pagopt.render import Renderer, Task
from pagopt.reward import Reward, load_reward
from pagopt.store import Store
from tools.emoji import artwork
from tools.emoji.captions import caption, name_of
from tools.emoji.headmap import EffectMap, PictureMap, draw_effects, draw_pictures
from tools.emoji.train import Build

__all__ = ["Effect", "choose_tasks", "effects_of", "heads", "holm", "table"]

LEVEL = 0.05  # of the tests, over all heads and rewards together


@dataclass(frozen=True)
class Effect:
    """What a head changes in a reward, over tasks.

    Attributes:
        mean: Mean of (guided - unguided).
        se: Its standard error.
        p: Two-sided p-value of the paired t-test, corrected for all heads and rewards.
    """

    mean: float
    se: float
    p: float

    @property
    def certain(self) -> bool:
        """Whether it is significant."""
        return self.p < LEVEL


def choose_tasks(
    styles: Sequence[str], names: Sequence[str], absent: Collection[tuple[int, int]], count: int, seed: int
) -> list[Task]:
    """Prompts "style, name" with a seed each: styles in turn, every name at most once, no pair of `absent`.

    Args:
        styles: Style words.
        names: Concept names.
        absent: (style, name) pairs, as indices, to leave out.
        count: Number of tasks, at least 2.
        seed: Of the choice of names, and of the noise.

    Raises:
        StudyError: If there are too few names for `count`, or it is below 2.
    """
    if count < 2:
        raise StudyError(f"a paired test takes at least 2 tasks, not {count}")
    left = np.random.default_rng(seed).permutation(len(names)).tolist()
    tasks = []
    for number in range(count):
        style = number % len(styles)
        at = next((place for place, name in enumerate(left) if (style, name) not in absent), None)
        if at is None:
            raise StudyError(f"only {number} of {count} tasks can have a name of their own: take fewer")
        tasks.append(Task(caption(styles[style], names[left.pop(at)]), seed * 10_000 + number))
    return tasks


def holm(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """p-values of any shape, corrected so that the chance of one false finding among all is bounded (Holm 1979)."""
    order = np.argsort(p, axis=None)
    steps = np.minimum(1.0, p.ravel()[order] * np.arange(p.size, 0, -1))
    corrected = np.empty(p.size)
    corrected[order] = np.maximum.accumulate(steps)
    return corrected.reshape(p.shape)


def effects_of(scores: Mapping[str, NDArray[np.float64]], heads: Sequence[Head]) -> dict[str, dict[Head, Effect]]:
    """Effects by reward and head.

    Args:
        scores: For each reward shape (1 + heads, tasks), the unguided pictures first.
        heads: In the order of the other rows.
    """
    differences = np.stack([rows[1:] - rows[0] for rows in scores.values()])
    count = differences.shape[-1]
    mean, se = differences.mean(axis=-1), differences.std(axis=-1, ddof=1) / np.sqrt(count)
    t = np.divide(mean, se, out=np.zeros_like(mean), where=se > 0)  # without any spread nothing is shown
    p = holm(2 * stats.t.sf(np.abs(t), count - 1))
    return {
        reward: {
            head: Effect(*(float(values[row, column]) for values in (mean, se, p))) for column, head in enumerate(heads)
        }
        for row, reward in enumerate(scores)
    }


def counts(effects: Mapping[str, Mapping[Head, Effect]]) -> dict[str, int]:
    """Heads with a significant effect: in any reward, and in each."""
    found = {reward: {head for head, effect in row.items() if effect.certain} for reward, row in effects.items()}
    return {"any": len(set().union(*found.values())), **{reward: len(some) for reward, some in found.items()}}


def table(effects: Mapping[str, Mapping[Head, Effect]]) -> str:
    """One line a head: mean ± standard error of each reward, with a star where it is significant."""
    lines = ["head  " + "".join(f"{reward:>20}" for reward in effects)]
    for head in next(iter(effects.values())):
        cells = [row[head] for row in effects.values()]
        texts = [f"{cell.mean:+.3f} ± {cell.se:.3f} {'*' if cell.certain else ' '}" for cell in cells]
        lines.append(f"{head!s:6}" + "".join(f"{text:>20}" for text in texts))
    found, total = counts(effects), len(next(iter(effects.values())))
    each = ", ".join(f"{reward} {found[reward]}" for reward in effects)
    lines.append(f"{found['any']} of {total} heads have a significant effect (*, {LEVEL:g} for all together): {each}")
    return "\n".join(lines)


def heads(
    build: Build | None = None,
    heads: str = "*",
    tasks: int = 40,
    strength: float = 1.0,
    scale: float = 3.0,
    steps: int = 12,
    seed: int = 11,
    prompts: tuple[str, ...] = ("flat, red apple", "glossy, cat face"),
    pictures: Path = Path("docs/emoji-heads.png"),
    effects: Path = Path("docs/emoji-effects.png"),
    batch_size: int = 49,
) -> None:
    """Measure, print and draw. Classifier-free guidance is off.

    Args:
        build: Folders and concepts, as in training.
        heads: Which heads, such as "L0-3.H*"; all by default.
        tasks: Prompts with a seed each, all of pairs that the model has seen.
        strength: u of the recipes.
        scale: w of the recipes.
        steps: Steps of the sampler.
        seed: Of the choice of prompts and of the noise.
        prompts: What the map of pictures shows.
        pictures: PNG file of that map.
        effects: PNG file of the heat maps.
        batch_size: Pictures drawn at once.
    """
    build = build or Build()
    icons, styles = artwork.concepts(build.concepts), list(artwork.STYLES)
    names = [name_of(icon) for icon in icons]
    chosen = choose_tasks(styles, names, set(artwork.held_out(icons).from_model()), tasks, seed)
    shown = [Task(prompt, seed) for prompt in prompts]
    pipe = load_pipeline(str(build.model / "pipeline"))
    head_map = family_of(pipe).head_map(pipe.transformer)
    pool = head_map.select(heads)
    recipes = [Recipe(scale=0.0, cfg=1.0), *(Recipe([head], strength, scale=scale, cfg=1.0) for head in pool)]
    trainer, renderer = make_trainer(devices=1), Renderer(pipe, steps)
    progress = Progress(len(recipes) * (len(chosen) + len(shown)))
    trainer.callbacks.append(progress)
    with Store(build.folder / "heads") as store:
        judge = Evaluator(renderer, rewards_of(build.model / "scorer", chosen), store, trainer, batch_size, progress)
        found = effects_of(judge(recipes, chosen), pool)
        artist = Evaluator(renderer, {}, store, trainer, batch_size, progress)
        artist(recipes, shown)
        keys = zip(*artist.keys(recipes, shown), strict=True)
        images = [[store.get_image(key) for key in row] for row in keys]
    progress.close()
    print(table(found))
    write_text(
        build.folder / "heads.json",
        json.dumps(
            {
                "recipe": {"strength": strength, "scale": scale, "steps": steps},
                "tasks": [list(task) for task in chosen],
                "significant": counts(found),
                "effects": {r: {str(head): asdict(e) for head, e in row.items()} for r, row in found.items()},
            },
            indent=1,
        )
        + "\n",
    )
    blocks, width = head_map.blocks, max(site.heads for site in head_map.sites)
    maps = [
        PictureMap(task.prompt, row[0], dict(zip(pool, row[1:], strict=True)))
        for task, row in zip(shown, images, strict=True)
    ]
    write_png(pictures, draw_pictures(maps, blocks, width))
    note = f"significant at {LEVEL:g} for all heads and rewards together; colours: mean change against no guidance"
    heat = [effect_map(reward, row, blocks, width) for reward, row in found.items()]
    write_png(effects, draw_effects(heat, note))


def rewards_of(scorer: Path, tasks: Sequence[Task]) -> dict[str, Reward]:
    """Five rewards; "content" is to the tasks' concepts what "style" is to the styles."""
    names = sorted({task.prompt.partition(", ")[2] for task in tasks})
    return {
        "style": load_reward("style", model=str(scorer)),
        "content": load_reward("style", model=str(scorer), styles=names),
        "clip": load_reward("clip", model=str(scorer)),
        "brightness": load_reward("brightness"),
        "colorfulness": load_reward("colorfulness"),
    }


def effect_map(reward: str, effects: Mapping[Head, Effect], blocks: int, heads: int) -> EffectMap:
    """The effects on one reward, placed by block and head."""
    mean, certain = np.full((blocks, heads), np.nan), np.zeros((blocks, heads), dtype=bool)
    for head, effect in effects.items():
        mean[head.block, head.head], certain[head.block, head.head] = effect.mean, effect.certain
    return EffectMap(reward, mean, certain)


if __name__ == "__main__":
    auto_cli(heads, as_positional=False)
