"""What the CLIP rewards share: images and texts as unit vectors, whichever library runs the model."""

from __future__ import annotations

import functools
import logging
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import normalize

from pagopt.embedded import scorer_folder
from pagopt.errors import RewardError
from pagopt_rewards.network import Network, TransformersNetwork, load_transformers, number_type
from pagopt_rewards.preprocessing import Rounding, preparation, preprocess
from pagopt_rewards.vocabulary import clip_tokenizer, tokenizer_files
from pagopt_rewards.weights import code_fingerprint

__all__ = ["OPEN_CLIP", "Encoder", "model_folder"]

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
OPEN_CLIP = "open_clip:"
SETTINGS = ["*.json", "*.txt"]
log = logging.getLogger("pagopt.rewards")


class Encoder:
    """A CLIP that turns images and texts into unit vectors; of a text it says once what is beyond the model's limit.

    Pictures are cropped where torchvision, OpenAI's CLIP and open_clip crop them, so that both libraries give the same
    numbers for the same weights.

    Args:
        model: "emoji" (the embedded scorer), a folder that holds a ``CLIPModel`` with its tokenizer, the id of one on
            the Hugging Face hub, which is downloaded on first use, or "open_clip:NAME/TAG", a model and a pretrained
            tag of open_clip, with ``pip install 'pagopt[openclip]'``. A finished :class:`Network` will do, too.
        weights: A checkpoint for "open_clip:NAME", a local file; ``None`` everywhere else.
        dtype: In what the network calculates: "float32", "bfloat16" or "float16". Vectors are float32 always.
        processor: A folder, or the id of a repository on the hub, with tokenizer and preprocessor_config.json; ``None``
            takes those beside the weights.
        rounding: "transformers" crops as its ``CLIPImageProcessor`` does; see :func:`preprocess`.

    Raises:
        PagoptError: If there is no such model, or it cannot be loaded. Weights are read from safetensors only, or with
            ``weights_only=True``.
    """

    def __init__(
        self,
        model: str | Path | Network,
        weights: str | None = None,
        dtype: str = "float32",
        processor: str | None = None,
        rounding: Rounding = "torchvision",
    ) -> None:
        number = number_type(dtype)
        if isinstance(model, Path):
            model = str(model)
        if not isinstance(model, str):
            if not hasattr(model, "prepare"):
                raise RewardError(f'`model` is "emoji", a folder, an id on the hub, or "open_clip:...", not {model!r}')
            self.network = model
        elif model.startswith(OPEN_CLIP):
            from pagopt_rewards.openclip import load_open_clip

            self.network = load_open_clip(model.removeprefix(OPEN_CLIP), weights, dtype)
        elif weights is not None:
            raise RewardError(
                f"`weights` belongs to a model of open_clip, such as open_clip:ViT-H-14, and {model!r} brings its own. "
                "Give their folder as `model`."
            )
        else:
            self.network = _transformers(model_folder(model), number, processor, rounding)
        self._texts: dict[str, Tensor] = {}

    @property
    def model(self) -> Any:
        """The network itself: a transformers ``CLIPModel``, or open_clip's own class."""
        return self.network.model

    @property
    def folder(self) -> Path:
        """Where its files are."""
        return self.network.folder

    @functools.cached_property
    def scale(self) -> float:
        """What the model multiplies a cosine by, before it becomes a probability: exp(logit_scale), 100 in most."""
        return self.network.scale()

    def move(self, device: torch.device) -> None:
        """Move the networks."""
        self.network.move(device)

    @torch.no_grad()
    def images(self, images: Sequence[Image.Image], projected: bool = True) -> Tensor:
        """Unit vectors of RGB images, float32 ``(n, d)`` on the CPU.

        Args:
            images: The images.
            projected: Whether into the space shared with texts; else what the image tower makes before that.
        """
        pixels = torch.stack([self.network.prepare(image) for image in images])
        seen = self.network.see(pixels) if projected else self.network.look(pixels)
        return normalize(seen.float(), dim=-1).cpu()

    @torch.no_grad()
    def features(self, images: Sequence[Image.Image]) -> Tensor:
        """What the image tower makes of RGB images in the space shared with texts, before it is normalised.

        Of a CLIP, this is what Frechet distances are measured in (Kynkaanniemi et al., arXiv 2203.06026).

        Returns:
            float32 ``(n, d)`` on the CPU.
        """
        pixels = torch.stack([self.network.prepare(image) for image in images])
        return self.network.see(pixels).float().cpu()

    @torch.no_grad()
    def texts(self, texts: Sequence[str]) -> Tensor:
        """Unit vectors of texts, float32 ``(n, d)`` on the CPU; each is computed once, cut at the model's length."""
        new = [text for text in dict.fromkeys(texts) if text not in self._texts]
        if new:
            self._say_what_is_cut(new)
            features = normalize(self.network.read(new).float(), dim=-1).cpu()
            self._texts.update(zip(new, features, strict=True))
        return torch.stack([self._texts[text] for text in texts])

    @functools.cached_property
    def fingerprint(self) -> str:
        """Hex digest of weights, configuration, and the code between a picture and its vector."""
        code = code_fingerprint("encoder", "network", "openclip", "preprocessing", "vocabulary")
        return self.network.fingerprint() + code

    def _say_what_is_cut(self, texts: Sequence[str]) -> None:
        """On the log, where it reaches stderr: a long prompt is no reason to end a run, nor to score it otherwise."""
        for text in texts:
            if lost := self.network.cut(text):
                log.warning(
                    "a prompt has more than the %d tokens that the text model reads: its score leaves out %r of %r",
                    self.network.limit - 2,
                    lost,
                    text,
                )


def model_folder(model: str) -> Path:
    """The folder of a model by name; see :class:`Encoder`."""
    if model != "emoji" and not HUB_ID.fullmatch(model) and _is_path(model) and not Path(model).expanduser().is_dir():
        raise RewardError(
            f"there is no folder {Path(model).expanduser()}. `model` is one that CLIPModel.save_pretrained made, the "
            'id of one on the Hugging Face hub (owner/name), "open_clip:NAME/TAG", or "emoji".'
        )
    if Path(model).expanduser().is_dir() or not HUB_ID.fullmatch(model):
        return scorer_folder(model)
    return _snapshot(model, [*SETTINGS, "model*.safetensors"], "*.safetensors", "")


def _is_path(name: str) -> bool:
    return name.startswith(("~", ".")) or any(separator in name for separator in ("/", os.sep))


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix in {".json", ".txt", ".safetensors"})


def _snapshot(repository: str, patterns: list[str], needed: str, argument: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        # First, because without a network the hub is asked several times before its cache is.
        found = Path(snapshot_download(repository, allow_patterns=patterns, local_files_only=True))
        if any(found.glob(needed)):
            return found
    except Exception:
        pass  # not here yet, and what follows says so
    try:
        return Path(snapshot_download(repository, allow_patterns=patterns))
    except Exception as error:
        raise RewardError(
            f"there is no folder {repository}, and the hub does not give {repository!r}: {type(error).__name__}: "
            f"{error}. Without a network, download it elsewhere and give the folder{argument}."
        ) from error


def _transformers(folder: Path, dtype: torch.dtype, processor: str | None, rounding: Rounding) -> Network:
    model = load_transformers(folder, dtype)
    beside = folder
    if processor is not None:
        local = Path(processor).expanduser()
        known = local.is_dir() or not HUB_ID.fullmatch(processor)
        beside = local if known else _snapshot(processor, SETTINGS, "merges.txt", " as `processor`")
    if not tokenizer_files(beside):
        raise RewardError(
            f"{beside} holds no tokenizer (tokenizer.json, or vocab.json and merges.txt), which the model in {folder} "
            "needs: put it there, as CLIPTokenizer.save_pretrained does."
        )
    tokenizer, words = clip_tokenizer(str(beside), beside, "")
    settings = preparation(beside, model.config.vision_config.image_size)
    files = [*_files(folder), *(_files(beside) if beside != folder else []), *words]
    return TransformersNetwork(
        model, tokenizer, lambda image: preprocess(image, settings, rounding), list(dict.fromkeys(files))
    )
