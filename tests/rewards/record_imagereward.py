"""What the official package `image-reward` 1.5 says of twelve pictures; not a test: it runs beside that package alone.

    python tests/rewards/record_imagereward.py tests/rewards/data/imagereward.json    # the tiny random checkpoint
    python tests/rewards/record_imagereward.py full.json ImageReward.pt med_config.json    # a whole one

It takes transformers 4.53, timm 0.6.13, fairscale 0.4.13, openai-clip 1.0.1 and setuptools below 81. A whole one also
takes the network, or a folder called `bert-base-uncased` (vocab.txt, config.json, tokenizer_config.json) where it runs.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from tiny_imagereward import (
    EDGE,
    INTERMEDIATE,
    LAYERS,
    PATCH,
    POSITIONS,
    PROMPTS,
    TEXT_WIDTH,
    VOCABULARY,
    WIDTH,
    on_white,
    save_tiny_imagereward,
    tiny_state,
    twelve_pictures,
)


def mend_torchvision() -> None:
    """Beside a CPU build of torch, torchvision of PyPI lacks the operators that it describes: name them."""
    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::nms does not exist" not in str(error):
            raise
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "DEF")
        for operator in ("nms", "qnms"):
            library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        importlib.import_module("torchvision").kept = library


def tiny() -> Any:
    """The official classes, made small: their own constructor knows ViT-L and BERT-base only."""
    from ImageReward.ImageReward import MLP, ImageReward, _transform
    from ImageReward.models.BLIP.blip import init_tokenizer
    from ImageReward.models.BLIP.blip_pretrain import BertConfig, BertModel
    from ImageReward.models.BLIP.vit import VisionTransformer

    with tempfile.TemporaryDirectory() as name:
        folder = save_tiny_imagereward(Path(name) / "bert-base-uncased")
        (folder / "config.json").write_text('{"model_type": "bert"}')
        (folder / "tokenizer_config.json").write_text('{"do_lower_case": true}')
        before = Path.cwd()
        os.chdir(name)
        tokenizer = init_tokenizer()
        os.chdir(before)
    model = ImageReward.__new__(ImageReward)
    torch.nn.Module.__init__(model)
    model.device, model.mean, model.std = "cpu", 0.16717362830052426, 1.0333394966054072
    model.preprocess = _transform(EDGE)
    model.mlp = MLP(TEXT_WIDTH)
    model.blip = torch.nn.Module()
    model.blip.tokenizer = tokenizer
    model.blip.visual_encoder = VisionTransformer(
        img_size=EDGE, patch_size=PATCH, embed_dim=WIDTH, depth=LAYERS, num_heads=WIDTH // 64
    )
    config = BertConfig(
        vocab_size=len(VOCABULARY) + 2,
        hidden_size=TEXT_WIDTH,
        num_hidden_layers=LAYERS,
        intermediate_size=INTERMEDIATE,
        num_attention_heads=TEXT_WIDTH // 64,
        max_position_embeddings=POSITIONS,
        add_cross_attention=True,
    )
    config.encoder_width = WIDTH
    model.blip.text_encoder = BertModel(config, add_pooling_layer=False)
    missing, left = model.load_state_dict(tiny_state(), strict=False)
    assert all(name.endswith("position_ids") for name in missing), missing
    assert all("_proj." in name or name.endswith("position_ids") for name in left), left
    return model.eval()


def main() -> None:
    """Score, and write what came out."""
    mend_torchvision()
    import ImageReward as package

    out, *official = sys.argv[1:]
    model = package.load(official[0], device="cpu", med_config=official[1]) if official else tiny()
    pictures = twelve_pictures()
    scores = [model.score(prompt, on_white(image)) for prompt, image in zip(PROMPTS, pictures, strict=True)]
    tokens = [model.blip.tokenizer(prompt, truncation=True, max_length=35)["input_ids"] for prompt in PROMPTS]
    pixels = [model.preprocess(on_white(image)) for image in pictures]
    record = {
        "made by": f"tests/rewards/record_imagereward.py with image-reward 1.5, torch {torch.__version__}",
        "scores": scores,
        "tokens": tokens,
        "pixels": [[float(each.double().mean()), float(each.double().std())] for each in pixels],
        "corner": [each[:, 0, 0].tolist() for each in pixels],
    }
    Path(out).write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
