"""One parameter of a space: a fixed value, a range, or choices."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pagopt.errors import RecipeError, StudyError
from pagopt.heads import Head, expand_heads

__all__ = ["Parameter", "Value", "check_reached", "parse"]

Value = bool | int | float | str

LIMITS: dict[str, tuple[float, float]] = {
    "steps": (1, math.inf),
    "leading": (1, math.inf),
    "strength": (0.0, 1.0),
    "scale": (0.0, math.inf),
    "cfg": (1.0, math.inf),
    "start": (0.0, 1.0),
    "stop": (0.0, 1.0),
}
WHOLE = {"steps", "leading"}
WORDS = {"target", "path"}


@dataclass(frozen=True)
class Parameter:
    """How one parameter varies.

    Attributes:
        values: The choices, or the one fixed value; empty for a range.
        low: Lower end of a range, inclusive.
        high: Upper end, inclusive.
        log: Whether it is looked at on a logarithmic scale.
        step: Distance of its values from ``low`` on, if not all are meant.
        whole: Whether it is a whole number.
        per_head: Whether each head has its own.
        of: The heads that have one, beside the recipe's; for ``per_head``.
        at_most: How many of them are kept, those with the highest; ``None`` for all.
        when: The values of other parameters that it applies with; empty for all.
    """

    values: tuple[Value, ...] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    step: float | None = None
    whole: bool = False
    per_head: bool = False
    of: tuple[Head, ...] = ()
    at_most: int | None = None
    when: dict[str, tuple[Value, ...]] = field(default_factory=dict)

    @property
    def varies(self) -> bool:
        """Whether there is more than one value."""
        return len(self.values) != 1

    def applies(self, known: Mapping[str, Value]) -> bool:
        """Whether it means something beside these values of the others."""
        return all(known.get(name) in values for name, values in self.when.items())

    def extent(self) -> tuple[float, float]:
        """The lowest and the highest number."""
        numbers = [float(value) for value in self.values] or [self.low, self.high]
        return min(numbers), max(numbers)

    def on_grid(self, value: Value) -> Value:
        """A number that was drawn, without the rounding error of ``low + k * step``: 0.6, not 0.6000000000000001."""
        if self.step is None or self.whole or not isinstance(value, float):
            return value
        return round(value, 11 - math.floor(math.log10(self.step)))

    def hold(self, name: str, value: Value) -> Value:
        """The value, if it is one of this parameter's.

        Raises:
            StudyError: If it is not.
        """
        if self.values:
            if value not in self.values:
                raise StudyError(f"{name} is {value}, and the space has {', '.join(map(str, self.values))}")
            return value
        number = float(value)
        grid = self.step is None or abs((number - self.low) / self.step - round((number - self.low) / self.step)) < 1e-9
        if not (self.low <= number <= self.high and grid):
            steps = f" in steps of {self.step:g}" if self.step else ""
            raise StudyError(f"{name} is {number:g}, and the space has {self.low:g} to {self.high:g}{steps}")
        return int(number) if self.whole else number


def parse(name: str, given: Any, most: int | None, known: Mapping[str, Parameter]) -> Parameter:
    """A parameter from YAML.

    Args:
        name: Of the parameter.
        given: A fixed value, a list, or a mapping.
        most: The highest value that there can be, for ``leading``.
        known: The parameters before it, which ``when`` may ask for.

    Raises:
        StudyError: If it makes no sense.
    """
    words = name in WORDS
    if isinstance(given, Mapping):
        parameter = _mapping(name, dict(given), known)
    elif isinstance(given, list | tuple):
        if words:
            parameter = Parameter(values=tuple(given))
        elif len(given) == 2:
            parameter = _range(name, {"low": given[0], "high": given[1]})
        else:
            raise StudyError(
                f"space.{name} is {list(given)!r}: two numbers are a range [low, high]; write others as "
                f"`{name}: {{choices: {list(given)}}}`"
            )
    else:
        parameter = Parameter(values=(given,))
    target, dot, _ = name.partition(".")
    if dot:
        parameter = _with(parameter, when={**parameter.when, "target": (target,)})
    if parameter.values:
        parameter = _with(parameter, values=_checked(name, parameter.values))
    low, high = LIMITS.get(name, (-math.inf, math.inf))
    high = min(high, most) if most is not None else high
    if not words and not dot:
        ends = parameter.extent()
        if ends[0] < low or ends[1] > high:
            limit = f"from {low:g}" + (f" to {high:g}" if high < math.inf else "")
            raise StudyError(f"space.{name} goes from {ends[0]:g} to {ends[1]:g}, and {name} can be {limit}")
    return parameter


def check_reached(parameters: Mapping[str, Parameter], own: Mapping[str, Value]) -> None:
    """Refuse a parameter that no combination of the others lets apply, since it would do nothing.

    Args:
        parameters: By name, in the order in which they are drawn.
        own: The recipe's own values, of what is not drawn.

    Raises:
        StudyError: If there is one.
    """
    asked = {name for parameter in parameters.values() for name in parameter.when}
    combinations = [dict(own)]
    for name, parameter in parameters.items():
        able = [known for known in combinations if parameter.applies(known)]
        if not able:
            needs = " and ".join(f"{other} {' or '.join(map(str, v))}" for other, v in parameter.when.items())
            has = " and ".join(
                f"{other} {' or '.join(dict.fromkeys(str(known.get(other)) for known in combinations))}"
                for other in parameter.when
            )
            raise StudyError(
                f"space.{name} is drawn only with {needs}, which this space never has: it has {has}. Leave {name} out, "
                "or let the space choose what it needs"
            )
        if name in asked:
            others = [known for known in combinations if not parameter.applies(known)]
            combinations = others + [{**known, name: value} for known in able for value in parameter.values]


def _mapping(name: str, given: dict[str, Any], known: Mapping[str, Parameter]) -> Parameter:
    when = _when(name, given.pop("when", {}), known)
    per_head = given.pop("per_head", False)
    if per_head not in (True, False) or (per_head and name != "strength"):
        raise StudyError(f"space.{name}: per_head is true or false, and for strength only")
    of, at_most = given.pop("of", None), given.pop("at_most", None)
    if (of is not None or at_most is not None) and not per_head:
        raise StudyError(
            f"space.{name}: of and at_most say which heads have a strength of their own: add per_head: true"
        )
    if at_most is not None and (isinstance(at_most, bool) or not isinstance(at_most, int) or at_most < 1):
        raise StudyError(f"space.{name}: at_most is the number of heads to keep, at least 1, not {at_most!r}")
    if set(given) == {"choices"} and isinstance(given["choices"], list | tuple) and given["choices"]:
        made = Parameter(values=tuple(given["choices"]))
    elif {"low", "high"} <= set(given) <= {"low", "high", "log", "step"} and name not in WORDS:
        made = _range(name, given)
    elif set(given) == {"value"}:
        made = Parameter(values=(given["value"],))
    else:
        raise StudyError(
            f"space.{name} is {given!r}: give low and high (and log, step), or choices, or value; and per_head, of, "
            "at_most, when"
        )
    return _with(made, when=when, per_head=bool(per_head), of=_heads(name, of), at_most=at_most)


def _heads(name: str, of: Any) -> tuple[Head, ...]:
    if of is None:
        return ()
    try:
        heads = tuple(dict.fromkeys(expand_heads(of)))
    except RecipeError as error:
        raise StudyError(f"space.{name}: of names heads, such as 'L4.H0-5 L7.H0-5': {error}") from error
    if not heads:
        raise StudyError(f"space.{name}: of names no heads; leave it out for the recipe's own")
    return heads


def _range(name: str, given: Mapping[str, Any]) -> Parameter:
    low, high = (_number(name, given[key]) for key in ("low", "high"))
    log, step, whole = given.get("log", False), given.get("step"), name in WHOLE
    if low >= high:
        raise StudyError(f"space.{name} is empty: its low {low:g} must lie below its high {high:g}")
    if log not in (True, False):
        raise StudyError(f"space.{name}: log is true or false, not {log!r}")
    if log and (low <= 0 or step is not None):
        raise StudyError(f"space.{name}: a logarithmic range starts above 0 and has no step; its low is {low:g}")
    if step is not None:
        step = _number(name, step)
        if not 0 < step <= high - low:
            raise StudyError(f"space.{name}: step must lie above 0 and within the range, not {step:g}")
        # Optuna would move the upper end to the last step, with a warning.
        high = low + math.floor((high - low) / step + 1e-9) * step
    if whole and any(value != int(value) for value in (low, high, step or 1)):
        raise StudyError(f"space.{name} is a range of whole numbers, not {low:g} to {high:g}")
    return Parameter(low=low, high=high, log=log, step=step, whole=whole)


def _when(name: str, given: Any, known: Mapping[str, Parameter]) -> dict[str, tuple[Value, ...]]:
    if not isinstance(given, Mapping):
        raise StudyError(f"space.{name}: when is a mapping such as {{target: [blur, uniform]}}, not {given!r}")
    when: dict[str, tuple[Value, ...]] = {}
    for other, values in given.items():
        every = tuple(values) if isinstance(values, list | tuple) else (values,)
        if other not in known or not known[other].values:
            able = [key for key, parameter in known.items() if parameter.values]
            raise StudyError(
                f"space.{name}: when asks for {other!r}, and it can ask for the choices drawn before {name} only: "
                f"{', '.join(able) or 'here there are none'}"
            )
        for value in every:
            if value not in known[other].values:
                raise StudyError(f"space.{name} applies when {other} is {value!r}, which the space never draws")
        when[other] = every
    return when


def _checked(name: str, values: tuple[Any, ...]) -> tuple[Value, ...]:
    """Choices of one kind, each once."""
    if name in WORDS:
        if not all(isinstance(value, str) for value in values):
            raise StudyError(f"space.{name} takes words, not {list(values)!r}")
        made: tuple[Value, ...] = values
    elif "." in name:
        if not all(isinstance(value, bool | int | float | str) for value in values):
            raise StudyError(f"space.{name} takes numbers or words, not {list(values)!r}")
        made = values
    else:
        numbers = [_number(name, value) for value in values]
        if name in WHOLE and any(value != int(value) for value in numbers):
            raise StudyError(f"space.{name} takes whole numbers, not {list(values)!r}")
        made = tuple(int(value) if name in WHOLE else value for value in numbers)
    if len(set(made)) != len(made):
        raise StudyError(f"space.{name} has a choice twice: {list(values)!r}")
    return made


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise StudyError(f"space.{name} takes finite numbers, not {value!r}")
    return float(value)


def _with(parameter: Parameter, **changes: Any) -> Parameter:
    return Parameter(**{**parameter.__dict__, **changes})
