"""What the author of a reward tells the contract about it, and how the checks call it."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from PIL import Image
from torch import Tensor

from pagopt.errors import RewardError
from pagopt.reward import FunctionReward, Reward, load_reward
from pagopt.testing.pictures import example_pictures

__all__ = ["Subject", "require"]


class Subject:
    """The reward under test, as its author describes it: set :attr:`reward` or write :meth:`make`.

    The pictures are made here, of different sizes, the same in every run.

    Attributes:
        reward: A :class:`~pagopt.reward.Reward` subclass, a function ``f(images, prompts, **arguments)``, or a text as
            ``pagopt score --reward`` takes it.
        arguments: What it is made with.
        other_arguments: Further arguments, each of which must give another :meth:`~pagopt.reward.Reward.key`.
        prompts: Prompts that make sense to it, at least two different ones; some should repeat.
        sizes: Width and height of the pictures in pixels.
        tolerance: How much two scores that should be equal may differ, times the largest score (at least 1).
        device_tolerance: The same between the CPU and another device.
        constant: Set it where all pictures may get one score.
    """

    reward: ClassVar[Any] = None
    arguments: ClassVar[Mapping[str, Any]] = {}
    other_arguments: ClassVar[Sequence[Mapping[str, Any]]] = ()
    prompts: ClassVar[Sequence[str]] = (
        "red apple",
        "a cat, flat",
        "rocket",
        "a cat, flat",
        "house by the sea",
        "red apple",
    )
    sizes: ClassVar[Sequence[tuple[int, int]]] = ((64, 64), (64, 40), (31, 77), (224, 224), (300, 120))
    tolerance: ClassVar[float] = 1e-5
    device_tolerance: ClassVar[float] = 1e-3
    constant: ClassVar[bool] = False
    _kept: ClassVar[Reward]

    def make(self, **changes: Any) -> Reward:
        """A new reward, made with :attr:`arguments` and these changes."""
        arguments = {**self.arguments, **changes}
        thing = type(self).reward
        if isinstance(thing, str):
            return load_reward(thing, **arguments)
        if isinstance(thing, type) and issubclass(thing, Reward):
            return thing(**arguments)
        if isinstance(thing, type):
            return FunctionReward(thing(**arguments), thing.__name__, arguments)
        if callable(thing):
            name = getattr(thing, "__name__", "reward")
            return FunctionReward(functools.partial(thing, **arguments) if arguments else thing, name, arguments)
        raise AssertionError(f"{type(self).__name__} has no `reward`: set it to your class, or write make()")

    def encoded(self, reward: Reward) -> int | None:
        """How many prompts ``reward`` has encoded so far; ``None`` (by default) where that is not counted."""
        del reward
        return None

    def kept(self) -> Reward:
        """One reward for the checks that need no new one: it may be slow to make."""
        cls = type(self)
        if "_kept" not in vars(cls):
            cls._kept = self.make()
        return cls._kept

    def cycle(self, count: int) -> list[str]:
        """So many prompts, repeated as needed."""
        return [self.prompts[at % len(self.prompts)] for at in range(count)]

    def batch(self, count: int) -> tuple[list[Image.Image], list[str]]:
        """So many different pictures, and their prompts."""
        return example_pictures(count, self.sizes), self.cycle(count)

    def scores(self, reward: Reward, images: Sequence[Image.Image], prompts: Sequence[str]) -> Tensor:
        """Their scores; an error of the reward is a failed check."""
        try:
            return reward(images, prompts)
        except RewardError as error:
            raise AssertionError(f"scoring {len(images)} ordinary pictures failed: {error}") from error

    def same(self, found: Tensor, expected: Tensor, message: str, tolerance: float | None = None) -> None:
        """Require that scores are equal, up to the tolerance."""
        allowed = (self.tolerance if tolerance is None else tolerance) * max(1.0, expected.abs().max().item())
        gaps = (found - expected).abs()
        at = int(gaps.argmax())
        require(
            bool(gaps[at] <= allowed),
            f"{message}\n(picture {at + 1} of {len(gaps)}: {found[at].item():.8g} instead of "
            f"{expected[at].item():.8g}, allowed difference {allowed:.2g})",
        )


def require(holds: bool, message: str) -> None:
    """Fail a check with a message that teaches."""
    # Not `assert`, which python -O leaves out.
    if not holds:
        raise AssertionError(message)
