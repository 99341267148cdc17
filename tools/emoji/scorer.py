"""The scorer: a small CLIP that judges pictures, also blurred and half-finished ones, by content and by style."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPTokenizer

from tools.emoji.artwork import Artwork
from tools.emoji.augment import shift_scale, to_unit
from tools.emoji.captions import caption, content, name_of
from tools.emoji.degrade import degrade, spoil
from tools.emoji.imperfect import Bank
from tools.emoji.open_clip import save_open_clip
from tools.emoji.store import save_half
from tools.emoji.training import MovingAverage, Stage

__all__ = ["ScorerStage", "build_scorer", "save_scorer"]


def build_scorer(tokenizer: CLIPTokenizer, *, width: int = 128, layers: int = 4) -> CLIPModel:
    """A ViT on 8 x 8 patches of 64 x 64 pictures and a small text tower."""
    tokens = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    config = CLIPConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": width,
            "intermediate_size": 4 * width,
            "num_hidden_layers": 2,
            "num_attention_heads": width // 32,
            "max_position_embeddings": tokenizer.model_max_length,
            "hidden_act": "gelu",
            "projection_dim": width,
            **tokens,
        },
        vision_config={
            "hidden_size": width,
            "intermediate_size": 4 * width,
            "num_hidden_layers": layers,
            "num_attention_heads": width // 32,
            "image_size": 64,
            "patch_size": 8,
            "hidden_act": "gelu",
            "projection_dim": width,
        },
        projection_dim=width,
    )
    model = CLIPModel(config)
    nn.init.normal_(model.text_model.embeddings.token_embedding.weight, std=0.3)
    nn.init.normal_(model.text_model.embeddings.position_embedding.weight, std=0.1)
    return model


SPOILT_SHARE = 0.2
CLEAN_SHARE = 0.5
CONTENTS = 256
"""Names that a picture is told from in one step."""


def doubtful_cross_entropy(logits: torch.Tensor, labels: torch.Tensor, doubt: torch.Tensor) -> torch.Tensor:
    """Cross-entropy whose label smoothing differs by row: `doubt` is (B,) in [0, 1], 1 asks for no preference."""
    log_p = logits.log_softmax(dim=1)
    right = log_p.gather(1, labels[:, None])[:, 0]
    return -((1 - doubt) * right + doubt * log_p.mean(dim=1)).mean()


class ScorerStage(Stage):
    """Which content, which style, which of the captions in this batch: three cross-entropies, label-smoothed.

    A fifth of the pictures is spoilt in the way of too strong a guidance, and there the scorer learns to be in doubt,
    so that contrast and sharpness do not pass for style.

    Half of the pictures are artwork, every other one degraded; half (if there is a bank) are the model's own imperfect
    pictures with the label that they were made from. Of the artwork, half is from the first `focus` names (those the
    model draws), the rest from all names: more of a style to learn from. Held-out pairs never occur.
    """

    def __init__(
        self,
        artwork: Artwork,
        held_out: list[tuple[int, int]],
        tokenizer: CLIPTokenizer,
        *,
        bank: Bank | None,
        steps: int,
        focus: int | None = None,
        batch: int = 64,
        lr: float = 1e-3,
        seed: int = 4,
        synonyms: Mapping[str, Sequence[str]] | None = None,
        model: CLIPModel | None = None,
    ) -> None:
        super().__init__(steps=steps, lr=lr, batch=batch, seed=seed, weight_decay=0.05)
        self.artwork, self.bank, self.tokenizer = artwork, bank, tokenizer
        self.names = [name_of(name) for name in artwork.names]
        self.synonyms = [(synonyms or {}).get(name, ()) for name in artwork.names]
        absent = set(held_out)
        pairs = [(s, n) for n in range(len(self.names)) for s in range(len(artwork.styles)) if (s, n) not in absent]
        self.pairs = torch.tensor(pairs)
        self.focused = self.pairs[self.pairs[:, 1] < (focus or len(self.names))]
        torch.manual_seed(seed)
        self.model = model or build_scorer(tokenizer)
        self.average = MovingAverage(self.model)

    def trained(self) -> nn.Module:
        return self.model

    def _texts(self, captions: list[str]) -> torch.Tensor:
        encoded = self.tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt")
        features = self.model.get_text_features(encoded.input_ids.to(self.device)).pooler_output
        return F.normalize(features, dim=-1)

    def _pictures(self, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        own = self.batch // 2 if self.bank is not None else 0
        wide = (self.batch - own) // 2
        rows = torch.cat(
            [
                table[torch.randint(len(table), (count,), generator=generator)]
                for table, count in ((self.focused, self.batch - own - wide), (self.pairs, wide))
            ]
        )
        real = shift_scale(to_unit(self.artwork.images[rows[:, 0], rows[:, 1]]), generator, shift=3, scale=(0.8, 1.1))
        clean = torch.rand(len(real), 1, 1, 1, generator=generator) < CLEAN_SHARE
        pictures, labels = [torch.where(clean, real, degrade(real, generator))], [rows]
        if self.bank is not None:
            chosen = torch.randint(len(self.bank.images), (own,), generator=generator)
            pictures.append(degrade(to_unit(self.bank.images[chosen]), generator, strength=0.4))
            labels.append(self.bank.labels[chosen])
        shown, spoilt = torch.cat(pictures), torch.rand(self.batch, generator=generator) < SPOILT_SHARE
        doubt = torch.full((self.batch,), 0.05)
        shown[spoilt], change = spoil(shown[spoilt], generator)
        doubt[spoilt] = (0.05 + 4 * change).clamp(max=0.8)
        return shown, torch.cat(labels), doubt

    def loss(self, step: int, generator: torch.Generator) -> dict[str, torch.Tensor]:
        pictures, labels, doubt = (x.to(self.device) for x in self._pictures(generator))
        features = self.model.get_image_features(pictures).pooler_output
        features = F.normalize(features, dim=-1)
        unique, which = torch.unique(labels, dim=0, return_inverse=True)
        # Both orders of style and content are read alike.
        styled = [
            caption(
                self.artwork.styles[s], content(self.names[n], self.synonyms[n], generator), style_first=bool(i % 3)
            )
            for i, (s, n) in enumerate(unique.tolist())
        ]
        # Of the contents that are not in this batch, a sample is enough.
        present, content_label = torch.unique(labels[:, 1], return_inverse=True)
        others = [n for n in torch.randperm(len(self.names), generator=generator).tolist() if n not in present]
        shown = [*present.tolist(), *others[: CONTENTS - len(present)]]
        contents = [self.names[n] for n in shown]
        texts = self._texts([*contents, *self.artwork.styles, *styled])
        logits = self.model.logit_scale.exp().clamp(max=50) * features @ texts.T
        count, styles = len(contents), len(self.artwork.styles)
        by_name, by_style, by_caption = logits.split([count, styles, len(styled)], dim=1)
        losses = {
            "content": doubtful_cross_entropy(by_name, content_label, doubt),
            "style": doubtful_cross_entropy(by_style, labels[:, 0], doubt),
            "pair": doubtful_cross_entropy(by_caption, which, doubt),
        }
        return {"loss": torch.stack(list(losses.values())).sum(), **losses}

    def on_train_batch_end(self, outputs: object, batch: object, batch_idx: int) -> None:
        self.average.update(self.model, self.global_step)


def save_scorer(model: CLIPModel, tokenizer: CLIPTokenizer, folder: Path) -> None:
    """Write model, tokenizer and preprocessing to one folder that transformers' CLIP classes and open_clip read."""
    save_half(model, folder)
    tokenizer.save_pretrained(folder)
    save_open_clip(model, tokenizer, folder)
    size = {"height": 64, "width": 64}
    processor = CLIPImageProcessor(
        do_resize=True,
        size={"shortest_edge": 64},
        do_center_crop=True,
        crop_size=size,
        image_mean=[0.5, 0.5, 0.5],
        image_std=[0.5, 0.5, 0.5],
    )
    processor.save_pretrained(folder)
