"""What a picture costs, in block evaluations, and how many unguided pictures that pays for."""

from __future__ import annotations

import itertools
import math

from pagopt.recipe import Recipe

__all__ = ["block_evaluations", "pictures_for"]


def block_evaluations(recipe: Recipe, blocks: int, steps: int) -> int:
    """Blocks evaluated for one picture, as :class:`pagopt.guidance.Guidance` counts them.

    ``L`` a step; twice that with classifier-free guidance, which runs a second row; and ``L - l`` more in a guided
    step, since the perturbed copy begins at the first perturbed block ``l``.

    Args:
        recipe: How the picture is drawn.
        blocks: ``L``, of the model.
        steps: Inference steps.
    """
    rows = 2 if (recipe.cfg or 1.0) > 1 else 1
    if recipe.is_plain:
        return rows * blocks * steps
    first = min(head.block for head, u in zip(recipe.heads, recipe.strengths, strict=True) if u > 0)
    return rows * blocks * steps + (blocks - first) * len(recipe.active_steps(steps))


def pictures_for(compute: float, tasks: int) -> list[int]:
    """How many unguided pictures each task draws, so that all of them together cost what was asked for.

    Some tasks draw one more than others, spread evenly, and what is left of a last picture is drawn whole: the baseline
    gets at most one picture more than it pays for, in all.

    Args:
        compute: Of one guided picture, in unguided ones, at least 1.
        tasks: How many.

    Returns:
        One number from 1 on for each task.
    """
    # A cost is a ratio of whole numbers; the rounding keeps 1.2 * 5 from becoming 7.
    marks = [math.ceil(round(compute * number, 9)) for number in range(tasks + 1)]
    return [after - before for before, after in itertools.pairwise(marks)]
