"""Where the embedded model and its scorer lie. Without the heavy imports, since listing rewards asks, too."""

from __future__ import annotations

from pathlib import Path

from pagopt.errors import UnknownName

__all__ = ["EMBEDDED", "scorer_folder"]

EMBEDDED = Path(__file__).parent / "models" / "emoji"


def scorer_folder(name: str) -> Path:
    """The folder of an image-text scorer: the embedded one (``"emoji"``), or a path.

    Raises:
        UnknownName: If there is none.
    """
    folder = EMBEDDED / "scorer" if name == "emoji" else Path(name).expanduser()
    if not (folder / "config.json").is_file():
        hint = f"A scorer is a folder with a config.json, which {folder} is not."
        raise UnknownName("scorer", name, ["emoji"], hint=hint)
    return folder
