"""Prompts and pictures in users' files: read as they were written, and as they are seen."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from PIL import Image

from pagopt.cli.pictures import BESIDE, find_prompts, read_image, read_prompts
from pagopt.cli.score import write_csv
from pagopt.comparison.reference import read_references
from pagopt.errors import PagoptError


def turned(path: Path, size: tuple[int, int]) -> None:
    """A camera's file that is to be turned by a quarter when it is shown."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", size).save(path, exif=exif)


@pytest.mark.parametrize("prompt", ["two\nlines", "two\r\nlines", "a\u2028b", "a\x85b", 'says "no", twice'])
def test_prompts_are_read_as_they_were_written(prompt: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = tmp_path / "black.png"
    with open(tmp_path / "p.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["file_name", "text"], ["black.png", prompt]])
    row = json.dumps({"file_name": "black.png", "text": prompt}, ensure_ascii=False)
    (tmp_path / "p.jsonl").write_bytes(f"{row}\r\n".encode())
    (tmp_path / "p.json").write_bytes(f"\ufeff[{row}]".encode())
    (tmp_path / "black.txt").write_bytes(f"\ufeff{prompt}\r\n".encode())
    for source in (str(tmp_path / "p.csv"), str(tmp_path / "p.jsonl"), str(tmp_path / "p.json"), BESIDE):
        assert find_prompts([image], "", source) == [prompt], source
    write_csv([image], [prompt], {"brightness": [0.5]})
    (read,) = csv.DictReader(io.StringIO(capsys.readouterr().out, newline=""))
    assert read["prompt"] == prompt


def test_prompts_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("image,prompt\nblack.png," + "a" * 140_000)
    with pytest.raises(PagoptError, match=r"cannot read the prompts .*p\.csv: field larger than"):
        read_prompts(tmp_path / "p.csv")
    (tmp_path / "black.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(PagoptError, match=r"cannot read the prompts .*black\.txt: 'utf-8' codec"):
        find_prompts([tmp_path / "black.png"], "", BESIDE)


def test_pictures_are_seen_upright(tmp_path: Path) -> None:
    for number in range(6):
        turned(tmp_path / f"{number}.jpg", (8, 4))
    assert read_image(tmp_path / "0.jpg").size == (4, 8)
    assert {image.size for image in read_references(tmp_path)} == {(4, 8)}
