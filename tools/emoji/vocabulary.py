"""The tokenizer: CLIP's format, byte-pair merges learned on emoji names, keywords and style words."""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPTokenizer

from tools.emoji.artwork import STYLES, install
from tools.emoji.captions import caption, name_of

__all__ = ["MAX_LENGTH", "keywords", "train_tokenizer"]

MAX_LENGTH = 12
BOS, EOS = "<|startoftext|>", "<|endoftext|>"


def keywords() -> list[str]:
    """All words of `emojilib`, which later versions use as synonyms."""
    table: dict[str, list[str]] = json.loads((install() / "emojilib" / "dist" / "emoji-en-US.json").read_text())
    return sorted({word.replace("_", " ") for words in table.values() for word in words})


def train_tokenizer(folder: Path, names: list[str], words: list[str], *, vocabulary: int = 3000) -> CLIPTokenizer:
    """Learn the merges on every caption of `names` and on `words`; save a `CLIPTokenizer` to `folder`."""
    learner = Tokenizer(models.BPE(unk_token=EOS, end_of_word_suffix="</w>", continuing_subword_prefix=""))
    learner.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    # The same split as CLIPTokenizer's own, so that the merges learned here are those that apply there.
    learner.pre_tokenizer = CLIPTokenizer().backend_tokenizer.pre_tokenizer
    learner.decoder = decoders.ByteLevel()
    corpus = [caption(style, name_of(name)) for style in STYLES for name in names] + words
    learner.train_from_iterator(
        corpus,
        trainers.BpeTrainer(
            vocab_size=vocabulary,
            min_frequency=2,
            special_tokens=[BOS, EOS],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            end_of_word_suffix="</w>",
            show_progress=False,
        ),
    )
    learned = json.loads(learner.to_str())["model"]
    tokenizer = CLIPTokenizer(
        vocab=learned["vocab"],
        merges=[tuple(pair) for pair in learned["merges"]],
        bos_token=BOS,
        eos_token=EOS,
        unk_token=EOS,
        pad_token=EOS,
        model_max_length=MAX_LENGTH,
    )
    tokenizer.save_pretrained(folder)
    return tokenizer
