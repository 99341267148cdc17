"""Where a tuning starts: the recipe, the order of its heads, and the points that are tried first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pagopt.comparison import Entrant
from pagopt.errors import PagoptError, RecipeError, StudyError
from pagopt.evaluate import precision_of
from pagopt.experiment import Run
from pagopt.folder import Folder
from pagopt.heads import Head, expand_heads
from pagopt.models import Weights
from pagopt.recipe import Provenance, Recipe, load_recipe
from pagopt.results import load_results
from pagopt.search.candidates import found_order
from pagopt.tuning.outcome import Tuned, load_tuned
from pagopt.tuning.parameter import Value
from pagopt.tuning.space import Point, Space
from pagopt.tuning.tuning import Tuning

__all__ = ["ADVICE", "Start", "check_model", "configuration", "find_start", "first_points", "opened"]

ADVICE = 0.5
"""The paper's strength for quality (SoftPAG, arXiv 2506.10978)."""


@dataclass(frozen=True)
class Start:
    """The recipe that is tuned.

    Attributes:
        label: The file, or the heads.
        recipe: What it does.
        order: Its heads in the order in which they were found; ``None`` if that is not known.
        provenance: Where it comes from, if its file says so.
    """

    label: str
    recipe: Recipe
    order: tuple[Head, ...] | None
    provenance: Provenance | None = None


def find_start(tuning: Tuning) -> Start:
    """Read the recipe of a tuning, and the order of its heads from its file or the search's results beside it.

    Raises:
        RecipeError: If it is neither a recipe file nor heads.
        StudyError: If its search looked at tasks that this tuning holds out.
    """
    text = tuning.recipe.strip()
    if not text.endswith(".json") and "/" not in text:
        try:
            heads = expand_heads(text)
        except PagoptError as error:
            raise RecipeError(f"recipe is {text!r}, neither a recipe file (.json) nor heads: {error}") from error
        return Start(text, tuning.study.recipe().replace(heads=tuple(heads)), tuple(heads))
    recipe, provenance = load_recipe(text)
    seen = set(Entrant(text, recipe, provenance).searched()) & set(tuning.study.held_out_tasks())
    if seen:
        prompt, seed = sorted(seen)[0]
        raise StudyError(
            f"the search of {text} looked at {prompt!r} with seed {seed}, which this tuning holds out for an honest "
            "comparison: take other held_out_prompts or held_out_seeds"
        )
    return Start(text, recipe, _order(Path(text), recipe, provenance), provenance)


def check_model(tuning: Tuning, start: Start, space: Space, run: Run) -> None:
    """Refuse a model that the recipe was not found on, or that does not have its heads.

    Raises:
        StudyError: If it is another model, and the tuning does not allow it.
        RecipeError: If the model does not have the recipe's heads.
    """
    known, here = start.provenance, run.renderer.fingerprint
    if known is not None and known.fingerprint != here and not tuning.allow_other_model:
        raise StudyError(
            f"the recipe {start.label} was found on another model: {known.model} ({Weights.of(known)}) with "
            f"fingerprint {known.fingerprint or '(none)'}, and {tuning.study.model} ({run.weights}) has "
            f"{here}. Its heads may mean something else here. --allow_other_model tunes it all the same"
        )
    try:
        run.head_map.check(start.recipe.heads)
    except PagoptError as error:
        raise RecipeError(f"the recipe {start.label} does not fit this model: {error}") from error
    run.head_map.check(space.heads)


def first_points(space: Space) -> tuple[dict[str, Point], dict[str, str]]:
    """What is tried before a sampler is asked: no guidance, the paper's advice, and the recipe as it is.

    Returns:
        The points by name, each once, and why others are left out: the space may not hold them.
    """
    fixed = {name: p.values[0] for name, p in space.parameters.items() if not p.varies and "." not in name}
    strength = fixed.pop("strength", None)
    count = len(space.recipe.heads)
    unguided: dict[str, Value] = {"cfg": 1.0} if "cfg" in space.varied() else {}
    advised = None if strength is not None else [ADVICE] * count
    ways: dict[str, list[tuple[Mapping[str, Value], Sequence[float] | None]]] = {
        "no guidance": [({**fixed, **unguided}, [0.0] * count), ({**fixed, **unguided, "scale": 0.0}, None)],
        f"u = {ADVICE:g}": [(fixed, advised)],
        "as it was": [({}, None)],
    }
    points: dict[str, Point] = {}
    left: dict[str, str] = {}
    for name, tries in ways.items():
        for wanted, strengths in tries:
            try:
                point = space.at(wanted, strengths)
            except StudyError as error:
                left[name] = str(error)
                continue
            left.pop(name, None)
            if all(point.values != other.values for other in points.values()):
                points[name] = point
            break
    return points, left


def configuration(tuning: Tuning, name: str, start: Start, options: dict[str, Any]) -> dict[str, Any]:
    """What the folder of a run belongs to, as plain data."""
    study = tuning.study.to_dict()
    unused = ("search", "search_options", "rounds", "heads_per_round", "heads", "budget", "compare_layers")
    return {
        "tune": name,
        "recipe": start.recipe.to_dict(),
        "order": [str(head) for head in start.order] if start.order else None,
        **tuning.describe(),
        **{key: value for key, value in study.items() if key not in unused},
        "precision": precision_of(options),
    }


def _order(path: Path, recipe: Recipe, provenance: Provenance | None) -> tuple[Head, ...] | None:
    """From the recipe's own file, or from the rounds of the search beside it, if they end with these heads.

    Raises:
        RecipeError: If the file has something there that is no list of heads.
    """
    if len(recipe.heads) == 1:
        return recipe.heads
    if provenance is not None and (order := provenance.order()) is not None:
        return order if sorted(order) == list(recipe.heads) else None  # its heads were changed by hand
    results = path.parent / "results.json"
    if not results.exists():
        return None
    try:
        heads = found_order(load_results(results).rounds)
    except StudyError:
        return None
    return heads if sorted(heads) == list(recipe.heads) else None


def opened(tuning: Tuning, name: str, out: Path, options: dict[str, Any]) -> tuple[Start, Space, Folder, Tuned | None]:
    """What a run of a tuning begins with: start, space and folder; and what was found there, if it was finished once.

    Raises:
        PagoptError: If the recipe, the space or the folder does not fit.
    """
    start = find_start(tuning)
    space = Space(tuning.space, start.recipe, start.order, tuning.study.steps)
    folder = Folder(out, configuration(tuning, name, start, options))
    return start, space, folder, load_tuned(out / "results.json") if (out / "results.json").exists() else None
