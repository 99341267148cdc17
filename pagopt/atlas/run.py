"""An atlas, drawn: every head alone, compared with the pictures without perturbation, and the folder that it leaves.

The folder holds ``atlas.html``, ``heads.png`` (what each head draws), ``effects.png`` (what it changes), ``heads.csv``,
``atlas.json``, ``config.yaml`` and ``store/``. The same command again goes on where it stopped.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

import pagopt
from pagopt.atlas.atlas import Atlas
from pagopt.atlas.drawing import draw_effects, draw_pictures
from pagopt.atlas.findings import MOVED, Effect, Findings, effects_of
from pagopt.atlas.page import shown_prompts, small_pictures, write_page
from pagopt.evaluate import Evaluator, Progress, at_load, make_trainer, precision_of
from pagopt.files import write_png, write_text
from pagopt.folder import Outputs
from pagopt.looks import SINGLE, Looks, distances
from pagopt.models import family_of, load_model
from pagopt.render import Renderer
from pagopt.reward import Objective
from pagopt.room import check_offload
from pagopt.search.candidates import expression
from pagopt.store import Store

__all__ = ["FILES", "AtlasRun", "run_atlas"]

FILES = {"page": "atlas.html", "pictures": "heads.png", "effects": "effects.png", "table": "heads.csv"}
"""What to look at first."""


def run_atlas(
    atlas: Atlas,
    out: str | Path,
    store: str | Path | None = None,
    batch_size: int = 16,
    trainer: dict[str, Any] | None = None,
    offload: str | None = None,
) -> Findings:
    """Draw an atlas, or go on with it.

    Args:
        atlas: What to draw.
        out: Folder for page, pictures and tables; those of an earlier atlas in it are replaced.
        store: Folder for images and scores, which may be a search's own; by default ``out / "store"``.
        batch_size: Images in one batch, on each process.
        trainer: Options of Lightning's ``Trainer``.
        offload: Keep networks off the GPU while they are not needed: "model" or "sequential".

    Returns:
        What was found, which also lies in the folder.

    Raises:
        PagoptError: With what to do about it; everything finished is kept.
    """
    run = AtlasRun(atlas, out, store, batch_size, trainer, offload)
    try:
        return run()
    finally:
        run.close()


class AtlasRun:
    """One run of an atlas; see :func:`run_atlas`. With ``quiet`` it shows no bar, and its folder stays as it is."""

    def __init__(
        self,
        atlas: Atlas,
        out: str | Path,
        store: str | Path | None = None,
        batch_size: int = 16,
        trainer: dict[str, Any] | None = None,
        offload: str | None = None,
        quiet: bool = False,
    ) -> None:
        self.atlas, self.out = atlas, Path(out)
        self.outputs = Outputs(self.out, "atlas", "atlas")
        rewards = Objective(atlas.specs).rewards if atlas.specs else {}
        options = trainer or {}
        precision = precision_of(options)
        dtype, options = at_load(atlas.dtype, options)
        self.trainer = make_trainer(**options)  # before the model is loaded, since that may take minutes
        check_offload(offload, self.trainer.strategy.root_device)
        pipe, self.weights = load_model(atlas.model, dtype, atlas.quantize)
        self.heads = family_of(pipe).head_map(pipe.transformer)
        self.entries = atlas.entries(self.heads)
        settings = (atlas.steps, atlas.height, atlas.width, atlas.distilled_guidance, atlas.compile, offload)
        self.renderer = Renderer(pipe, *settings)
        self.renderer.check_cfg((atlas.cfg,))
        self.recipes, self.tasks = atlas.recipes(self.entries), atlas.tasks()
        if self.trainer.is_global_zero and not quiet:
            self.outputs.claim({"atlas": atlas.model, **atlas.to_dict(), "precision": precision})
        hidden = quiet or not self.trainer.is_global_zero
        shown = min(shown_prompts(len(self.entries)), len(atlas.prompts))
        self.progress = Progress(len(self.recipes) * (len(self.tasks) + shown), disable=hidden)
        self.trainer.callbacks.append(self.progress)
        self.store = Store(store or self.out / "store")
        self.evaluator = Evaluator(
            self.renderer, rewards, self.store, self.trainer, batch_size, self.progress, strict=False
        )

    def close(self) -> None:
        """Close the bar and the store."""
        self.progress.close()
        self.store.close()

    def __call__(self) -> Findings:
        """Draw, measure, write."""
        start, evaluate = time.monotonic(), self.evaluator
        self.progress.label("each head alone")
        scores = evaluate(self.recipes, self.tasks)
        keys = evaluate.keys(self.recipes, self.tasks)
        looks = [evaluate.looks(row) for row in keys]
        effects, means = _measure(scores, looks, list(self.entries), self.atlas)
        found = Findings(
            pagopt=pagopt.__version__,
            model=self.atlas.model,
            fingerprint=self.renderer.fingerprint,
            weights=self.weights.to_dict(),
            blocks=self.heads.blocks,
            heads=max(site.heads for site in self.heads.sites),
            recipe=self.atlas.recipe().to_dict(),
            steps=self.atlas.steps,
            tasks=[(task.prompt, task.seed) for task in self.tasks],
            rewards=[spec.to_dict() for spec in self.atlas.specs],
            means=means,
            effects=effects,
            perturbed={name: expression(some) for name, some in self.entries.items()},
            images=dict(zip(self.entries, keys[1:], strict=True)),
            plain=keys[0],
            images_generated=evaluate.images_generated,
            seconds=round(time.monotonic() - start, 1),
        )
        if self.trainer.is_global_zero:
            self.progress.label("page and pictures")
            self.outputs.write(lambda: _save(found, self._image, self.out))
        return found

    def _image(self, key: str) -> Image.Image:
        self.progress.add(1)
        return self.store.get_image(key)


def _measure(
    scores: dict[str, NDArray[np.float64]], looks: Sequence[Sequence[Looks]], names: Sequence[str], atlas: Atlas
) -> tuple[dict[str, dict[str, Effect]], dict[str, float]]:
    """Effects by measure and name, and the means of the plain pictures."""
    rows = {name: np.array([[getattr(one, name) for one in row] for row in looks]) for name in SINGLE}
    rows |= scores
    means = {name: float(table[0].mean()) for name, table in rows.items()}
    gaps = np.array(
        [[distances([one, other])[0, 1] for one, other in zip(row, looks[0], strict=True)] for row in looks]
    )
    several = len(atlas.prompts) > 1  # a prompt's pictures are alike, so their mean counts as one
    samples = {
        name: table.reshape(len(table), len(atlas.prompts), -1).mean(axis=-1) if several else table
        for name, table in {MOVED: gaps, **rows}.items()
    }
    effects = effects_of({name: samples[name] for name in rows}, names)
    moved = {name: Effect(one.mean, one.se) for name, one in effects_of({MOVED: samples[MOVED]}, names)[MOVED].items()}
    return {MOVED: moved, **effects}, {MOVED: 0.0, **means}


def _save(found: Findings, image: Callable[[str], Image.Image], out: Path) -> None:
    """The files that a user wants; the data last."""
    pictures = small_pictures(found, image)
    write_text(out / FILES["table"], found.to_csv())
    write_png(out / FILES["pictures"], draw_pictures(found, pictures))
    write_png(out / FILES["effects"], draw_effects(found))
    write_page(found, pictures, out / FILES["page"])
    found.save(out / "atlas.json")
