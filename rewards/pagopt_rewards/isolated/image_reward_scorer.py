"""How the package image-reward 1.5 is called. Runs in its environment."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

warnings.filterwarnings("ignore")  # the package's imports warn of what nobody can change here

import torch  # noqa: E402
from ImageReward.ImageReward import ImageReward as Network  # type: ignore[import-not-found] # noqa: E402
from ImageReward.models.BLIP import blip  # type: ignore[import-not-found] # noqa: E402
from transformers import BertTokenizer  # noqa: E402

__all__ = ["ImageReward"]

LENGTH = 35  # tokens of a prompt, in the package's own `score`


class ImageReward:
    """The package's model, with its preprocessing, tokenizer and network; a batch at a time.

    The package's ``score`` takes one image; ``score_gard`` is its own way for several.

    Args:
        weights: ImageReward.pt.
        config: med_config.json.
        tokenizer: vocab.txt of bert-base-uncased.
        device: Such as "cpu" or "cuda:0".
    """

    def __init__(self, weights: str, config: str, tokenizer: str, device: str = "cpu") -> None:
        # The package asks the hub for "bert-base-uncased"; the same tokenizer comes from its file.
        words = BertTokenizer(str(Path(tokenizer).expanduser()), do_lower_case=True)
        blip.BertTokenizer = type("Here", (), {"from_pretrained": staticmethod(lambda name: words)})
        self.model = Network(med_config=str(Path(config).expanduser()), device=device)
        state = torch.load(str(Path(weights).expanduser()), map_location="cpu", weights_only=True)
        missing, unexpected = self.model.load_state_dict(state, strict=False)
        # The package takes whatever fits; a checkpoint of something else would score with numbers nobody chose.
        if any(not name.endswith("position_ids") for name in [*missing, *unexpected]):
            raise ValueError(f"{weights} is no ImageReward.pt: missing {missing[:3]}, unexpected {unexpected[:3]}")
        self.model.to(device).eval()
        self.device = device
        self.tokens: dict[str, Any] = {}

    @torch.no_grad()
    def __call__(self, images: list[Any], prompts: list[str]) -> torch.Tensor:
        """Scores of shape (n,)."""
        for prompt in prompts:
            if prompt not in self.tokens:
                self._say_what_is_cut(prompt)
                self.tokens[prompt] = self.model.blip.tokenizer(
                    prompt, padding="max_length", truncation=True, max_length=LENGTH, return_tensors="pt"
                ).to(self.device)
        found = [self.tokens[prompt] for prompt in prompts]
        pixels = torch.stack([self.model.preprocess(image) for image in images]).to(self.device)
        ids = torch.cat([each.input_ids for each in found])
        mask = torch.cat([each.attention_mask for each in found])
        return self.model.score_gard(ids, mask, pixels)[:, 0]  # type: ignore[no-any-return]

    def _say_what_is_cut(self, prompt: str) -> None:
        """The package does not: once for each prompt, as the tokenizer spells it."""
        tokens = self.model.blip.tokenizer.tokenize(prompt)
        if len(tokens) > LENGTH - 2:
            lost = self.model.blip.tokenizer.convert_tokens_to_string(tokens[LENGTH - 2 :]).removeprefix("##")
            print(f"a prompt has more than {LENGTH - 2} tokens: its score leaves out {lost!r} of {prompt!r}")
