"""From what a user writes to a reward: an installed name, ``file.py:name`` or ``package.module:Name``.

Only code that the user installed or named is run; nothing is downloaded here.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from functools import partial
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from pagopt.errors import PagoptError, RewardError, UnknownName
from pagopt.own_code import digest_of_own, is_own, load_own, said
from pagopt.reward.hardware import gpu_hint
from pagopt.reward.identity import arguments_of, signature_of
from pagopt.reward.protocol import FunctionReward, Reward

__all__ = ["RewardInfo", "as_reward", "available_rewards", "describe_rewards", "load_reward"]

GROUP = "pagopt.rewards"
OWN = 'A reward of your own is "path/to/file.py:name" or "package.module:Name".'


@dataclass(frozen=True)
class RewardInfo:
    """One line of ``pagopt rewards``.

    Attributes:
        name: What to write after ``--reward``.
        summary: First line of its docstring.
        arguments: Its arguments with their defaults, as Python would print them: ``{"model": "'emoji'"}``;
            an empty string where there is no default.
        missing: What has to be done before it works with its defaults; empty when it is ready.
        package: The distribution that brings it, with its version.
    """

    name: str
    summary: str
    arguments: dict[str, str]
    missing: str
    package: str


def available_rewards() -> dict[str, EntryPoint]:
    """The installed rewards by name, sorted.

    Raises:
        RewardError: If two packages bring different rewards of one name.
    """
    found: dict[str, EntryPoint] = {}
    for point in sorted(entry_points(group=GROUP), key=lambda point: point.name):
        other = found.setdefault(point.name, point)
        if other.value != point.value:
            raise RewardError(
                f"two rewards are called {point.name!r}: {other.value} and {point.value}. "
                f'Uninstall one of their packages, or name the one you mean: "{point.value}".'
            )
    return found


def describe_rewards() -> list[RewardInfo]:
    """All installed rewards, with what each needs; one that cannot be imported says why."""
    return [_describe(name, point) for name, point in available_rewards().items()]


def load_reward(name: str, /, **args: Any) -> Reward:
    """Make a reward.

    Args:
        name: An installed reward ("clip"), "path/to/file.py:name" or "package.module:Name". The name stands
            for a :class:`Reward` subclass, a function ``f(images, prompts, **args) -> scores``, or a class
            with ``__call__``.
        args: Its arguments.

    Raises:
        UnknownName: If no installed reward has that name.
        RewardError: If the file, module or attribute does not exist, the code fails while it is imported or
            made, or the arguments do not fit; the cause is attached.
    """
    if not isinstance(name, str):
        raise RewardError(f"load_reward takes the name of a reward, not {name!r}; Objective and Evaluator take objects")
    if is_own(name):
        wrong = partial(RewardError, reward=name)
        made = _make(name, load_own("reward", name, wrong), args)
        if name.rpartition(":")[0].endswith(".py"):
            object.__setattr__(made, "_named", digest_of_own("reward", name, wrong))
    else:
        found = available_rewards()
        if name not in found:
            raise UnknownName("reward", name, found, OWN)
        made = _make(name, _loaded(name, found[name]), args)
    object.__setattr__(made, "name", name)
    return made


def _loaded(name: str, point: EntryPoint) -> Any:
    try:
        return point.load()
    except Exception as error:
        package = f" of {point.dist.name}" if point.dist else ""
        raise RewardError(
            f"the installed reward {name!r}{package} ({point.value}) cannot be imported: {said(error)}",
            reward=name,
        ) from error


def as_reward(thing: Any, name: str | None = None, args: dict[str, Any] | None = None) -> Reward:
    """A reward from what a user has in hand.

    Args:
        thing: A :class:`Reward`, which stays as it is; or a function ``f(images, prompts) -> scores``, or an object
            with such a ``__call__``.
        name: What errors and tables call it; by default its own name.
        args: Further arguments of a function; its key is then made of them instead of what the function carries.

    Raises:
        RewardError: If it is none, such as a class of which no object was made, or its arguments do not fit.
    """
    if isinstance(thing, Reward):
        return thing
    known = name or str(getattr(thing, "__name__", type(thing).__name__))
    if isinstance(thing, type):
        raise RewardError(f"{known!r} is a class; a reward is an object of it: {thing.__name__}(...)", reward=known)
    if isinstance(thing, str):
        raise RewardError(f"{thing!r} is a name; load_reward({thing!r}) makes the reward", reward=thing)
    if not callable(thing):
        raise RewardError(
            f"{known!r} is an object of type {type(thing).__name__}; a reward is a function, a class or a Reward",
            reward=known,
        )
    batch = ("images", "prompts")
    _check_arguments(known, thing, batch, args or {})
    if args is None:
        return FunctionReward(thing, name)
    arguments = dict(list(arguments_of(thing, batch, args).items())[2:])
    return FunctionReward(partial(thing, **args) if args else thing, name, arguments)


def _check_arguments(name: str, thing: Any, positional: tuple[str, ...], args: dict[str, Any]) -> None:
    """Make sure that a function or class takes these arguments."""
    try:
        signature_of(thing).bind(*positional, **args)
    except TypeError as error:
        raise RewardError(
            f"reward {name!r}: {error}. It is {getattr(thing, '__name__', name)}{signature_of(thing)}, and got "
            + (_listed(args) or "nothing")
            + ("; a reward function takes images and prompts first." if positional else "."),
            reward=name,
        ) from error


def _make(name: str, thing: Any, args: dict[str, Any]) -> Reward:
    if isinstance(thing, Reward):
        if args:
            raise RewardError(
                f"reward {name!r} is a finished object: it takes no arguments, got {_listed(args)}",
                reward=name,
            )
        return thing
    if not isinstance(thing, type):
        return as_reward(thing, name, args)
    if inspect.isabstract(thing):
        raise RewardError(f"{name!r} is abstract: it must define score(images, prompts)", reward=name)
    if not issubclass(thing, Reward) and "__call__" not in dir(thing):
        raise RewardError(f"{name!r} has no __call__(images, prompts); subclass pagopt.reward.Reward", reward=name)
    _check_arguments(name, thing, (), args)
    try:
        made = thing(**args)
    except PagoptError:
        raise
    except Exception as error:
        raise RewardError(f"reward {name!r} could not be made: {said(error)}{gpu_hint(error)}", reward=name) from error
    return made if isinstance(made, Reward) else FunctionReward(made, name, arguments_of(thing, (), args))


def _describe(name: str, point: EntryPoint) -> RewardInfo:
    package = f"{point.dist.name} {point.dist.version}" if point.dist else ""
    try:
        thing = _loaded(name, point)
        missing = thing.missing() if isinstance(thing, type) and issubclass(thing, Reward) else ""
    except Exception as error:
        return RewardInfo(name, "", {}, str(error), package)
    parameters = list(signature_of(thing).parameters.values())[0 if isinstance(thing, type) else 2 :]
    arguments = {p.name: "" if p.default is p.empty else repr(p.default) for p in parameters}
    summary = (inspect.getdoc(thing) or "").partition("\n")[0]
    return RewardInfo(name, summary, arguments, missing, package)


def _listed(args: dict[str, Any]) -> str:
    return ", ".join(f"{key}={value!r}" for key, value in args.items())
