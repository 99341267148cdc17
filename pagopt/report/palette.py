"""Colours that carry meaning: one for each kind of method, and the diverging steps of the score maps."""

from __future__ import annotations

import math

__all__ = ["STEPS", "diverging_css", "step_class"]

STEPS = 10
"""Steps on each side of the neutral colour."""

_LIGHT = ("#6a4c9c", "#f3f1ec", "#c8500f")
_DARK = ("#a48bd8", "#2c2a28", "#ff8b45")

Triple = tuple[float, float, float]


def step_class(value: float, limit: float) -> str:
    """CSS class of the colour for ``value`` on a scale from ``-limit`` to ``limit``.

    The classes are ``n10`` ... ``n1``, ``z``, ``p1`` ... ``p10``. Beyond the ends the end colours
    stay; what is not finite gets ``x``.
    """
    if not math.isfinite(value):
        return "x"
    step = round(value / limit * STEPS) if limit > 0 else 0
    step = max(-STEPS, min(STEPS, step))
    return "z" if step == 0 else f"{'n' if step < 0 else 'p'}{abs(step)}"


def diverging_css(dark: bool) -> str:
    """CSS rules that fill the classes of :func:`step_class`, for the light or the dark page."""
    low, middle, high = (_oklab(colour) for colour in (_DARK if dark else _LIGHT))
    rules = [f".z{{fill:{_hexa(middle)}}}"]
    for name, end in (("n", low), ("p", high)):
        for step in range(1, STEPS + 1):
            share = (step / STEPS) ** 0.85
            mixed = tuple(a + (b - a) * share for a, b in zip(middle, end, strict=True))
            rules.append(f".{name}{step}{{fill:{_hexa((mixed[0], mixed[1], mixed[2]))}}}")
    return "".join(rules)


def _oklab(colour: str) -> Triple:
    """OKLab coordinates of an sRGB colour (B. Ottosson, 2020): mixing there keeps the steps even to the eye."""
    r, g, b = (_linear(int(colour[i : i + 2], 16) / 255) for i in (1, 3, 5))
    long = _root(0.4122214708 * r + 0.5363325363 * g + 0.0514459929 * b)
    medium = _root(0.2119034982 * r + 0.6806995451 * g + 0.1073969566 * b)
    short = _root(0.0883024619 * r + 0.2817188376 * g + 0.6299787005 * b)
    return (
        0.2104542553 * long + 0.7936177850 * medium - 0.0040720468 * short,
        1.9779984951 * long - 2.4285922050 * medium + 0.4505937099 * short,
        0.0259040371 * long + 0.7827717662 * medium - 0.8086757660 * short,
    )


def _hexa(colour: Triple) -> str:
    lightness, a, b = colour
    long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
    medium = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
    linear = (
        4.0767416621 * long - 3.3077115913 * medium + 0.2309699292 * short,
        -1.2684380046 * long + 2.6097574011 * medium - 0.3413193965 * short,
        -0.0041960863 * long - 0.7034186147 * medium + 1.7076147010 * short,
    )
    return "#" + "".join(f"{round(255 * _gamma(min(1.0, max(0.0, value)))):02x}" for value in linear)


def _root(value: float) -> float:
    return float(value ** (1 / 3))


def _linear(value: float) -> float:
    return value / 12.92 if value <= 0.04045 else float(((value + 0.055) / 1.055) ** 2.4)


def _gamma(value: float) -> float:
    return value * 12.92 if value <= 0.0031308 else float(1.055 * value ** (1 / 2.4) - 0.055)
