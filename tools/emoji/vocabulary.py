"""The tokenizer: CLIP's format, byte-pair merges learned on emoji names, keywords and style words."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPTokenizer

from tools.emoji.artwork import STYLES, install
from tools.emoji.captions import caption, name_of

__all__ = ["MAX_LENGTH", "keywords", "synonyms", "train_tokenizer"]

MAX_LENGTH = 12
BOS, EOS = "<|startoftext|>", "<|endoftext|>"


def _keyword_table() -> dict[str, list[str]]:
    """Keywords of every emoji character in `emojilib`; the first is its name."""
    table: dict[str, list[str]] = json.loads((install() / "emojilib" / "dist" / "emoji-en-US.json").read_text())
    return {emoji: [word.replace("_", " ").lower() for word in words] for emoji, words in table.items()}


def keywords() -> list[str]:
    """All words of `emojilib`: the tokenizer learns them."""
    return sorted({word for words in _keyword_table().values() for word in words})


def synonyms(names: list[str], *, shared_by: int = 2, most: int = 4) -> dict[str, list[str]]:
    """Other words for each icon name: `emojilib` keywords of letters only that at most `shared_by` of the names have.

    A word that names another icon ("sun" for "sun with face") is no synonym.
    """
    characters: dict[str, str] = json.loads((install() / "@iconify-json" / "noto" / "chars.json").read_text())
    table = {emoji.replace("\ufe0f", ""): words for emoji, words in _keyword_table().items()}
    found: dict[str, list[str]] = {name: [] for name in names}
    for code, name in characters.items():
        emoji = "".join(chr(int(part, 16)) for part in code.split("-")).replace("\ufe0f", "")
        if name in found and not found[name]:
            found[name] = [w for w in table.get(emoji, []) if w.replace(" ", "").isalpha() and w.isascii()]
    taken = {name_of(name) for name in names} | set(STYLES)
    count = Counter(word for words in found.values() for word in set(words))
    return {
        name: [w for w in dict.fromkeys(words) if count[w] <= shared_by and w not in taken][:most]
        for name, words in found.items()
    }


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
