"""A space of recipes: which parameters of one recipe vary, how, and when. No torch, no Optuna."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pagopt.errors import PagoptError, StudyError, UnknownName
from pagopt.heads import Head
from pagopt.recipe import Recipe
from pagopt.targets import known_targets, make_target
from pagopt.tuning.parameter import Parameter, Value, check_reached, parse

__all__ = ["NAMES", "Draw", "Point", "Space"]

NAMES = ("target", "path", "steps", "leading", "strength", "scale", "cfg", "start", "stop")
"""What may vary, in the order in which it is drawn; besides these TARGET.OPTION, such as ``blur.sigma``."""

Draw = Callable[[str, Parameter], Value]
"""Gives a value for a parameter, by the name that it has in the Optuna study."""


@dataclass(frozen=True)
class Point:
    """One point of a space.

    Attributes:
        values: What was drawn, by the name in the Optuna study; parameters that did not apply are not in it.
        recipe: The recipe that they make.
        steps: Inference steps to draw it with.
    """

    values: dict[str, Value]
    recipe: Recipe
    steps: int


class Space:
    """The recipes around one recipe.

    A parameter that is not in the space, or does not apply (``when``), keeps the recipe's own value. Another target
    than the recipe's starts from its default options.

    Args:
        given: For each parameter a fixed value, ``[low, high]``, or a mapping with ``low`` and ``high`` (and ``log``,
            ``step``) or ``choices``; and ``when``. For strength also ``per_head``, with ``of`` and ``at_most``: each of
            these heads has its own, and the highest are kept. As in YAML.
        recipe: The recipe to start from, with at least one head.
        order: Its heads in the order in which they were found, for ``leading``; ``None`` if it is not known.
        steps: Inference steps where the space does not say.

    Raises:
        StudyError: If a range is empty, a parameter means nothing for this recipe, or intervals could be empty.
        UnknownName: For a parameter, target, option or path that there is not.
        RecipeError: If some of the values could not be a recipe's.
    """

    def __init__(self, given: Mapping[str, Any], recipe: Recipe, order: Sequence[Head] | None, steps: int) -> None:
        if not recipe.heads:
            raise StudyError("there is nothing to tune in a recipe without heads: give `recipe`, a file or heads")
        if not isinstance(given, Mapping) or not given:
            raise StudyError("space is empty: say what may vary, such as `space: {strength: [0, 1], scale: [0.5, 6]}`")
        self.recipe, self.steps = recipe, steps
        self.order: tuple[Head, ...] | None = None if order is None else tuple(order)
        self.parameters: dict[str, Parameter] = {}
        for name in sorted(given, key=_place):
            self.parameters[name] = parse(name, given[name], self._extra(name), known=self.parameters)
        self._check_leading()
        self._check_soft()
        self._check_interval()
        self._check_targets()
        check_reached(self.parameters, self.own())
        if not any(parameter.varies for parameter in self.parameters.values()):
            raise StudyError("nothing varies in the space: give a range [low, high] or `choices` for some parameter")

    def draw(self, ask: Draw) -> Point:
        """A point whose parameters ``ask`` gives. Fixed ones are not asked for.

        Raises:
            RecipeError: If they make no recipe.
        """
        drawn: dict[str, Value] = {}
        known: dict[str, Value] = dict(self.own())

        def value(name: str, parameter: Parameter) -> Value:
            if not parameter.varies:
                return parameter.values[0]
            return drawn.setdefault(name, parameter.on_grid(ask(name, parameter)))

        per_head: dict[Head, float] | None = None
        active: dict[str, Value] = {}
        for name, parameter in self.parameters.items():
            if not parameter.applies(known):
                continue
            if parameter.per_head:
                heads = self._leading(known) if not parameter.of else self.heads
                per_head = {head: float(value(f"strength {head}", parameter)) for head in heads}
                if parameter.at_most is not None:
                    # The sort is stable: of equal ones the earlier head is kept.
                    kept = sorted(per_head, key=lambda head: -per_head[head])[: parameter.at_most]  # type: ignore[index]
                    per_head = {head: u for head, u in per_head.items() if head in kept}
            else:
                active[name] = known[name] = value(name, parameter)
        return Point(drawn, self._recipe(active, known, per_head), int(known["steps"]))

    def own(self) -> dict[str, Value]:
        """The parameters of the recipe as it is. ``strength`` only where all heads have the same."""
        recipe = self.recipe
        values: dict[str, Value] = {
            "target": recipe.target,
            "path": recipe.path,
            "steps": self.steps,
            "leading": len(recipe.heads),
            "scale": recipe.scale,
            "cfg": recipe.cfg or 1.0,
            "start": recipe.interval[0],
            "stop": recipe.interval[1],
        }
        if not isinstance(recipe.strength, tuple):
            values["strength"] = recipe.strength
        return values

    def at(self, wanted: Mapping[str, Value], strengths: Sequence[float] | None = None) -> Point:
        """The point of the recipe as it is, but for some values.

        Args:
            wanted: Values by parameter, instead of the recipe's own.
            strengths: One for each head of the recipe, instead of its own.

        Raises:
            StudyError: If the space does not hold it; says why.
        """
        own = {**self.own(), **wanted}
        own_strengths = dict(zip(self.recipe.heads, strengths or self.recipe.strengths, strict=True))
        every = {**dict.fromkeys(self.heads, 0.0), **own_strengths}
        if strengths is not None:
            own.pop("strength", None)
            if len(set(strengths)) == 1:
                own["strength"] = strengths[0]

        def ask(name: str, parameter: Parameter) -> Value:
            word, _, head = name.partition(" ")
            if head:
                u = every[Head.parse(head)]
                # One that is not to be kept is drawn, too: as low as the space allows.
                return parameter.hold(name, u if u or parameter.at_most is None else parameter.extent()[0])
            if "." in name:
                return parameter.hold(name, self._own_option(name))
            if name not in own:
                raise StudyError("its heads have different strengths, and the space has one for all")
            return parameter.hold(name, own[word])

        for name, parameter in self.parameters.items():
            if not parameter.varies and "." not in name and parameter.applies(own):
                parameter.hold(name, own.get(name, parameter.values[0]))
        point = self.draw(ask)
        # What is no parameter of the space keeps the recipe's value, which need not be the wanted one.
        asked = {head: u for head, u in own_strengths.items() if u}
        made = {head: u for head, u in zip(point.recipe.heads, point.recipe.strengths, strict=True) if u}
        most = self.parameters["strength"].at_most if "strength" in self.parameters else None
        if most is not None and len(asked) > most:
            raise StudyError(f"it has more heads than the {most} that the space keeps at most")
        numbers = [(point.recipe.scale, float(own["scale"])), *((made.get(head, 0.0), u) for head, u in asked.items())]
        if made.keys() != asked.keys() or not all(math.isclose(*pair) for pair in numbers):
            raise StudyError("strength and scale do not vary enough for that in this space")
        return point

    @property
    def heads(self) -> tuple[Head, ...]:
        """All heads that a recipe of this space can have: the recipe's, in their order, then others."""
        strength = self.parameters.get("strength")
        return tuple(dict.fromkeys((*(self.order or self.recipe.heads), *(strength.of if strength else ()))))

    def varied(self) -> list[str]:
        """The parameters that vary."""
        return [name for name, parameter in self.parameters.items() if parameter.varies]

    def _recipe(
        self, active: Mapping[str, Value], known: Mapping[str, Value], per_head: Mapping[Head, float] | None
    ) -> Recipe:
        base, target = self.recipe, str(known["target"])
        heads = self._leading(known)
        own = dict(zip(base.heads, base.strengths, strict=True))
        strength: float | list[float] = [own[head] for head in heads]
        if per_head is not None:
            # A head of strength 0 does nothing, so it does not belong to the recipe.
            heads = tuple(head for head, u in per_head.items() if u > 0)
            strength = [per_head[head] for head in heads]
        elif "strength" in active:
            strength = float(active["strength"])
        options = dict(base.target_options) if target == base.target else {}
        options |= {name.partition(".")[2]: value for name, value in active.items() if name.startswith(f"{target}.")}
        return Recipe(
            heads=heads,
            strength=strength,
            target=target,
            scale=float(known["scale"]),
            cfg=base.cfg if "cfg" not in active else float(active["cfg"]),
            interval=(float(known["start"]), float(known["stop"])),
            target_options=options,
            path=str(known["path"]),
        )

    def _leading(self, known: Mapping[str, Value]) -> tuple[Head, ...]:
        heads = self.order or self.recipe.heads
        return heads[: int(known["leading"])]

    def _own_option(self, name: str) -> Value:
        target, _, option = name.partition(".")
        if target == self.recipe.target and option in dict(self.recipe.target_options):
            return dict(self.recipe.target_options)[option]
        value: Value = getattr(make_target(target), option)
        return value

    def _extra(self, name: str) -> int | None:
        """The number of heads for ``leading``; refuses names that mean nothing."""
        if name in NAMES:
            return len(self.recipe.heads) if name == "leading" else None
        target, dot, option = name.partition(".")
        if not dot:
            options = "Options of a target are written TARGET.OPTION, such as blur.sigma."
            raise UnknownName("parameter of the space", name, NAMES, options)
        if target not in known_targets():
            raise UnknownName("perturbation target", target, known_targets())
        kind = known_targets()[target]
        fields: list[str] = [f.name for f in dataclasses.fields(kind)] if dataclasses.is_dataclass(kind) else []
        if option not in fields:
            raise UnknownName(f"option of the target {target!r}", option, fields)
        return None

    def _check_leading(self) -> None:
        if "leading" in self.parameters and self.order is None:
            raise StudyError(
                "the space varies `leading`, the number of leading heads, and the recipe does not say in which order "
                "its heads were found (a file says it under evidence.order, or the results.json of its search beside "
                "it). Write the heads in order as `recipe`"
            )

    def _check_soft(self) -> None:
        strength = self.parameters.get("strength")
        if strength is None or not (strength.of or strength.at_most):
            return
        if "leading" in self.parameters:
            raise StudyError(
                "space.strength chooses heads by of or at_most, and leading does so, too: take one of them"
            )
        if strength.at_most is not None and strength.at_most > len(self.heads):
            raise StudyError(f"space.strength: at_most is {strength.at_most}, and there are {len(self.heads)} heads")
        if strength.extent()[0] > 0 and strength.of and strength.at_most is None:
            raise StudyError(
                f"space.strength starts at {strength.extent()[0]:g}, so all {len(self.heads)} heads would always be "
                "perturbed: let it start at 0, or say how many are kept, such as at_most: 4"
            )

    def _check_interval(self) -> None:
        starts, stops, steps = (self._extent(name) for name in ("start", "stop", "steps"))
        if stops[0] - starts[1] < 1 / steps[0] - 1e-9:
            raise StudyError(
                f"start goes up to {starts[1]:g} and stop down to {stops[0]:g}, so the interval could be without any "
                f"of {steps[0]:g} steps: leave at least 1/{steps[0]:g} between them"
            )

    def _extent(self, name: str) -> tuple[float, float]:
        """The lowest and the highest value that a number can have."""
        parameter = self.parameters.get(name)
        if parameter is None:
            return (float(self.own()[name]),) * 2
        low, high = parameter.extent()
        own = float(self.own()[name])
        return (min(low, own), max(high, own)) if parameter.when else (low, high)

    def _check_targets(self) -> None:
        """Every combination of target and path that can be drawn has to mean something."""
        for target in self._choices("target"):
            for path in self._choices("path"):
                chosen = {**self.own(), "target": target, "path": path}
                rule = self.parameters.get("path")
                if rule is not None and not rule.applies(chosen):
                    path = self.recipe.path
                try:
                    options = dict(self.recipe.target_options) if target == self.recipe.target else {}
                    make_target(str(target), options, str(path))
                except UnknownName:
                    raise
                except PagoptError as error:
                    raise StudyError(
                        f"the space holds target {target} with path {path}: {error}. Say which targets a path is for, "
                        "such as `path: {choices: [straight, fisher_rao], when: {target: [identity]}}`"
                    ) from error

    def _choices(self, name: str) -> Iterator[Value]:
        parameter = self.parameters.get(name)
        yield from (parameter.values if parameter is not None else [self.own()[name]])


def _place(name: str) -> tuple[int, str]:
    return (NAMES.index(name) if name in NAMES else 0 if "." not in str(name) else 4, str(name))
