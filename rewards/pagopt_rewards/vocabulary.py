"""CLIP's byte-pair vocabulary: where its files may lie, and a tokenizer made from them."""

from __future__ import annotations

import gzip
import html
import importlib.util
import unicodedata
from pathlib import Path
from typing import Any

from pagopt.errors import RewardError

__all__ = ["BPE_FILE", "clean", "clip_tokenizer", "tokenizer_files"]

BPE_FILE = "bpe_simple_vocab_16e6.txt.gz"
FILES = ("tokenizer.json", "vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json", BPE_FILE)
MERGES = 49152 - 256 - 2  # of the 262,144 in the file, as many as CLIP was trained with
QUOTES = str.maketrans("‘’‚‛“”„‟ʼ", "''''\"\"\"\"'")
LIGATURES = {chr(code): unicodedata.normalize("NFKC", chr(code)) for code in range(0xFB00, 0xFB07)}
# Letters of the width of Chinese characters, and the space of that width.
WIDE = {chr(code): unicodedata.normalize("NFKC", chr(code)) for code in (0x3000, *range(0xFF01, 0xFFF0))}
PLAIN = str.maketrans({**LIGATURES, **WIDE})


def tokenizer_files(folder: Path) -> list[Path]:
    """The files in a folder that make a CLIP tokenizer; empty when there is none."""
    found = [folder / name for name in FILES if (folder / name).is_file()]
    names = {path.name for path in found}
    return found if names & {"tokenizer.json", BPE_FILE} or {"vocab.json", "merges.txt"} <= names else []


def clip_tokenizer(location: str | None, beside: Path, repository: str) -> tuple[Any, list[Path]]:
    """A transformers ``CLIPTokenizer`` and the files it was made from.

    Args:
        location: A folder, or CLIP's own ``bpe_simple_vocab_16e6.txt.gz``, as the user gave it. ``None`` looks in
            ``beside``, then in an installed open_clip, then on the Hugging Face hub.
        beside: The folder of the checkpoint.
        repository: The one on the hub that has it.

    Raises:
        RewardError: If there is none; it says which files to put where.
    """
    files = _found(location, beside, repository)
    if len(files) == 1 and files[0].suffix == ".gz":
        return _from_merges(files[0]), files
    # Here, because importing transformers takes seconds, and `pagopt rewards` only wants a docstring.
    from transformers import CLIPTokenizer

    try:
        return CLIPTokenizer.from_pretrained(files[0].parent), files
    except Exception as error:
        raise RewardError(f"cannot read the tokenizer in {files[0].parent}: {type(error).__name__}: {error}") from error


def clean(text: str) -> str:
    """What OpenAI's CLIP does to a text before it splits it, as far as it matters to prompts.

    HTML entities become characters, twice; curly quotes, ligatures and letters of double width become plain ones. Its
    ftfy also repairs text that was decoded wrongly, which is left as it is here.
    """
    text = html.unescape(html.unescape(text.translate(QUOTES).translate(PLAIN)))
    return " ".join(text.split())


def _found(location: str | None, beside: Path, repository: str) -> list[Path]:
    if location is not None:
        path = Path(location).expanduser()
        files = [path] if path.is_file() and path.name.endswith(".gz") else tokenizer_files(path)
        if files:
            return files
        raise RewardError(
            f"there is no CLIP tokenizer at {path}: give a folder with tokenizer.json, or with vocab.json and "
            f"merges.txt, as in https://huggingface.co/{repository}, or the file {BPE_FILE}."
        )
    spec = importlib.util.find_spec("open_clip")
    for folder in (beside, *(Path(place) for place in (spec.submodule_search_locations or () if spec else ()))):
        if files := tokenizer_files(folder):
            return files
    from pagopt_rewards.weights import checkpoint

    try:
        return [checkpoint(None, repository, name) for name in ("tokenizer_config.json", "vocab.json", "merges.txt")]
    except RewardError as error:
        raise RewardError(
            f"no tokenizer: {error.__cause__ or error}. Without a network, put tokenizer.json, or vocab.json and "
            f"merges.txt, of https://huggingface.co/{repository} into {beside}, or give their folder as the reward's "
            f"argument `tokenizer`; open_clip's {BPE_FILE} will do as well."
        ) from error


def _from_merges(path: Path) -> Any:
    """OpenAI's own file: one merge a line after the first; the vocabulary follows from it."""
    from transformers import CLIPTokenizer

    try:
        lines = gzip.decompress(path.read_bytes()).decode("utf-8").split("\n")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise RewardError(f"{path} is damaged: {type(error).__name__}: {error}") from error
    merges = [line for line in lines[1 : MERGES + 1] if line]
    # Bytes that print stand for themselves and come first; the others get characters from 256 on.
    printing = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    letters = [chr(byte) for byte in printing] + [chr(256 + at) for at in range(256 - len(printing))]
    pieces = [*letters, *(f"{letter}</w>" for letter in letters), *(merge.replace(" ", "") for merge in merges)]
    vocabulary = {piece: at for at, piece in enumerate([*pieces, "<|startoftext|>", "<|endoftext|>"])}
    return CLIPTokenizer(vocab=vocabulary, merges=[tuple(merge.split()) for merge in merges])
