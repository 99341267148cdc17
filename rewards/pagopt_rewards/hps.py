"""Human Preference Score v2 and v2.1: Wu et al., "Human Preference Score v2", 2023 (arXiv 2306.09341).

The authors' code: https://github.com/tgxs002/HPSv2 (Apache-2.0); their package `hpsv2` runs as an isolated reward.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor

from pagopt.errors import RewardError
from pagopt.reward import Reward
from pagopt_rewards.conversion import clip_from_open_clip
from pagopt_rewards.encoder import Encoder
from pagopt_rewards.network import TransformersNetwork, number_type
from pagopt_rewards.preprocessing import letterbox
from pagopt_rewards.vocabulary import clean, clip_tokenizer
from pagopt_rewards.weights import checkpoint, code_fingerprint, read_weights, uncached

__all__ = ["HPS"]

REPOSITORY = "xswu/HPSv2"
FILES = {"2.0": "HPS_v2_compressed.pt", "2.1": "HPS_v2.1_compressed.pt"}
TOKENIZER = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"
HEAD = 80  # width of an attention head of ViT-H/14's image tower; 64 in its text tower


class HPS(Reward):
    """How much people prefer the image for its prompt: a CLIP ViT-H/14 tuned on 800,000 of their choices.

    The cosine similarity, from -1 to 1; pictures of today's models about 0.2 to 0.35. Equal to ``hpsv2.score`` in
    float32, which is what it calculates on a CPU; on a GPU it rounds to float16. The whole picture is seen, on a black
    square of 224 x 224 pixels.

    Args:
        version: "2.1" or "2.0".
        weights: HPS_v2.1_compressed.pt (2.0: HPS_v2_compressed.pt) of https://huggingface.co/xswu/HPSv2, or the folder
            that holds it; ``None`` takes the hub's cache, and downloads it (3.9 GB) on first use. Any other state dict
            of open_clip's ViT-H-14 will do, also one with other widths and depths, if its heads are as wide.
        tokenizer: A folder with CLIP's tokenizer (tokenizer.json, or vocab.json and merges.txt), or OpenAI's
            bpe_simple_vocab_16e6.txt.gz; ``None`` looks beside the weights, then in an installed open_clip, then on the
            hub.
        dtype: In what the network calculates: "float32", "bfloat16" or "float16".
    """

    reads_prompts = True

    def __init__(
        self,
        version: str | float = "2.1",
        weights: str | None = None,
        tokenizer: str | None = None,
        dtype: str = "float32",
    ) -> None:
        number = number_type(dtype)
        if str(version) not in FILES:  # a study's `version: 2.1` is a number
            raise RewardError(f"version is one of {', '.join(FILES)}, not {version!r}", reward=self.name)
        path = checkpoint(weights, REPOSITORY, FILES[str(version)])
        words, files = clip_tokenizer(tokenizer, path.parent, TOKENIZER)
        what = f"HPS v{version} (open_clip's ViT-H-14)"
        model = clip_from_open_clip(read_weights(path), path, what, number, vision_head=HEAD)
        text, edge = model.config.text_config, model.config.vision_config.image_size
        if words.eos_token_id != text.eos_token_id:
            raise RewardError(
                f"the tokenizer of {files[0].parent} ends a text with token {words.eos_token_id}, and {path} knows "
                f"{text.vocab_size} tokens, of which the last, {text.eos_token_id}, does that: take CLIP's own",
                reward=self.name,
            )
        network = TransformersNetwork(model, words, lambda image: letterbox(image, edge), [path, *files], clean)
        self.encoder = Encoder(network)

    def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> Tensor:
        """Preference for each image, given its own prompt."""
        return (self.encoder.images(images) * self.encoder.texts(prompts)).sum(dim=-1)

    def features(self, images: Sequence[Image.Image]) -> Tensor:
        """What the model sees in images, before normalisation, float32 ``(n, d)``: for Frechet distances, say."""
        return self.encoder.features(images)

    def move(self, device: torch.device) -> None:
        """Move the CLIP model."""
        self.encoder.move(device)

    def identity(self) -> str:
        """Fingerprint of the weights, and of the code that converts them."""
        return self.encoder.fingerprint + code_fingerprint("conversion")

    @classmethod
    def missing(cls) -> str:
        """Which of the published files the hub's cache does not hold yet."""
        if missing := uncached(REPOSITORY, FILES["2.1"], "3.9 GB"):
            return missing
        return "" if importlib.util.find_spec("open_clip") else uncached(TOKENIZER, "merges.txt")
