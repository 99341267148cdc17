"""A tiny random ImageReward on disk, in its authors' format, and twelve pictures with prompts.

Both pagopt's tests and `record_imagereward.py`, which runs beside the official package, make them here: with numpy, PIL
and torch alone.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

WIDTH, LAYERS, EDGE, PATCH = 128, 2, 64, 16  # two heads of 64 in each network
TEXT_WIDTH, INTERMEDIATE, POSITIONS = 64, 96, 40
HIDDEN = (1024, 128, 64, 16)  # of the official MLP, which cannot be made smaller
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789.,!?'-()[]"
VOCABULARY = [*SPECIAL, *LETTERS, *(f"##{letter}" for letter in LETTERS), "apple", "red", "##ish"]
SIZES = [
    (64, 64), (224, 224), (512, 512), (640, 480), (480, 640), (900, 130),
    (100, 37), (7, 50), (1, 1), (333, 500), (225, 227), (300, 201),
]  # fmt: skip
MODES = ["RGB", "RGB", "RGB", "RGB", "RGB", "RGB", "RGB", "RGB", "RGB", "L", "RGB", "RGBA"]
PROMPTS = [
    "a red apple", "a cat, sitting on a mat", "", "Reddish APPLE!", "naïve café", "three (3) apples - isn't it?",
    "an apple " * 6, "word " * 50, "[ENC] apple [DEC]", "苹果 and 🍎", "red\tapple\n", "x",
]  # fmt: skip


def shapes() -> dict[str, tuple[int, ...]]:
    """The tensors of the official state dict by name."""

    def linear(name: str, outputs: int, inputs: int) -> dict[str, tuple[int, ...]]:
        return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}

    def norm(name: str, width: int) -> dict[str, tuple[int, ...]]:
        return {f"{name}.weight": (width,), f"{name}.bias": (width,)}

    vision, text = "blip.visual_encoder", "blip.text_encoder"
    found: dict[str, tuple[int, ...]] = {
        f"{vision}.cls_token": (1, 1, WIDTH),
        f"{vision}.pos_embed": (1, (EDGE // PATCH) ** 2 + 1, WIDTH),
        f"{vision}.patch_embed.proj.weight": (WIDTH, 3, PATCH, PATCH),
        f"{vision}.patch_embed.proj.bias": (WIDTH,),
        f"{text}.embeddings.word_embeddings.weight": (len(VOCABULARY) + 2, TEXT_WIDTH),
        f"{text}.embeddings.position_embeddings.weight": (POSITIONS, TEXT_WIDTH),
    }
    for i in range(LAYERS):
        block = f"{vision}.blocks.{i}"
        found |= norm(f"{block}.norm1", WIDTH) | norm(f"{block}.norm2", WIDTH)
        found |= linear(f"{block}.attn.qkv", 3 * WIDTH, WIDTH) | linear(f"{block}.attn.proj", WIDTH, WIDTH)
        found |= linear(f"{block}.mlp.fc1", 4 * WIDTH, WIDTH) | linear(f"{block}.mlp.fc2", WIDTH, 4 * WIDTH)
        layer = f"{text}.encoder.layer.{i}"
        for part, width in (("attention", TEXT_WIDTH), ("crossattention", WIDTH)):
            found |= linear(f"{layer}.{part}.self.query", TEXT_WIDTH, TEXT_WIDTH)
            found |= linear(f"{layer}.{part}.self.key", TEXT_WIDTH, width)
            found |= linear(f"{layer}.{part}.self.value", TEXT_WIDTH, width)
            found |= linear(f"{layer}.{part}.output.dense", TEXT_WIDTH, TEXT_WIDTH)
            found |= norm(f"{layer}.{part}.output.LayerNorm", TEXT_WIDTH)
        found |= linear(f"{layer}.intermediate.dense", INTERMEDIATE, TEXT_WIDTH)
        found |= linear(f"{layer}.output.dense", TEXT_WIDTH, INTERMEDIATE)
        found |= norm(f"{layer}.output.LayerNorm", TEXT_WIDTH)
    found |= norm(f"{vision}.norm", WIDTH) | norm(f"{text}.embeddings.LayerNorm", TEXT_WIDTH)
    found |= linear("blip.vision_proj", 256, WIDTH) | linear("blip.text_proj", 256, TEXT_WIDTH)
    sizes = (TEXT_WIDTH, *HIDDEN, 1)
    for index, inputs, outputs in zip((0, 2, 4, 6, 7), sizes, sizes[1:], strict=False):
        found |= linear(f"mlp.layers.{index}", outputs, inputs)
    return found


def tiny_state(seed: int = 0) -> dict[str, torch.Tensor]:
    """Random weights under which pictures and prompts differ clearly; the same on every machine."""
    noise, state = np.random.RandomState(seed), {}
    for name, shape in shapes().items():
        values = noise.standard_normal(shape)
        if "orm" in name and name.endswith("weight"):  # norm1, LayerNorm
            values = 1 + 0.1 * values
        elif "embed" in name and "patch" not in name:
            values = 0.5 * values
        elif name.endswith("weight"):
            values = 1.25 * values / np.prod(shape[1:]) ** 0.5
        state[name] = torch.from_numpy(np.asarray(values, dtype=np.float32))
    state["blip.text_encoder.embeddings.position_ids"] = torch.arange(POSITIONS)[None]
    return state


def save_tiny_imagereward(folder: Path, seed: int = 0) -> Path:
    """ImageReward.pt and vocab.txt in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(tiny_state(seed), folder / "ImageReward.pt")
    (folder / "vocab.txt").write_text("\n".join([*VOCABULARY, ""]), encoding="utf-8")
    return folder


def twelve_pictures() -> list[Image.Image]:
    """Waves with noise in twelve sizes: square, wide, high, tiny, grey, and one with transparency."""
    noise, found = np.random.RandomState(7), []
    for index, ((width, height), mode) in enumerate(zip(SIZES, MODES, strict=True)):
        y, x = (axis[..., None] for axis in np.mgrid[:height, :width])
        channel = np.arange(4)
        waves = 128 + 100 * np.sin((index + 1) * x / 40 + channel) * np.cos((12 - index) * y / 50 + channel / 2)
        values = np.clip(waves + noise.randint(-25, 26, (height, width, 4)), 0, 255).astype(np.uint8)
        found.append(Image.fromarray(values[..., 0] if mode == "L" else values[..., : len(mode)]))
    return found


def on_white(image: Image.Image) -> Image.Image:
    """RGB as pagopt makes it; the official package drops the transparency instead."""
    if image.mode != "RGBA":
        return image.convert("RGB")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
