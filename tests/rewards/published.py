"""Tiny random checkpoints in the formats of the published ones."""

from __future__ import annotations

import gzip
import shutil
from pathlib import Path

import torch
from torch import Tensor

LETTERS = 512 + 2  # the vocabulary of a file without merges: every byte twice, and two marks


def save_letters(folder: Path, *merges: str) -> Path:
    """OpenAI's vocabulary file with only the merges given."""
    path = folder / "bpe_simple_vocab_16e6.txt.gz"
    path.write_bytes(gzip.compress("\n".join(['"version"', *merges, ""]).encode()))
    return path


def open_clip_state(vocabulary: int = LETTERS, seed: int = 0) -> dict[str, Tensor]:
    """The state dict of an open_clip ViT with heads as wide as in ViT-H-14: 28 pixels, patches of 14, 24 tokens."""
    torch.manual_seed(seed)
    state: dict[str, Tensor] = {}

    def add(name: str, *shape: int) -> None:
        state[name] = torch.randn(shape) * 0.1

    def tower(stem: str, width: int, layers: int) -> None:
        for layer in range(layers):
            for part, shape in (
                ("attn.in_proj_", (3 * width, width)),
                ("attn.out_proj.", (width, width)),
                ("mlp.c_fc.", (2 * width, width)),
                ("mlp.c_proj.", (width, 2 * width)),
                ("ln_1.", (width,)),
                ("ln_2.", (width,)),
            ):
                add(f"{stem}.resblocks.{layer}.{part}weight", *shape)
                add(f"{stem}.resblocks.{layer}.{part}bias", shape[0])

    add("positional_embedding", 24, 128)
    add("text_projection", 128, 32)
    state["logit_scale"] = torch.tensor(4.0)
    add("visual.class_embedding", 160)
    add("visual.positional_embedding", 5, 160)
    add("visual.proj", 160, 32)
    add("visual.conv1.weight", 160, 3, 14, 14)
    for name, width in (("visual.ln_pre", 160), ("visual.ln_post", 160), ("ln_final", 128)):
        add(f"{name}.weight", width)
        add(f"{name}.bias", width)
    add("token_embedding.weight", vocabulary, 128)
    tower("visual.transformer", 160, 2)
    tower("transformer", 128, 1)
    return state


def save_hps(folder: Path, version: str = "2.1", seed: int = 0) -> Path:
    """HPS_v2.1_compressed.pt (or that of 2.0) with the vocabulary beside it, in a folder of its own."""
    folder.mkdir(exist_ok=True)
    save_letters(folder)
    path = folder / {"2.1": "HPS_v2.1_compressed.pt", "2.0": "HPS_v2_compressed.pt"}[version]
    torch.save({"state_dict": open_clip_state(seed=seed)}, path)
    return path


def save_improved(folder: Path, width: int, seed: int = 0) -> Path:
    """Version 2 of the aesthetic predictor for features of another width, 1024-128-64-16-1 as published."""
    torch.manual_seed(seed)
    layers = torch.nn.Sequential(
        torch.nn.Linear(width, 1024),
        torch.nn.Dropout(0.2),
        torch.nn.Linear(1024, 128),
        torch.nn.Dropout(0.2),
        torch.nn.Linear(128, 64),
        torch.nn.Dropout(0.1),
        torch.nn.Linear(64, 16),
        torch.nn.Linear(16, 1),
    )
    path = folder / "sac+logos+ava1-l14-linearMSE.pth"
    torch.save({f"layers.{name}": value for name, value in layers.state_dict().items()}, path)
    return path


def cache_on_hub(cache: Path, repository: str, *files: Path) -> Path:
    """A cache of the Hugging Face hub that holds files of one repository; where they lie in it."""
    place = cache / f"models--{repository.replace('/', '--')}"
    commit = "0" * 40
    snapshot = place / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text(commit)
    for file in files:
        shutil.copy(file, snapshot / file.name)
    return snapshot
