"""Limits of a reward and tolerances, as a study writes them: a number, or words such as "baseline - 0.5 sd"."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from pagopt.errors import RewardError

__all__ = ["Bound", "Limit", "Tolerance"]

BASELINE = re.compile(r"\s*baseline\s*(?:([+-])\s*(\d+(?:\.\d*)?|\.\d+)\s*sd\s*)?")
AMOUNT = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*(sd|se)\s*")


@dataclass(frozen=True)
class Bound:
    """A limit before the unguided images are known.

    Attributes:
        rule: As it was written.
        number: In the reward's own unit; or, if ``relative``, in standard deviations of the unguided images above
            their mean.
        relative: Whether it is measured against the unguided images.
    """

    rule: str
    number: float
    relative: bool

    @classmethod
    def parse(cls, value: float | str, what: str) -> Bound:
        """From a number, "baseline", "baseline - 0.5 sd" or "baseline + 1 sd".

        Raises:
            RewardError: For anything else; ``what`` begins the message.
        """
        if _is_number(value):
            return cls(f"{value:g}", float(value), relative=False)
        found = BASELINE.fullmatch(value) if isinstance(value, str) else None
        if not found:
            raise RewardError(
                f"{what} is {value!r}: write a finite number in the reward's own unit, or measure it against the "
                'unguided images with "baseline", "baseline - 0.5 sd" or "baseline + 1 sd"'
            )
        sign, amount = found.groups()
        number = float(amount or 0) * (-1 if sign == "-" else 1)
        return cls(f"baseline {sign} {amount} sd" if sign else "baseline", number, relative=True)


@dataclass(frozen=True)
class Limit:
    """What the mean of a reward has to reach, or must not go beyond.

    Attributes:
        reward: Label of the reward.
        kind: "at_least" or "at_most".
        rule: As the study writes it: "20", "baseline - 0.5 sd".
        value: In the reward's own unit, for the tasks in question.
    """

    reward: str
    kind: str
    rule: str
    value: float

    def miss(self, mean: float) -> float:
        """How far a mean is on the wrong side, in the reward's own unit; 0 if it is on the right one."""
        return max(0.0, self.value - mean if self.kind == "at_least" else mean - self.value)

    @property
    def text(self) -> str:
        """``clip at least 24.1 (baseline - 0.5 sd)``."""
        number = f"{self.value:.4g}"
        rule = f" ({self.rule})" if self.rule.startswith("baseline") else ""
        return f"{self.reward} {self.kind.replace('_', ' ')} {number}{rule}"


@dataclass(frozen=True)
class Tolerance:
    """Up to which difference two recipes count as equal on a reward.

    Attributes:
        number: 0 or more.
        unit: "" for the reward's own, "sd" for standard deviations of the unguided images, "se" for standard errors of
            the difference of two recipes.
    """

    number: float
    unit: str

    @classmethod
    def parse(cls, value: float | str, what: str) -> Tolerance:
        """From a number, "0.5 sd" or "1 se".

        Raises:
            RewardError: For anything else; ``what`` begins the message.
        """
        if _is_number(value) and float(value) >= 0:
            return cls(float(value), "")
        found = AMOUNT.fullmatch(value) if isinstance(value, str) else None
        if not found:
            raise RewardError(
                f"{what} is {value!r}: write a number from 0 in the reward's own unit, or with a unit: "
                '"0.5 sd" (standard deviations of the unguided images) or "1 se" (standard errors of the difference '
                "of two recipes)"
            )
        return cls(float(found[1]), found[2])


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
