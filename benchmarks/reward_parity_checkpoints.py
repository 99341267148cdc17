"""PickScore's folder with random weights, and a cache of the Hugging Face hub without a network."""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Mapping
from pathlib import Path

import torch

from benchmarks.official_checkpoints import random_tensors

__all__ = ["PICKSCORE", "save_hub", "save_pickscore"]

# yuvalkirstain/PickScore_v1's config.json, as far as scores depend on it. `eos_token_id: 2` is no slip of ours: it is
# in all early configurations, and makes transformers look for the highest token instead.
PICKSCORE = {
    "architectures": ["CLIPModel"],
    "model_type": "clip",
    "projection_dim": 1024,
    "logit_scale_init_value": 2.6592,
    "text_config": {
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "max_position_embeddings": 77,
        "vocab_size": 49408,
        "hidden_act": "gelu",
        "bos_token_id": 0,
        "eos_token_id": 2,
        "pad_token_id": 1,
    },
    "vision_config": {
        "hidden_size": 1280,
        "intermediate_size": 5120,
        "num_hidden_layers": 32,
        "num_attention_heads": 16,
        "image_size": 224,
        "patch_size": 14,
        "hidden_act": "gelu",
    },
}
# laion/CLIP-ViT-H-14-laion2B-s32B-b79K, whose processor PickScore's authors take.
PICTURES = {
    "crop_size": 224,
    "do_center_crop": True,
    "do_normalize": True,
    "do_resize": True,
    "feature_extractor_type": "CLIPFeatureExtractor",
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "resample": 3,
    "size": 224,
}
WORDS = {
    "tokenizer_class": "CLIPTokenizer",
    "model_max_length": 77,
    "do_lower_case": True,
    "errors": "replace",
    "bos_token": "<|startoftext|>",
    "eos_token": "<|endoftext|>",
    "unk_token": "<|endoftext|>",
    "pad_token": "<|endoftext|>",
}
MERGES = 49152 - 256 - 2


def save_pickscore(folder: Path, merges: Path, seed: int = 0, config: Mapping[str, object] = PICKSCORE) -> None:
    """A folder with PickScore's files, 3.9 GB, in the formats that are published.

    Args:
        folder: Where to.
        merges: OpenAI's bpe_simple_vocab_16e6.txt.gz, which the packages of both other rewards bring.
        seed: Of the weights.
        config: Of a smaller model, for a test.
    """
    from safetensors.torch import save_file
    from transformers import CLIPConfig, CLIPModel

    folder.mkdir(parents=True, exist_ok=True)
    with torch.device("meta"):
        state = CLIPModel(CLIPConfig(**config)).state_dict()
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items() if name != "logit_scale"}
    tensors = {**random_tensors(shapes, seed, torch.float32), "logit_scale": torch.tensor(math.log(100))}
    lines = gzip.decompress(merges.read_bytes()).decode().split("\n")
    pairs = [line for line in lines[1 : MERGES + 1] if line]
    letters = _letters()
    pieces = [*letters, *(f"{letter}</w>" for letter in letters), *("".join(pair.split()) for pair in pairs)]
    words = {piece: at for at, piece in enumerate([*pieces, "<|startoftext|>", "<|endoftext|>"])}
    (folder / "vocab.json").write_text(json.dumps(words), encoding="utf-8")
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *pairs, ""]), encoding="utf-8")
    for name, content in (("config", config), ("preprocessor_config", PICTURES), ("tokenizer_config", WORDS)):
        (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})  # last: what is there is whole


def save_hub(cache: Path, repository: str, files: Mapping[str, Path | str]) -> None:
    """Put files into a cache of the hub, as if they had been downloaded: links to them, or texts."""
    commit = "0" * 40
    place = cache / "hub" / f"models--{repository.replace('/', '--')}"
    (place / "refs").mkdir(parents=True, exist_ok=True)
    (place / "refs" / "main").write_text(commit)
    (place / "snapshots" / commit).mkdir(parents=True, exist_ok=True)
    for name, source in files.items():
        target = place / "snapshots" / commit / name
        target.unlink(missing_ok=True)
        if isinstance(source, Path):
            target.symlink_to(source.resolve())
        else:
            target.write_text(source, encoding="utf-8")


def _letters() -> list[str]:
    """The characters that stand for the 256 bytes: those that print for themselves come first."""
    printing = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return [chr(byte) for byte in printing] + [chr(256 + at) for at in range(256 - len(printing))]
