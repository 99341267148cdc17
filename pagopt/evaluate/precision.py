"""In which number format the networks are loaded, from what a study and the Trainer's options say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pagopt.errors import StudyError

__all__ = ["at_load", "precision_of"]

TRUE = {"16-true": "float16", "bf16-true": "bfloat16", "32-true": "float32", "64-true": "float64"}
ALIASES = {"16": "16-mixed", "bf16": "bf16-mixed", "32": "32-true", "64": "64-true"}
"""As Lightning takes them."""


def precision_of(options: Mapping[str, Any]) -> str:
    """The precision that options of Lightning's ``Trainer`` ask for, by its full name."""
    said = str(options.get("precision") or "32-true")
    return ALIASES.get(said, said)


def at_load(dtype: str | None, options: Mapping[str, Any]) -> tuple[str | None, dict[str, Any]]:
    """The dtype to load the weights in, and the Trainer's options that are left.

    ``precision="bf16-true"`` and its like mean the format of the weights. Loaded so they take half the memory while
    they are read, text encoders keep in float32 what they need so (a T5 in float16 overflows otherwise), and the
    pipeline draws what diffusers' own ``from_pretrained(..., dtype=...)`` draws. So the Trainer is not asked to
    convert them afterwards. Mixed precisions are left to it.

    Args:
        dtype: What the study says; ``None`` follows the precision.
        options: Of Lightning's ``Trainer``.

    Returns:
        One of :data:`pagopt.models.weights.DTYPES`, ``None`` where neither says, and the options without such a
        precision.

    Raises:
        StudyError: If the two contradict each other.
    """
    rest = dict(options)
    precision = precision_of(rest)
    if not rest.get("precision") or precision not in TRUE:
        return dtype, rest
    said = TRUE[precision]
    del rest["precision"]
    if dtype is not None and dtype != said:
        raise StudyError(
            f"dtype {dtype} and trainer.precision {precision} contradict each other: leave one of the two out"
        )
    return said, rest
