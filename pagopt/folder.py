"""The folders that runs leave: one that belongs to a study, and one whose files the next run of its kind replaces."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from pagopt.errors import StudyError
from pagopt.evaluate import precision_of
from pagopt.files import write_text
from pagopt.models import model_files
from pagopt.results import Results, load_results
from pagopt.study import Study

__all__ = ["Folder", "Outputs", "configuration"]

OWNERS = {"study": "search", "tune": "tune", "evaluate": "evaluate", "atlas": "atlas"}
"""The command that made a folder, by the key in its ``config.yaml`` that says so."""


def configuration(study: Study, name: str, options: dict[str, Any]) -> dict[str, Any]:
    """What the folder of a run belongs to, as plain data."""
    return {"study": name, **study.to_dict(), "precision": precision_of(options)}


class Folder:
    """The folder of a run, which belongs to one study.

    Args:
        path: The folder; it is created.
        config: What the study asks for, as plain data; the first key is the command's among ``OWNERS``.

    Raises:
        StudyError: If the folder holds something else.
    """

    def __init__(self, path: Path, config: dict[str, Any]) -> None:
        self.path = path
        self.config = config
        self._stale = False
        if (path / "config.yaml").exists():
            self._check(_config(path))
        elif path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise StudyError(f"{path} is not empty and holds no pagopt run; choose another folder with --out")

    def claim(self) -> None:
        """Write the configuration, so that the folder belongs to this study from now on."""
        try:
            if self._stale:  # what was found before is not this run's end, should it be stopped
                (self.path / "results.json").unlink(missing_ok=True)
            write_text(self.path / "config.yaml", self._text())
        except OSError as error:
            raise StudyError(
                f"cannot write to {self.path}: {error.strerror}; choose another folder with --out"
            ) from error

    def check(self) -> None:
        """Before results are written: the folder is still this study's.

        Raises:
            StudyError: If another run has claimed it meanwhile, which it may as long as nothing is finished.
        """
        file = self.path / "config.yaml"
        if file.exists() and file.read_bytes() != self._text().encode():
            raise StudyError(
                f"another run with other options has taken {self.path} meanwhile. What is drawn and scored is kept: "
                "the same command with another --out, and --store at this one's, writes the results at once"
            )

    def finished(self, study: Study) -> Results | None:
        """The results, if the run is finished and they hold.

        They do not with another budget, or where a reward or model of the user's own, or files of the model's folder,
        have changed since.
        """
        path = self.path / "results.json"
        if self._stale or not path.exists():
            return None
        results = load_results(path)
        same = results.own_code == study.own_code() and results.model_files in ("", model_files(study.model))
        self._stale = not same
        return results if same else None

    def _text(self) -> str:
        return str(yaml.safe_dump(self.config, sort_keys=False, allow_unicode=True))

    def _check(self, other: dict[str, Any] | None) -> None:
        if other is None:
            raise StudyError(f"{self.path / 'config.yaml'} is damaged; choose another folder with --out")
        _check_owner(self.path, other, next(iter(self.config)), "pagopt run")
        names = [name for name in {**self.config, **other} if self.config.get(name) != other.get(name)]
        if not (self.path / "results.json").exists():
            return  # nothing was finished that another study could replace; what is drawn lies in the store
        self._stale = "budget" in names
        if set(names) - {"budget"}:  # with another budget the same study goes on
            changes = "\n".join(f"  {n}: there {other.get(n)!r}, now {self.config.get(n)!r}" for n in sorted(names))
            raise StudyError(
                f"{self.path} holds the run of another study:\n{changes}\n"
                "Give the same options to go on with that one, or another folder with --out."
            )


class Outputs:
    """A folder for the files of one command; those of an earlier run of it are replaced, anything else is refused.

    Args:
        path: Where; made when the first file is written.
        mark: The key in ``config.yaml`` that says whose folder it is.
        noun: What such a run is called.

    Raises:
        StudyError: If it holds something else.
    """

    def __init__(self, path: Path, mark: str, noun: str) -> None:
        self.path = path
        if path.exists() and (not path.is_dir() or {file.name for file in path.iterdir()} - {"store"}):
            _check_owner(path, _config(path) or {}, mark, noun)

    def claim(self, config: dict[str, Any]) -> None:
        """Write what was asked for, as ``config.yaml``."""
        text = str(yaml.safe_dump(config, sort_keys=False, allow_unicode=True))
        self.write(lambda: write_text(self.path / "config.yaml", text))

    def write(self, act: Callable[[], None]) -> None:
        """Write files.

        Args:
            act: Writes them.

        Raises:
            StudyError: If they cannot be written.
        """
        try:
            act()
        except OSError as error:
            raise StudyError(
                f"cannot write to {self.path}: {error.strerror}. What is drawn is kept; make room, or choose another "
                "folder with --out, and run again"
            ) from error


def _config(folder: Path) -> dict[str, Any] | None:
    """What ``config.yaml`` says; ``None`` if it cannot be read, or says nothing by name."""
    try:
        data = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return None
    return data if isinstance(data, dict) else None


def _check_owner(folder: Path, config: dict[str, Any], mark: str, noun: str) -> None:
    """Refuse what the command of this mark has not made."""
    if mark in config:
        return
    others = [command for key, command in OWNERS.items() if key in config]
    what = f"holds what `pagopt {others[0]}` made" if others else f"is not empty and holds no {noun}"
    raise StudyError(f"{folder} {what}; choose another folder with --out")
