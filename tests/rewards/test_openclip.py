"""open_clip without open_clip: what is said when it is not there. tests/openclip has the rest (`make openclip`)."""

from __future__ import annotations

import sys

import pytest

from pagopt.errors import RewardError
from pagopt_rewards.clip import Clip
from pagopt_rewards.encoder import Encoder


def test_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(RewardError, match=r"models of open_clip need open_clip: pip install 'pagopt\[openclip\]'"):
        Clip("open_clip:ViT-B-32/laion2b_s34b_b79k")


def test_a_torchvision_of_another_torch_is_named(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    (module := tmp_path / "open_clip.py").write_text(  # type: ignore[operator]
        "raise RuntimeError('operator torchvision::nms does not exist')"
    )
    monkeypatch.syspath_prepend(str(module.parent))
    monkeypatch.delitem(sys.modules, "open_clip", raising=False)
    with pytest.raises(RewardError, match=r"built for another torch.*pip install --force-reinstall --no-deps torchv"):
        Encoder("open_clip:ViT-B-32/laion2b_s34b_b79k")


def test_weights_belong_to_open_clip(tiny_clip: str) -> None:
    with pytest.raises(RewardError, match=r"`weights` belongs to a model of open_clip.*brings its own"):
        Clip(tiny_clip, weights="model.pt")
