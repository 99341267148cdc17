"""The font of titles in pictures: Pillow's own, or one of this machine's where that lacks letters."""

from __future__ import annotations

from functools import cache

from PIL import ImageFont

__all__ = ["Font", "font_for"]

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

NAMES = (
    "NotoSansCJK-Regular.ttc", "NotoSansSC-Regular.otf", "wqy-microhei.ttc", "DroidSansFallbackFull.ttf",  # Linux
    "PingFang.ttc", "Hiragino Sans GB.ttc", "Arial Unicode.ttf",  # macOS
    "msyh.ttc", "YuGothM.ttc", "malgun.ttf", "segoeui.ttf",  # Windows
    "NotoSans-Regular.ttf", "DejaVuSans.ttf",
)  # fmt: skip
"""Files of fonts with many letters, as systems bring them; looked for in the system's folders."""

NONE = "\U0010ffff"
"""No character, so a font draws its sign for those that it lacks."""


@cache
def font_for(text: str, size: int) -> Font:
    """A font that has all letters of a text.

    Args:
        text: A title.
        size: Pixels of a line, about.

    Returns:
        Pillow's own if it has them, or if no other here does: what it lacks are boxes then.
    """
    own = ImageFont.load_default(size)
    if _has_all(own, text):
        return own
    for name in NAMES:
        try:
            font = ImageFont.truetype(name, size)
        except OSError:
            continue
        if _has_all(font, text):
            return font
    return own


def _has_all(font: Font, text: str) -> bool:
    lacking = bytes(font.getmask(NONE))
    return all(bytes(font.getmask(letter)) != lacking for letter in set(text) if letter.isprintable())
