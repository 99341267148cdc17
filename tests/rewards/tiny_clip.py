"""A tiny random CLIP on disk, in the layout of any transformers ``CLIPModel``."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

STYLES = ["flat", "glossy", "ink"]


def save_tiny_clip(folder: Path, seed: int = 0) -> Path:
    """A CLIP of 32 x 32 pixels that knows single letters."""
    letters = "abcdefghijklmnopqrstuvwxyz,"
    pieces = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{letter}</w>" for letter in letters)]
    CLIPTokenizer(
        vocab={piece: i for i, piece in enumerate(pieces)},
        merges=[],
        bos_token=pieces[0],
        eos_token=pieces[1],
        unk_token=pieces[1],
        pad_token=pieces[1],
        model_max_length=24,
    ).save_pretrained(folder)
    small = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = CLIPConfig(
        text_config={
            **small,
            "vocab_size": len(pieces),
            "max_position_embeddings": 24,
            "bos_token_id": 0,
            "eos_token_id": 1,
            "pad_token_id": 1,
        },
        vision_config={**small, "image_size": 32, "patch_size": 8},
        projection_dim=16,
    )
    torch.manual_seed(seed)
    model = CLIPModel(config)
    for parameter in model.parameters():  # so that pictures and texts differ by more than rounding
        torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(folder)
    settings = {
        "crop_size": {"height": 32, "width": 32},
        "image_mean": [0.5, 0.4, 0.3],
        "image_std": [0.2, 0.3, 0.4],
        "size": {"shortest_edge": 32},
        "resample": 3,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    (folder / "styles.json").write_text(json.dumps({"styles": STYLES}))
    return folder
