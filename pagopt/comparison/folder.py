"""The folder of a comparison: whose it is, and the files that a user wants."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

from pagopt.comparison import tables
from pagopt.comparison.outcome import Outcome
from pagopt.files import write_png, write_text
from pagopt.folder import Outputs
from pagopt.report import draw_sheet

__all__ = ["FILES", "Folder"]

FILES = {"table": "table.md", "sheet": "sheet.png", "data": "comparison.json"}
"""What to look at first."""

COLUMNS = 8  # of the sheet


class Folder:
    """A folder for tables and pictures; those of an earlier comparison in it are replaced, anything else is refused.

    Args:
        path: Where; made when the first file is written.

    Raises:
        StudyError: If it holds something else.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.outputs = Outputs(path, "evaluate", "comparison")

    def claim(self, config: dict[str, Any]) -> None:
        """Write what was asked for, as ``config.yaml``."""
        self.outputs.claim(config)

    def save(self, outcome: Outcome, image: Callable[[str], Image.Image]) -> None:
        """Write tables, pictures and, last, the data.

        Args:
            outcome: What came out.
            image: Gives the picture of a store key.

        Raises:
            StudyError: If they cannot be written.
        """
        self.outputs.write(lambda: self._save(outcome, image))

    def _save(self, outcome: Outcome, image: Callable[[str], Image.Image]) -> None:
        for name, text in (
            ("table.md", tables.markdown(outcome)),
            ("table.csv", tables.table_csv(outcome)),
            ("differences.csv", tables.differences_csv(outcome)),
            ("scores.csv", tables.scores_csv(outcome)),
        ):
            write_text(self.path / name, text)
        # The first seed of the first prompts, never chosen ones.
        every = len(outcome.tasks) // len(set(outcome.prompts))
        shown = range(0, len(outcome.tasks), every)[:COLUMNS]
        rows = [[image(standing.images[i]) for i in shown] for standing in outcome.standings]
        names = [standing.name for standing in outcome.standings]
        write_png(self.path / "sheet.png", draw_sheet(rows, names, [outcome.tasks[i][0] for i in shown]))
        outcome.save(self.path / "comparison.json")
