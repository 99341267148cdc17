"""pagopt finds where and how to perturb a diffusion transformer to get more of what you want, without training.

    from pagopt import Recipe, guided

    with guided(pipe, Recipe.load("flat.json")):
        image = pipe("flat, red apple").images[0]

The names below are imported when they are first used, so that ``import pagopt`` is quick.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pagopt.lazy import on_first_use

if TYPE_CHECKING:
    from pagopt.atlas import Atlas, run_atlas
    from pagopt.compiled import compile_blocks, uncompile_blocks
    from pagopt.evaluate import Evaluator, make_trainer
    from pagopt.experiment import run_study
    from pagopt.flux_blocks import guided_flux_blocks
    from pagopt.guide import guided
    from pagopt.guider import HeadPerturbationGuidance
    from pagopt.heads import Head
    from pagopt.models import load_pipeline
    from pagopt.recipe import Recipe, load_recipe
    from pagopt.render import Renderer
    from pagopt.reward import Objective, Reward, load_reward
    from pagopt.search import HeadHunter
    from pagopt.store import Store
    from pagopt.study import Study
    from pagopt.targets import register_target
    from pagopt.task import Job, Task
    from pagopt.tuning import Tuning, tune

__version__ = "0.1.0"

_HOMES = {
    "Atlas": "atlas",
    "Evaluator": "evaluate",
    "Head": "heads",
    "HeadHunter": "search",
    "HeadPerturbationGuidance": "guider",
    "Job": "task",
    "Objective": "reward",
    "Recipe": "recipe",
    "Renderer": "render",
    "Reward": "reward",
    "Store": "store",
    "Study": "study",
    "Task": "task",
    "Tuning": "tuning",
    "compile_blocks": "compiled",
    "guided": "guide",
    "guided_flux_blocks": "flux_blocks",
    "load_pipeline": "models",
    "load_recipe": "recipe",
    "load_reward": "reward",
    "make_trainer": "evaluate",
    "register_target": "targets",
    "run_atlas": "atlas",
    "run_study": "experiment",
    "tune": "tuning",
    "uncompile_blocks": "compiled",
}

__all__ = [
    "Atlas",
    "Evaluator",
    "Head",
    "HeadHunter",
    "HeadPerturbationGuidance",
    "Job",
    "Objective",
    "Recipe",
    "Renderer",
    "Reward",
    "Store",
    "Study",
    "Task",
    "Tuning",
    "compile_blocks",
    "guided",
    "guided_flux_blocks",
    "load_pipeline",
    "load_recipe",
    "load_reward",
    "make_trainer",
    "register_target",
    "run_atlas",
    "run_study",
    "tune",
    "uncompile_blocks",
]

__getattr__ = on_first_use(__name__, _HOMES)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
