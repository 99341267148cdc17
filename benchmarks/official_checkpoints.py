"""Random checkpoints at full size in the formats that the authors publish, for comparing packages without downloads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

__all__ = ["hps_shapes", "imagereward_shapes", "random_tensors", "save_hps", "save_imagereward"]

Shapes = dict[str, tuple[int, ...]]
MED_CONFIG = """{"architectures": ["BertModel"], "attention_probs_dropout_prob": 0.1, "hidden_act": "gelu",
 "hidden_dropout_prob": 0.1, "hidden_size": 768, "initializer_range": 0.02, "intermediate_size": 3072,
 "layer_norm_eps": 1e-12, "max_position_embeddings": 512, "model_type": "bert", "num_attention_heads": 12,
 "num_hidden_layers": 12, "pad_token_id": 0, "type_vocab_size": 2, "vocab_size": 30524, "encoder_width": 768,
 "add_cross_attention": true}"""


def save_hps(path: Path, seed: int = 0) -> None:
    """HPS_v2.1_compressed.pt: open_clip's ViT-H-14 in float16, 2 GB."""
    path.parent.mkdir(parents=True, exist_ok=True)
    state = random_tensors(hps_shapes(), seed, torch.float16)
    torch.save({"epoch": 0, "state_dict": {**state, "logit_scale": torch.tensor(4.6)}}, path)


def save_imagereward(path: Path, seed: int = 0) -> None:
    """ImageReward.pt, 1.8 GB, with med_config.json and a vocab.txt of 30,522 tokens beside it.

    BERT's own vocabulary comes from the hub only; this one has its special tokens in their places, letters, some words.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    state = random_tensors(imagereward_shapes(), seed, torch.float32)
    torch.save({**state, "blip.text_encoder.embeddings.position_ids": torch.arange(512)[None]}, path)
    (path.parent / "med_config.json").write_text(MED_CONFIG, encoding="utf-8")
    letters = [chr(code) for code in range(33, 127) if not chr(code).isupper()]
    words = [*letters, *(f"##{letter}" for letter in letters), "apple", "red", "photo", "##ish", "of"]
    places = {0: "[PAD]", 100: "[UNK]", 101: "[CLS]", 102: "[SEP]", 103: "[MASK]", **dict(enumerate(words, 999))}
    lines = [places.get(index, f"[unused{index}]") for index in range(30522)]
    (path.parent / "vocab.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def hps_shapes() -> Shapes:
    """The 685 tensors of open_clip's ViT-H-14, but for its scale."""
    found: Shapes = {
        "visual.class_embedding": (1280,),
        "visual.positional_embedding": (257, 1280),
        "visual.proj": (1280, 1024),
        "visual.conv1.weight": (1280, 3, 14, 14),
        "token_embedding.weight": (49408, 1024),
        "positional_embedding": (77, 1024),
        "text_projection": (1024, 1024),
    }
    found |= _norm("visual.ln_pre", 1280) | _norm("visual.ln_post", 1280) | _norm("ln_final", 1024)
    for prefix, width, layers in (("visual.transformer", 1280, 32), ("transformer", 1024, 24)):
        for i in range(layers):
            block = f"{prefix}.resblocks.{i}"
            found |= _norm(f"{block}.ln_1", width) | _norm(f"{block}.ln_2", width)
            found |= {f"{block}.attn.in_proj_weight": (3 * width, width), f"{block}.attn.in_proj_bias": (3 * width,)}
            found |= _linear(f"{block}.attn.out_proj", width, width)
            found |= _linear(f"{block}.mlp.c_fc", 4 * width, width) | _linear(f"{block}.mlp.c_proj", width, 4 * width)
    return found


def imagereward_shapes() -> Shapes:
    """The tensors of ImageReward.pt: BLIP with ViT-L/16 and BERT-base, and the layers that make a score."""
    vision, text = "blip.visual_encoder", "blip.text_encoder"
    found: Shapes = {
        f"{vision}.cls_token": (1, 1, 1024),
        f"{vision}.pos_embed": (1, 197, 1024),
        f"{vision}.patch_embed.proj.weight": (1024, 3, 16, 16),
        f"{vision}.patch_embed.proj.bias": (1024,),
        f"{text}.embeddings.word_embeddings.weight": (30524, 768),
        f"{text}.embeddings.position_embeddings.weight": (512, 768),
    }
    found |= _norm(f"{vision}.norm", 1024) | _norm(f"{text}.embeddings.LayerNorm", 768)
    for i in range(24):
        block = f"{vision}.blocks.{i}"
        found |= _norm(f"{block}.norm1", 1024) | _norm(f"{block}.norm2", 1024)
        found |= _linear(f"{block}.attn.qkv", 3072, 1024) | _linear(f"{block}.attn.proj", 1024, 1024)
        found |= _linear(f"{block}.mlp.fc1", 4096, 1024) | _linear(f"{block}.mlp.fc2", 1024, 4096)
    for i in range(12):
        layer = f"{text}.encoder.layer.{i}"
        for part, width in (("attention", 768), ("crossattention", 1024)):
            found |= _linear(f"{layer}.{part}.self.query", 768, 768)
            found |= _linear(f"{layer}.{part}.self.key", 768, width) | _linear(f"{layer}.{part}.self.value", 768, width)
            found |= _linear(f"{layer}.{part}.output.dense", 768, 768) | _norm(f"{layer}.{part}.output.LayerNorm", 768)
        found |= _linear(f"{layer}.intermediate.dense", 3072, 768) | _linear(f"{layer}.output.dense", 768, 3072)
        found |= _norm(f"{layer}.output.LayerNorm", 768)
    found |= _linear("blip.vision_proj", 256, 1024) | _linear("blip.text_proj", 256, 768)
    for index, inputs, outputs in ((0, 768, 1024), (2, 1024, 128), (4, 128, 64), (6, 64, 16), (7, 16, 1)):
        found |= _linear(f"mlp.layers.{index}", outputs, inputs)
    return found


def _linear(name: str, outputs: int, inputs: int) -> Shapes:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def _norm(name: str, width: int) -> Shapes:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def random_tensors(shapes: Mapping[str, tuple[int, ...]], seed: int, dtype: torch.dtype) -> dict[str, Tensor]:
    """Values under which pictures and prompts differ clearly, unlike under those that a new model begins with."""
    noise, state = torch.Generator().manual_seed(seed), {}
    for name, shape in shapes.items():
        values = torch.randn(shape, generator=noise)
        norm = any(part in name for part in ("ln_", "norm", "LayerNorm"))
        if len(shape) == 1:
            values = 0.1 * values + float(norm and name.endswith("weight"))
        elif any(part in name for part in ("embedding", "embed", "cls_token")) and "patch" not in name:
            values = 0.5 * values
        else:
            values = values * values[0].numel() ** -0.5
        state[name] = values.to(dtype)
    return state
