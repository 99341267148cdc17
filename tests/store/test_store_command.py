"""``pagopt store``: what it prints, asks and refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from entries import entry

from pagopt.cli import main
from pagopt.store import Store

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def folder(store: Store) -> str:
    store.put_images(entry(number) for number in range(4))
    store.put_scores("clip@" + "1" * 64, {entry(0)[0]: 1.0})
    store.close()
    return str(store.folder)


def test_info(folder: str, capsys: Capture) -> None:
    for words in (["store", folder], ["store", "info", folder]):
        assert main(words) == 0
        said = capsys.readouterr().out
        assert "images     4, " in said
        assert "clip@11111111: 1 scores" in said
    assert main(["store", folder, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["images"] == 4


def test_verify_has_a_status(folder: str, capsys: Capture) -> None:
    assert main(["store", "verify", folder]) == 0
    assert "clean: 4 images are there and whole" in capsys.readouterr().out
    with Store(folder) as store:
        path = store.image_path(entry(1)[0])
    path.write_bytes(b"")
    assert main(["store", "verify", folder]) == 1
    said = capsys.readouterr().out
    assert str(path) in said
    assert "NOT clean: 1 of 4 images" in said
    assert main(["store", "verify", folder, "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["clean"] is False
    assert main(["store", "verify", folder, "--repair"]) == 0
    assert "repaired: 1 of 4" in capsys.readouterr().out
    assert main(["store", "verify", folder]) == 0
    assert "clean: 3" in capsys.readouterr().out
    (Path(folder) / "index.sqlite").unlink()
    assert main(["store", "verify", folder]) == 2
    assert main(["store", "verify", folder, "--repair"]) == 0
    assert main(["store", "verify", folder]) == 0


def test_prune_asks(folder: str, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["store", "prune", folder, "--max_size", "0GB"]
    assert main([*words, "--dry_run"]) == 0
    assert "would go   4 images" in capsys.readouterr().out
    assert main(words) == 2  # no terminal
    assert "Say --yes to do it" in capsys.readouterr().err
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda _: "n")
    assert main(words) == 1
    assert main(["store", "prune", folder, "--max_size", "0 kb", "--older_than", "1d", "--yes"]) == 0
    with Store(folder) as store:
        assert store.counts()["images"] == 4
    monkeypatch.setattr("builtins.input", lambda _: "y")
    assert main(words) == 0
    with Store(folder) as store:
        assert store.counts() == {"images": 0, "scores": 0}
    capsys.readouterr()
    assert main([*words, "--yes", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["images"] == 0


def test_export_and_merge(folder: str, tmp_path: Path, capsys: Capture) -> None:
    assert main(["store", "export", folder, "--to", str(tmp_path / "out")]) == 0
    assert "4 images to" in capsys.readouterr().out
    assert len(list((tmp_path / "out").glob("*.webp"))) == 4
    assert main(["store", "merge", str(tmp_path / "all"), folder]) == 0
    assert "4 images, 1 scores; 0 images were there already" in capsys.readouterr().out
    with Store(folder) as store:
        store.image_path(entry(3)[0]).write_bytes(b"")
    assert main(["store", "merge", str(tmp_path / "most"), folder, "--json"]) == 1
    assert list(json.loads(capsys.readouterr().out)["damaged"]) == [entry(3)[0]]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["infoo"], "Did you mean 'info'"),
        (["verify"], "takes one FOLDER; got 0"),
        (["verify", "a", "b"], "takes one FOLDER; got 2"),
        (["merge", "a"], "at least two folders; got 1"),
        (["verify", "nowhere"], "nowhere is no store"),
        (["verify", "nowhere", "--repair"], "there is no folder nowhere"),
        (["merge", "target", "nowhere"], "nowhere is no store"),
        (["verify", "a", "--yes"], "--yes belongs to `pagopt store prune`"),
        (["prune", "a", "--to", "b"], "--to belongs to `pagopt store export`"),
        (["prune", "a"], "say what may go"),
        (
            ["prune", "a", "--older_than", "30"],
            "a number with its unit, such as 12h, 30d, 8w; not '30'",
        ),
        (
            ["prune", "a", "--max_size", "lots"],
            "a number with its unit, such as 500MB, 50GB; not 'lots'",
        ),
        (["export", "a"], "where to"),
    ],
)
def test_refuses(words: list[str], says: str, tmp_path: Path, capsys: Capture, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["store", *words]) == 2
    assert says in capsys.readouterr().err.replace("\n", " ")
    assert not list(tmp_path.iterdir())
