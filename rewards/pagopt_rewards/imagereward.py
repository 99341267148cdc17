"""ImageReward: Xu et al., "ImageReward: Learning and Evaluating Human Preferences", NeurIPS 2023 (arXiv 2304.05977).

The authors' code: https://github.com/THUDM/ImageReward (Apache-2.0); their package `image-reward` runs as an isolated
reward.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from pagopt.errors import RewardError
from pagopt.reward import Reward
from pagopt_rewards.blip import load_blip
from pagopt_rewards.network import number_type
from pagopt_rewards.preprocessing import MEAN, STD, preprocess
from pagopt_rewards.weights import checkpoint, code_fingerprint, fingerprint, read_weights, uncached

__all__ = ["ImageReward"]

REPOSITORY, FILE = "THUDM/ImageReward", "ImageReward.pt"
WORDS, VOCABULARY = "google-bert/bert-base-uncased", "vocab.txt"
MODEL = "ImageReward (BLIP with ViT-L/16 and BERT-base)"
LENGTH = 35  # tokens of a prompt, [CLS] and [SEP] included
CENTRE, SPREAD = 0.16717362830052426, 1.0333394966054072  # of the network's raw scores, measured by the authors
HEAD = re.compile(r"mlp\.layers\.(\d+)\.weight")
log = logging.getLogger("pagopt.rewards")


class ImageReward(Reward):
    """How much people prefer the image for its prompt: BLIP tuned on 137,000 of their choices.

    In standard deviations: 0 is an average picture of 2022's models, most lie between -2 and 2. Equal to ``score`` of
    the package `image-reward` 1.5. The picture is resized to 224 on its shorter side and cropped to the middle. The
    text network looks at the picture while it reads, so each pair of both is calculated; of a prompt only the
    splitting into tokens is done once. It reads 35 tokens, and says once what of a prompt lies beyond them.

    Args:
        weights: ImageReward.pt of https://huggingface.co/THUDM/ImageReward, or the folder that holds it; ``None`` takes
            the hub's cache, and downloads it (1.8 GB) on first use. Other widths and depths will do, if each attention
            head is 64 wide. Of its tensors two projections are not used.
        tokenizer: vocab.txt of https://huggingface.co/google-bert/bert-base-uncased, or the folder that holds it;
            ``None`` looks beside the weights, then in the hub's cache, then on the hub.
        dtype: In what the networks calculate: "float32" (the authors' numbers), "bfloat16" or "float16". The last
            layers calculate in float32 always.

    Raises:
        RewardError: If a file is not there, is damaged, or belongs to another model.
    """

    reads_prompts = True

    def __init__(self, weights: str | None = None, tokenizer: str | None = None, dtype: str = "float32") -> None:
        number = number_type(dtype)
        path = checkpoint(weights, REPOSITORY, FILE)
        words = _vocabulary(tokenizer, path.parent)
        state = read_weights(path)
        self.blip = load_blip(state, path, MODEL, number)
        self.head = _head(state, path, self.blip.width)
        self.tokenizer = _tokenizer(words)
        known = self.tokenizer.get_vocab_size()
        if known != self.blip.words or self.blip.places < LENGTH:
            raise RewardError(
                f"{words} with [DEC] and [ENC] has {known} tokens, and {path} knows {self.blip.words} of them, in "
                f"texts of up to {self.blip.places} ({LENGTH} are needed): take {VOCABULARY} of {WORDS}, and {FILE}",
                reward=self.name,
            )
        self._settings = {"size": self.blip.edge, "image_mean": MEAN, "image_std": STD}
        self._files = [path, words]
        self._tokens: dict[str, list[int]] = {}

    def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> Tensor:
        """Preference for each image, given its own prompt."""
        pixels = torch.stack([preprocess(image, self._settings, "torchvision") for image in images])
        for prompt in prompts:
            if prompt not in self._tokens:
                self._tokens[prompt] = self.tokenize(prompt)
        # All as long as the longest possible, as the authors do: no score depends on the other prompts of a batch.
        tokens = torch.zeros(len(prompts), LENGTH, dtype=torch.int64)
        mask = torch.zeros_like(tokens)
        for row, prompt in enumerate(prompts):
            found = torch.tensor(self._tokens[prompt])
            tokens[row, : len(found)], mask[row, : len(found)] = found, 1
        raw: Tensor = self.head(self.blip.read(tokens, mask, pixels)).squeeze(-1)
        return (raw - CENTRE) / SPREAD

    def tokenize(self, prompt: str) -> list[int]:
        """The numbers of a prompt's tokens, at most 35; what is beyond them is said on the log."""
        found = self.tokenizer.encode(prompt)
        if found.overflowing:
            lost = prompt[found.offsets[-2][1] :].strip()  # the last is [SEP]
            log.warning(
                "a prompt has more than the %d tokens that the text model reads: its score leaves out %r of %r",
                LENGTH - 2,
                lost,
                prompt,
            )
        return [int(number) for number in found.ids]

    def move(self, device: torch.device) -> None:
        """Move all networks."""
        self.blip.move(device)
        self.head.to(device)

    def identity(self) -> str:
        """Fingerprint of weights and vocabulary, and of the code between a picture and its score."""
        return fingerprint(*self._files) + code_fingerprint("blip", "preprocessing")

    @classmethod
    def missing(cls) -> str:
        """Which of the published files the hub's cache does not hold yet."""
        return uncached(REPOSITORY, FILE, "1.8 GB") or uncached(WORDS, VOCABULARY)


def _vocabulary(location: str | None, beside: Path) -> Path:
    """BERT's vocabulary, one token a line."""
    if location is None and (beside / VOCABULARY).is_file():
        return beside / VOCABULARY
    try:
        return checkpoint(location, WORDS, VOCABULARY)
    except RewardError as error:
        if location is not None:
            raise
        raise RewardError(
            f"no tokenizer: {error.__cause__ or error}. Without a network, put {VOCABULARY} of "
            f"https://huggingface.co/{WORDS} into {beside}, or give its path as the reward's argument `tokenizer`."
        ) from error


def _tokenizer(words: Path) -> Any:
    """BERT's tokenizer for text without capitals, with BLIP's two tokens, cut at 35."""
    from tokenizers import BertWordPieceTokenizer

    try:
        made = BertWordPieceTokenizer(str(words), lowercase=True)
    except Exception as error:
        raise RewardError(f"cannot read the vocabulary {words}: {type(error).__name__}: {error}") from error
    made.add_special_tokens(["[DEC]", "[ENC]"])
    made.enable_truncation(LENGTH)
    return made


def _head(state: dict[str, Tensor], path: Path, width: int) -> nn.Sequential:
    """The layers that make one number of the text network's first token; there is nothing between them."""
    layers, inputs = [], width
    for index in sorted(int(match[1]) for match in map(HEAD.fullmatch, state) if match):
        weight, bias = (state.get(f"mlp.layers.{index}.{part}", torch.empty(0)) for part in ("weight", "bias"))
        if weight.shape != (bias.numel(), inputs):
            break
        layer = nn.Linear(inputs, bias.numel())
        layer.load_state_dict({"weight": weight.float(), "bias": bias.float()})
        layers.append(layer)
        inputs = bias.numel()
    if inputs != 1 or not layers:
        shapes = {name: tuple(each.shape) for name, each in state.items() if name.startswith("mlp.")}
        raise RewardError(
            f"{path} is no checkpoint of {MODEL}: its layers mlp.layers.* must lead from {width} numbers to one, and "
            f"are {shapes}. Give the file made for that model."
        )
    return nn.Sequential(*layers).eval().requires_grad_(False)
