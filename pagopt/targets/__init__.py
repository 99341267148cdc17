"""Perturbation targets: what the attention maps of the perturbed heads are moved towards. One a file.

A target of your own::

    @register_target
    @dataclass(frozen=True)
    class FirstToken(Target):
        name: ClassVar[str] = "first_token"
        needs_queries: ClassVar[bool] = False

        def values(self, view, rows):
            return view.v[:, :1].expand(-1, rows.stop - rows.start, -1)

A package makes its targets known to the command line by entry points of the group ``pagopt.targets``.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from functools import cache
from importlib.metadata import entry_points
from typing import Any

from pagopt.errors import RecipeError, UnknownName
from pagopt.recipe import STRAIGHT
from pagopt.targets.blur import Blur
from pagopt.targets.identity import Identity, ImageIdentity
from pagopt.targets.image_to_image import ImageToImage
from pagopt.targets.mean_query import MeanQuery
from pagopt.targets.paths import PATHS, check_path, move
from pagopt.targets.row_maximum import RowMaximum
from pagopt.targets.target import Target
from pagopt.targets.temperature import Temperature
from pagopt.targets.uniform import Uniform
from pagopt.targets.view import View

__all__ = ["PATHS", "Target", "View", "known_targets", "make_target", "move", "register_target"]

GROUP = "pagopt.targets"
_TARGETS: dict[str, type[Target]] = {
    kind.name: kind
    for kind in (Identity, ImageIdentity, ImageToImage, Uniform, MeanQuery, Blur, Temperature, RowMaximum)
}


def register_target(kind: type[Target]) -> type[Target]:
    """Make a class of targets known under its ``name``; usable as a decorator.

    Raises:
        ValueError: If another class has that name.
    """
    if _TARGETS.setdefault(kind.name, kind).__qualname__ != kind.__qualname__:
        raise ValueError(f"there is a target {kind.name!r} already: {_TARGETS[kind.name].__qualname__}")
    _TARGETS[kind.name] = kind
    return kind


def known_targets() -> dict[str, type[Target]]:
    """All targets by name: those of pagopt, those that were registered, and those of installed packages."""
    return _installed() | _TARGETS


def make_target(name: str, options: Mapping[str, Any] | None = None, path: str = STRAIGHT) -> Target:
    """A target by name.

    Args:
        name: As in a recipe.
        options: Its options; those left out take their defaults.
        path: The path that it is to be used with.

    Raises:
        UnknownName: If there is no such target, option or path.
        RecipeError: If an option's value makes no sense, or the path none with this target.
    """
    known = known_targets()
    if name not in known:
        raise UnknownName("perturbation target", name, known)
    kind, given = known[name], dict(options or {})
    fields: dict[str, Any] = {}
    if dataclasses.is_dataclass(kind):
        fields = {item.name: item.type for item in dataclasses.fields(kind)}
    for option, value in given.items():
        if option not in fields:
            raise UnknownName(f"option of the target {name!r}", option, sorted(fields))
        # Recipes hold all numbers as floats.
        if isinstance(value, float) and value.is_integer() and _is_whole(fields[option]):
            given[option] = int(value)
    try:
        target = kind(**given)
    except TypeError as error:
        raise RecipeError(f"the target {name!r} cannot be made from {given}: {error}") from error
    check_path(path, target)
    return target


def _is_whole(kind: Any) -> bool:
    """Whether a field's type, or its text, takes an int and no float, such as ``int | None``."""
    names = re.findall(r"\w+", kind if isinstance(kind, str) else getattr(kind, "__name__", str(kind)))
    return "int" in names and "float" not in names


@cache
def _installed() -> dict[str, type[Target]]:
    return {entry.name: entry.load() for entry in entry_points(group=GROUP)}
