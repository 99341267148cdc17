"""The sheet of pictures."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import mkdocs
import numpy as np
import pytest
from PIL import Image

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


@pytest.fixture
def brought(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Real fonts in place of the machine's, from a package for the docs: one with signs alone, one with letters."""
    folder = Path(mkdocs.__file__).parent / "themes" / "readthedocs" / "css" / "fonts"
    names = ("no-such-font.ttf", str(folder / "fontawesome-webfont.ttf"), str(folder / "lato-normal.woff"))
    monkeypatch.setattr(fonts, "NAMES", names)
    fonts.font_for.cache_clear()
    yield
    fonts.font_for.cache_clear()


@pytest.mark.parametrize(
    ("title", "font"),
    [
        ("flat, red apple", "Aileron"),  # Pillow's own
        ("b\u00e9b\u00e9", "Lato"),
        ("\u0434\u043e\u043c", "Lato"),
        ("\u82f9\u679c", "Aileron"),  # none of them has these
    ],
)
def test_letters_that_pillows_font_lacks_are_looked_for_elsewhere(brought: None, title: str, font: str) -> None:
    assert fonts.font_for(title, 14).getname()[0] == font


def test_titles_in_other_letters_are_drawn(brought: None) -> None:
    """The titles of other columns stay as they were."""
    picture = Image.new("RGB", (64, 64), "red")

    def column(title: str) -> np.ndarray:
        return np.asarray(draw_sheet([[picture] * 2], [""], ["house", title]))

    found, plain, lacking = map(column, ("\u0434\u043e\u043c", "dom", "\u82f9\u679c\u82f9"))
    half = found.shape[1] // 2
    assert np.array_equal(found[:, :half], plain[:, :half])
    assert (found[:30, half:] < 200).any()
    assert not np.array_equal(found, lacking), "no boxes"


def test_a_column_may_be_narrower_than_any_title() -> None:
    sheet = draw_sheet([[Image.new("RGB", (2, 256), "red")]], [""], ["four words and more"], side=64)
    assert sheet.height > 64
