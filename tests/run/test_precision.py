"""The precision that is asked of Lightning's Trainer, and the dtype of the weights."""

from __future__ import annotations

import warnings
from typing import Any

import pytest

from pagopt.errors import StudyError
from pagopt.evaluate import at_load, make_trainer, precision_of
from pagopt.folder import configuration
from pagopt.study import Study


@pytest.mark.parametrize(
    ("dtype", "precision", "want", "left"),
    [
        (None, None, None, {"precision": None}),
        ("bfloat16", None, "bfloat16", {"precision": None}),
        (None, "16-true", "float16", {}),
        ("float16", "16-true", "float16", {}),
        (None, "64", "float64", {}),
        (None, 32, "float32", {}),
        (None, "bf16-mixed", None, {"precision": "bf16-mixed"}),
        ("bfloat16", "bf16-mixed", "bfloat16", {"precision": "bf16-mixed"}),
    ],
)
def test_dtype_and_precision(
    dtype: str | None, precision: str | int | None, want: str | None, left: dict[str, Any]
) -> None:
    given = {"precision": precision, "devices": 1}
    assert at_load(dtype, given) == (want, {**left, "devices": 1})
    assert given["precision"] == precision


@pytest.mark.parametrize("precision", [32, "32", "64", "bf16", "32-true", "bf16-mixed", None])
def test_a_precision_has_one_name(study: Study, precision: str | int | None) -> None:
    options = {"precision": precision, "accelerator": "cpu"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Lightning likes full names better, too
        assert precision_of(options) == make_trainer(**options).precision
    named = {"precision": precision_of(options)}
    assert configuration(study, "tiny", options) == configuration(study, "tiny", named)


@pytest.mark.parametrize(("dtype", "precision"), [("float16", "bf16-true"), ("float32", "64")])
def test_a_contradiction(dtype: str, precision: str) -> None:
    with pytest.raises(StudyError, match=rf"dtype {dtype} and trainer\.precision {precision}.* contradict each other"):
        at_load(dtype, {"precision": precision})
