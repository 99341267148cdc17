"""CLIP models of open_clip: Ilharco et al., OpenCLIP, https://github.com/mlfoundations/open_clip.

Preprocessing, tokenizer and network are open_clip's own, so any of its models gives its own numbers.
"""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from pagopt.errors import RewardError, UnknownName
from pagopt_rewards.weights import check_tensors, read_weights, tensors_fingerprint

__all__ = ["OpenClipNetwork", "load_open_clip"]

INSTALL = "pip install 'pagopt[openclip]'"
PRECISIONS = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}
SCHEMES = ("hf-hub:", "local-dir:")


class OpenClipNetwork:
    """A model of open_clip with its preprocessing and tokenizer.

    Args:
        model: The model, in evaluation mode.
        prepare: Its preprocessing for evaluation.
        tokenizer: Its tokenizer.
        folder: Where its weights are.
        dtype: In what it calculates.
    """

    def __init__(self, model: Any, prepare: Any, tokenizer: Any, folder: Path, dtype: torch.dtype) -> None:
        self.model, self._prepare, self.tokenizer, self.folder, self.dtype = model, prepare, tokenizer, folder, dtype
        self.limit = int(tokenizer.context_length)
        # timm's towers do not say; their text towers do, and a projection's columns.
        said = [getattr(part, "output_dim", None) for part in (model.visual, getattr(model, "text", None))]
        self.width = int(next(filter(None, said), None) or model.text_projection.shape[-1])
        conv = getattr(model.visual, "conv1", None)
        self.patch = int(conv.kernel_size[0]) if conv is not None and conv.kernel_size == conv.stride else 0

    def prepare(self, image: Image.Image) -> Tensor:
        """The pixels of an RGB image."""
        return self._prepare(image)  # type: ignore[no-any-return]

    def see(self, pixels: Tensor) -> Tensor:
        """Features of pixels."""
        return self.model.encode_image(pixels.to(self.model.logit_scale.device, self.dtype))  # type: ignore[no-any-return]

    def look(self, pixels: Tensor) -> Tensor:
        """Features of pixels before their projection."""
        tower, seen = self.model.visual, None
        pixels = pixels.to(self.model.logit_scale.device, self.dtype)
        if isinstance(getattr(tower, "trunk", None), torch.nn.Module):  # one of timm, whose projection is its head
            seen = tower.trunk(pixels)
        elif isinstance(getattr(tower, "proj", None), Tensor):
            projection, tower.proj = tower.proj, None
            try:
                seen = tower(pixels)
            finally:
                tower.proj = projection
        seen = seen[0] if isinstance(seen, tuple) else seen  # the rest are CoCa's tokens
        if seen is None or seen.ndim != 2:
            raise RewardError(
                f"this image tower of open_clip ({type(tower).__name__}) has no projection that could be left out. "
                "Compare pictures in the space that it shares with texts: `projected: true`."
            )
        return seen  # type: ignore[no-any-return]

    def read(self, texts: Sequence[str]) -> Tensor:
        """Features of texts."""
        return self.model.encode_text(self.tokenizer(list(texts)).to(self.model.logit_scale.device))  # type: ignore[no-any-return]

    def cut(self, text: str) -> str:
        """What lies beyond the limit, as the tokenizer spells it."""
        if hasattr(self.tokenizer, "encode"):  # CLIP's own, without the two tokens around a text
            tokens, decode, kept = self.tokenizer.encode(text), self.tokenizer.decode, self.limit - 2
        else:  # one of transformers, which ends a text with a token of its own
            tokens, decode = self.tokenizer.tokenizer(text).input_ids[:-1], self.tokenizer.tokenizer.decode
            kept = self.limit - 1
        return str(decode(tokens[kept:])).strip() if len(tokens) > kept else ""

    def scale(self) -> float:
        """exp(logit_scale)."""
        return float(self.model.logit_scale.detach().float().exp())

    def move(self, device: torch.device) -> None:
        """Move the model."""
        self.model.to(device)

    def fingerprint(self) -> str:
        """sha256 over samples of each tensor, and over how pictures are prepared."""
        settings = json.dumps(self.model.visual.preprocess_cfg, sort_keys=True, default=str)
        return tensors_fingerprint(self.model.state_dict()) + f" {settings} {self.limit}"


def load_open_clip(name: str, weights: str | None, dtype: str) -> OpenClipNetwork:
    """A model of open_clip.

    Args:
        name: "ViT-H-14/laion2b_s32b_b79k", a model and a pretrained tag, downloaded on first use; "ViT-H-14" with
            ``weights``; or "hf-hub:owner/name" and "local-dir:folder", as open_clip writes them.
        weights: A local file with a state dict of that model, safetensors or loadable with ``weights_only=True``.
        dtype: "float32", "bfloat16" or "float16".

    Raises:
        RewardError: If open_clip is not installed or cannot be imported, the weights do not fit, or nothing gives them.
        UnknownName: If open_clip knows no such model or tag.
    """
    open_clip = _imported()
    stem, _, tag = (name, "", "") if name.startswith(SCHEMES) else name.partition("/")
    file = None if weights is None else Path(weights).expanduser()
    if not name.startswith(SCHEMES):
        _check_names(open_clip, stem, tag, file)
    elif file is not None:
        raise RewardError(f"open_clip:{name} brings its weights, so `weights` must be left out")
    options: dict[str, Any] = {"precision": PRECISIONS[dtype], "pretrained_text": False}
    if tag:  # open_clip only warns where the tag was trained with the other activation
        options["force_quick_gelu"] = bool(open_clip.get_pretrained_cfg(stem, tag).get("quick_gelu"))
    try:
        with _quiet():
            model, _, prepare = open_clip.create_model_and_transforms(stem, tag or None, **options)
            tokenizer = open_clip.get_tokenizer(stem)
    except Exception as error:
        raise RewardError(
            f"open_clip cannot make {name!r}: {type(error).__name__}: {error}. Without a network, download its weights "
            "elsewhere and give the file as `weights`."
        ) from error
    if file is not None:
        _load(open_clip, model, file, f"open_clip's {stem}")
    folder = file.parent if file else Path(name.removeprefix("local-dir:"))
    number = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[dtype]
    return OpenClipNetwork(model.eval(), prepare, tokenizer, folder, number)


def _imported() -> Any:
    try:
        import open_clip
    except ModuleNotFoundError as error:
        raise RewardError(f"models of open_clip need {error.name}: {INSTALL}") from error
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
        raise RewardError(
            f"open_clip imports torchvision, and that was built for another torch ({error}). Install the one that "
            f"belongs to torch {torch.__version__} from where that torch came; for a CPU build it is: pip install "
            "--force-reinstall --no-deps torchvision --index-url https://download.pytorch.org/whl/cpu"
        ) from error
    return open_clip


def _check_names(open_clip: Any, stem: str, tag: str, file: Path | None) -> None:
    if stem not in open_clip.list_models():
        raise UnknownName("open_clip model", stem, open_clip.list_models(), 'Write "open_clip:NAME/TAG".')
    tags = open_clip.list_pretrained_tags_by_model(stem)
    if tag and file is not None:
        raise RewardError(f"either the pretrained tag {tag!r} or `weights`, not both: open_clip:{stem} takes the file")
    if tag and tag not in tags:
        raise UnknownName(f"pretrained tag of {stem}", tag, tags)
    if not tag and file is None:
        raise RewardError(
            f"which weights for open_clip:{stem}? Name a pretrained tag, open_clip:{stem}/TAG ({', '.join(tags)}), "
            "or give a file as `weights`."
        )
    if file is not None and not file.is_file():
        raise RewardError(f"there is no checkpoint {file} for open_clip:{stem}")


def _load(open_clip: Any, model: Any, file: Path, what: str) -> None:
    """Strictly; open_clip's own loader would stretch position embeddings of another size to fit."""
    state = {name.removeprefix("module."): tensor for name, tensor in read_weights(file).items()}
    if "positional_embedding" in state and not hasattr(model, "positional_embedding"):
        state = open_clip.factory.convert_to_custom_text_state_dict(state)
    wanted = model.state_dict()
    for name in ("logit_scale", "logit_bias"):  # a number, or a vector of one
        if name in state and name in wanted and state[name].numel() == wanted[name].numel():
            state[name] = state[name].reshape(wanted[name].shape)
    state.pop("text.transformer.embeddings.position_ids", None)  # of older transformers
    check_tensors(state, {name: tensor.shape for name, tensor in wanted.items()}, file, what)
    model.load_state_dict(state)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what open_clip says on the root logger, such as that weights, which follow, were not loaded."""
    root, handler = logging.getLogger(), logging.NullHandler()
    level = root.level
    root.addHandler(handler)  # else its first message would set up the application's logging
    root.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        root.setLevel(level)
        root.removeHandler(handler)
