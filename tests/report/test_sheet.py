"""The sheet of pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFont

from pagopt.report import draw_sheet, fonts, write_sheet
from tests.report.synthetic import make_results, painter


@pytest.mark.parametrize("titles", [["", ""], ["no guidance", "HeadHunter"]])
def test_every_picture_is_there_in_its_place(titles: list[str]) -> None:
    colours = [["red", "green", "blue"], ["black", "yellow", "cyan"]]
    rows = [[Image.new("RGB", (64, 64), colour) for colour in row] for row in colours]
    sheet = draw_sheet(rows, titles, ["flat, red apple", "b", "a very long prompt that needs many lines to be shown"])
    pixels = np.asarray(sheet)
    boxes = []
    for colour in (colour for row in colours for colour in row):
        exact = np.asarray(Image.new("RGB", (1, 1), colour))[0, 0]
        ys, xs = np.nonzero((pixels == exact).all(axis=2))
        boxes.append((ys.mean(), xs.mean()))
        assert len(ys) >= 128 * 128
    assert boxes[0][1] < boxes[1][1] < boxes[2][1], "columns from left to right"
    assert boxes[0][0] < boxes[3][0], "rows from top to bottom"
    assert (pixels[0] == 255).all()


def test_other_shapes_keep_their_proportions() -> None:
    sheet = draw_sheet([[Image.new("RGB", (200, 100), "red")]], [""], ["x"], side=128)
    ys, xs = np.nonzero((np.asarray(sheet) == (255, 0, 0)).all(axis=2))
    assert (np.ptp(xs) + 1, np.ptp(ys) + 1) == (128, 64)


@pytest.mark.parametrize(
    "long", ["many words of a prompt " * 8, "one_word_" * 20, "short " + "one_word_" * 20, "漢字かな交じり文" * 12]
)
def test_long_titles_do_not_cover_their_neighbours(long: str) -> None:
    def column(titles: list[str]) -> bytes:
        picture = Image.new("RGB", (64, 64), "red")
        sheet = draw_sheet([[picture] * 3], [""], titles)
        third = sheet.width // 3
        return sheet.crop((third + 8, sheet.height - 160, 2 * third - 8, sheet.height)).tobytes()

    assert column([long, "a", long]) == column(["b", "a", "b"])


def test_a_run_gets_a_row_for_each_method(tmp_path: Path) -> None:
    results = make_results()
    write_sheet(results, painter(), tmp_path / "sheet.png", tasks=5)
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.height > len(results.methods) * 128
        assert 5 * 128 < sheet.width < 9 * 128


def test_letters_that_pillows_font_lacks_are_looked_for_in_this_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a folder of fonts there may be one that has them; the font that has all is taken, title by title."""
    asked: list[str] = []

    class Made:
        def __init__(self, name: str) -> None:
            self.letters = {"few.ttf": "ab", "many.ttf": "ab\u00e9"}[name]

        def getmask(self, letter: str) -> bytes:
            return letter.encode() if letter in self.letters else b"box"

    own = ImageFont.truetype

    def truetype(name: Any, size: int, **more: Any) -> Any:
        if not isinstance(name, str):
            return own(name, size, **more)  # Pillow's, which it holds in memory
        asked.append(name)
        if name == "none.ttf":
            raise OSError
        return Made(name)

    fonts.font_for.cache_clear()
    monkeypatch.setattr(fonts, "NAMES", ("none.ttf", "few.ttf", "many.ttf"))
    monkeypatch.setattr("PIL.ImageFont.truetype", truetype)
    try:
        assert fonts.font_for("flat, red apple", 14).getname() == ("Aileron", "Regular")
        assert not asked
        assert fonts.font_for("b\u00e9b\u00e9", 14).letters == "ab\u00e9"
        assert asked == ["none.ttf", "few.ttf", "many.ttf"]
        assert fonts.font_for("\u82f9\u679c", 14).getname() == ("Aileron", "Regular"), "nothing has them"
    finally:
        fonts.font_for.cache_clear()


def test_titles_in_other_letters_are_drawn() -> None:
    """With the system's DejaVu, where it is; the titles of other columns stay as they were."""
    if fonts.font_for("\u0434\u043e\u043c", 14).getname()[0] == "Aileron":
        pytest.skip("no font here has Cyrillic letters")
    picture = Image.new("RGB", (64, 64), "red")
    two = np.asarray(draw_sheet([[picture] * 2], [""], ["house", "\u0434\u043e\u043c"]))
    plain = np.asarray(draw_sheet([[picture] * 2], [""], ["house", "dom"]))
    half = two.shape[1] // 2
    assert np.array_equal(two[:, :half], plain[:, :half])
    assert (two[:30, half:] < 200).any()
