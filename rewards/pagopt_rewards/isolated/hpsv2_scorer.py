"""How the package hpsv2 1.2.0 is called. Runs in its environment."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

warnings.filterwarnings("ignore")  # the package's imports warn of what nobody can change here

import torch  # noqa: E402
from hpsv2.src.open_clip import (  # type: ignore[import-not-found] # noqa: E402
    create_model_and_transforms,
    get_tokenizer,
    tokenizer,
)

__all__ = ["HPSv2"]

LENGTH = 77  # tokens of a prompt, two of which mark beginning and end


class HPSv2:
    """The package's model, with its preprocessing, tokenizer and network, loaded once; a batch at a time.

    The package's own ``score`` loads the checkpoint again on every call, after 4 GB of weights that it overwrites with
    it. Here is what it does between: on a GPU it rounds to float16 (autocast), on a CPU it does not.

    Args:
        weights: HPS_v2.1_compressed.pt or HPS_v2_compressed.pt.
        device: Such as "cpu" or "cuda:0".
    """

    def __init__(self, weights: str, device: str = "cpu") -> None:
        model, _, self.prepare = create_model_and_transforms(
            "ViT-H-14", None, precision="amp", device=device, light_augmentation=True, aug_cfg={}, output_dict=True
        )
        checkpoint = torch.load(str(Path(weights).expanduser()), map_location=device, weights_only=True)
        model.load_state_dict(checkpoint["state_dict"])
        self.model = model.to(device).eval()
        self.tokenize = get_tokenizer("ViT-H-14")
        self.device = torch.device(device)
        self.texts: dict[str, torch.Tensor] = {}

    @torch.no_grad()
    def __call__(self, images: list[Any], prompts: list[str]) -> torch.Tensor:
        """Scores of shape (n,)."""
        pixels = torch.stack([self.prepare(image) for image in images]).to(self.device)
        with torch.autocast("cuda", enabled=self.device.type == "cuda"):
            new = [prompt for prompt in dict.fromkeys(prompts) if prompt not in self.texts]
            if new:
                for prompt in new:
                    self._say_what_is_cut(prompt)
                tokens = self.tokenize(new).to(self.device)
                self.texts.update(zip(new, self.model.encode_text(tokens, normalize=True)))  # noqa: B905 - Python 3.9
            texts = torch.stack([self.texts[prompt] for prompt in prompts])
            return (self.model.encode_image(pixels, normalize=True) * texts).sum(dim=-1)  # type: ignore[no-any-return]

    def _say_what_is_cut(self, prompt: str) -> None:
        """The package does not: once for each prompt, as the tokenizer spells it."""
        tokens = tokenizer._tokenizer.encode(prompt)
        if len(tokens) > LENGTH - 2:
            lost = tokenizer._tokenizer.decode(tokens[LENGTH - 2 :]).strip()
            print(f"a prompt has more than {LENGTH - 2} tokens: its score leaves out {lost!r} of {prompt!r}")
