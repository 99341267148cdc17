"""The benchmark of style objectives on a gallery whose order is known."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from benchmarks import style_order
from benchmarks.style_order import Drawing, Gallery, Share
from pagopt.reward import load_reward
from pagopt_rewards import encoder
from pagopt_rewards.style import Style
from tools.emoji.artwork import STYLES, Artwork, concepts


@pytest.fixture
def art() -> Artwork:
    """Noise of another brightness for each style."""
    names, draw = concepts(12), torch.Generator().manual_seed(0)
    noise = torch.randint(0, 60, (len(STYLES), len(names), 3, 16, 16), generator=draw)
    return Artwork(list(STYLES), names, (noise + 40 * torch.arange(5).view(5, 1, 1, 1, 1)).to(torch.uint8))


def test_pairs_are_counted_as_they_are(art: Artwork) -> None:
    gallery, share = Gallery(art), Share()
    gallery.held[:] = False
    gallery.held[1, 3] = True
    scores = np.zeros((5, 12), dtype=np.float32)
    scores[1] = 1  # above all, but for
    scores[0, 3] = scores[2, 5] = 2
    scores[4, 7] = 1  # a tie is no order
    gallery.count(share, 1, scores)
    assert (share.ordered, share.pairs, share.held_ordered, share.held_pairs) == (45, 48, 3, 4)
    assert share.least == 45 / 48
    gallery.count(share, 1, scores, without=[3, 3, 0])
    assert (share.ordered, share.pairs, share.held_ordered, share.held_pairs) == (45 + 38, 48 + 40, 3, 4)
    assert share.row("x")["glossy"] == 83 / 88


def test_no_picture_is_an_example_twice(art: Artwork, tmp_path: Path) -> None:
    art.images[2, 1::2] = art.images[2, 0::2]  # six pictures for twelve names
    used = Drawing(Gallery(art), 6, 6)(tmp_path, 2, 0)
    assert len(used) == 30
    read = [(path.parent.name, path.read_bytes()) for path in tmp_path.glob("*/*.png")]
    assert len(set(read)) == len(read) == 30
    together = Drawing(Gallery(art), 3, 8, together=True)(tmp_path / "more", 1, 0)
    assert len(together) == 3 + 8
    assert len(list((tmp_path / "more" / "against").iterdir())) == 8


@pytest.mark.skipif(bool(Style.missing()), reason="the embedded scorer is not there")
def test_what_is_remembered_is_what_is_seen(art: Artwork) -> None:
    gallery = Gallery(art)
    scores = gallery.scores(load_reward("style", style="ink"))
    again = load_reward("style", style="ink")(gallery.images, [""] * 60)
    np.testing.assert_allclose(scores.ravel(), again.numpy(), atol=1e-4)


@pytest.mark.skipif(bool(Style.missing()), reason="the embedded scorer is not there")
def test_the_table(
    art: Artwork, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoder, "_transformers", encoder._transformers)  # put back what the benchmark shares
    save_file({"images": art.images}, tmp_path / "art.safetensors")
    (tmp_path / "art.json").write_text(json.dumps({"styles": art.styles, "names": art.names}))
    words = ["--artwork", tmp_path / "art.safetensors", "--examples", 3, "--seeds", 1, "--names", 12]
    assert style_order.main([*map(str, words), "--json", str(tmp_path / "table.json")]) == 0
    rows = json.loads((tmp_path / "table.json").read_text())["rows"]
    assert [row["reward"] for row in rows] == [
        "style, by its word",
        "classifier, by words",
        "reference, 3 examples",
        "reference, projected, 3 examples",
        "reference, 3 examples against 8",
        "classifier, 3 examples a style",
    ]
    assert all(0 <= row["least of a style and seed"] <= row["ordered"] <= 1 for row in rows)
    assert rows[0]["pairs"] == 5 * 4 * 12
    assert rows[2]["pairs"] == 5 * 4 * 9
    assert "| reference, 3 examples | " in capsys.readouterr().out
