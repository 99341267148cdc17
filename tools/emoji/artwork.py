"""The artwork: icon sets from npm, rendered on white at twice the model's resolution.

Every style is one icon set. The sets are pinned in `package-lock.json` (with integrity hashes) and installed
without running any script of theirs.
"""

from __future__ import annotations

import io
import json
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

__all__ = [
    "CONCEPTS_FILE",
    "RENDER_SIZE",
    "STYLES",
    "Artwork",
    "HeldOut",
    "IconSet",
    "concepts",
    "held_out",
    "install",
    "load",
    "render",
]

HERE = Path(__file__).parent
CONCEPTS_FILE = HERE / "concepts.txt"
HELD_OUT_FILE = HERE / "held_out.txt"
RENDER_SIZE = 128


@dataclass(frozen=True)
class IconSet:
    """One icon set that stands for one style; `colour` replaces `currentColor` in single-colour sets."""

    package: str
    colour: str = "#000000"


STYLES: dict[str, IconSet] = {
    "flat": IconSet("fluent-emoji-flat"),
    "glossy": IconSet("fluent-emoji"),
    "ink": IconSet("fluent-emoji-high-contrast"),
    "cartoon": IconSet("noto"),
    "monotone": IconSet("emojione-monotone", colour="#1f5fd0"),
}


@dataclass(frozen=True)
class Artwork:
    """`images[style, name]` is uint8 RGB, shape (styles, names, 3, RENDER_SIZE, RENDER_SIZE)."""

    styles: list[str]
    names: list[str]
    images: torch.Tensor

    def select(self, names: list[str]) -> Artwork:
        """Keep these names, in this order."""
        return Artwork(self.styles, list(names), self.images[:, [self.names.index(name) for name in names]])


def concepts(limit: int | None = None) -> list[str]:
    """The icon names in `concepts.txt`, at most `limit` of them (spread evenly over the file)."""
    lines = [line.strip() for line in CONCEPTS_FILE.read_text().splitlines()]
    names = [line for line in lines if line and not line.startswith("#")]
    if limit is None or limit >= len(names):
        return names
    return [names[int(i * len(names) / limit)] for i in range(limit)]


@dataclass(frozen=True)
class HeldOut:
    """What is kept out of training for good, as indices into styles and names.

    `pairs` are (style, name) pairs that neither the model nor the scorer sees; `names` are concepts that the model sees
    in no style, while the scorer knows their other pictures, because it has to judge them.
    """

    pairs: list[tuple[int, int]]
    names: list[int]

    def from_model(self) -> list[tuple[int, int]]:
        """All pairs that the model never sees."""
        return sorted({*self.pairs, *((style, name) for style in range(len(STYLES)) for name in self.names)})


def held_out(names: list[str]) -> HeldOut:
    """What `held_out.txt` says of these names; there, the style `*` stands for every style."""
    lines = [line.split() for line in HELD_OUT_FILE.read_text().splitlines() if not line.startswith("#")]
    index, styles = {name: i for i, name in enumerate(names)}, list(STYLES)
    known = [(style, index[name]) for style, name in lines if name in index]
    return HeldOut(
        pairs=[(styles.index(style), name) for style, name in known if style != "*"],
        names=[name for style, name in known if style == "*"],
    )


def install() -> Path:
    """Install the pinned icon sets (`npm ci`, no scripts) unless they are there; return their folder."""
    modules = HERE / "node_modules"
    if not all((modules / "@iconify-json" / style.package / "icons.json").exists() for style in STYLES.values()):
        subprocess.run(["npm", "ci", "--ignore-scripts", "--prefix", str(HERE)], check=True)
    return modules


@cache
def _icons(package: str) -> dict[str, Any]:
    data: dict[str, Any] = json.loads((install() / "@iconify-json" / package / "icons.json").read_text())
    return data


def _names(package: str) -> set[str]:
    data = _icons(package)
    return set(data["icons"]) | set(data.get("aliases", {}))


def svg(icon_set: IconSet, name: str) -> str:
    """The SVG document of one icon; an alias is followed to the icon it stands for."""
    data = _icons(icon_set.package)
    while name not in data["icons"]:
        name = data["aliases"][name]["parent"]
    icon = data["icons"][name]
    width = icon.get("width", data.get("width", 16))
    height = icon.get("height", data.get("height", 16))
    side = max(width, height)
    box = f"{(width - side) / 2} {(height - side) / 2} {side} {side}"
    body = icon["body"].replace("currentColor", icon_set.colour)
    return f'<svg xmlns="http://www.w3.org/2000/svg" width="{side}" height="{side}" viewBox="{box}">{body}</svg>'


def draw(icon_set: IconSet, name: str) -> np.ndarray:
    """One icon on white, uint8 (3, RENDER_SIZE, RENDER_SIZE)."""
    import resvg_py

    document = svg(icon_set, name)
    png = resvg_py.svg_to_bytes(
        svg_string=document,
        width=RENDER_SIZE,
        height=RENDER_SIZE,
        background="#ffffff",
        skip_system_fonts=True,
    )
    picture = Image.open(io.BytesIO(bytes(png))).convert("RGB")
    return np.asarray(picture).transpose(2, 0, 1)


def render(path: Path) -> None:
    """Draw every name that all sets share and save it as safetensors with the names beside it."""
    shared = sorted(set.intersection(*(_names(style.package) for style in STYLES.values())))
    missing = sorted(set(concepts()) - set(shared))
    if missing:
        raise ValueError(f"concepts.txt names icons that not all sets have: {', '.join(missing)}")
    from tqdm import tqdm

    images = np.zeros((len(STYLES), len(shared), 3, RENDER_SIZE, RENDER_SIZE), dtype=np.uint8)
    jobs = [(i, j) for i in range(len(STYLES)) for j in range(len(shared))]
    for i, j in tqdm(jobs, desc="render", unit="icon", mininterval=2):
        images[i, j] = draw(list(STYLES.values())[i], shared[j])
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({"images": torch.from_numpy(images)}, path)
    path.with_suffix(".json").write_text(json.dumps({"styles": list(STYLES), "names": shared}))


def load(path: Path) -> Artwork:
    """Read what `render` wrote."""
    facts = json.loads(path.with_suffix(".json").read_text())
    return Artwork(facts["styles"], facts["names"], load_file(path)["images"])
