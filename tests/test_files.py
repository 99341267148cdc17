"""Files are written whole or not at all, with the rights and under the names that the user gave."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from pagopt.files import write_text


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_who_may_read_is_the_users_umask(umask: int, tmp_path: Path) -> None:
    before = os.umask(umask)
    try:
        write_text(tmp_path / "a.txt", "a")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) == 0o666 & ~umask


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    for content in ("new", "old"):  # first to where nothing is yet
        link = tmp_path / "link.txt"
        link.unlink(missing_ok=True)
        link.symlink_to(tmp_path / "disk" / "real.txt")
        write_text(link, content)
        assert link.is_symlink()
        assert (tmp_path / "disk" / "real.txt").read_text() == content


def test_a_pipe_is_written_to(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    write_text(tmp_path / "pipe", "through")
    assert os.read(reader, 100) == b"through"
    os.close(reader)
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


def test_a_name_may_be_as_long_as_the_system_takes(tmp_path: Path) -> None:
    name = "n" * 251 + ".txt"
    write_text(tmp_path / name, "long")
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_what_fails_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_text(tmp_path / "deep" / "a.txt", "old")

    def full(self: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        write_text(tmp_path / "deep" / "a.txt", "new")
    assert (tmp_path / "deep" / "a.txt").read_text() == "old"
    assert len(list((tmp_path / "deep").iterdir())) == 1
    with pytest.raises(IsADirectoryError):
        write_text(tmp_path / "deep", "a folder")
