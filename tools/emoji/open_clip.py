"""The scorer in open_clip's own format: the same weights under its names, and its configuration.

Written beside transformers' files, so that `open_clip.create_model_and_transforms("local-dir:FOLDER")` and
`CLIPModel.from_pretrained(FOLDER)` read one folder. `make openclip` checks that both give equal features.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import CLIPModel, CLIPTokenizer

__all__ = ["open_clip_config", "open_clip_weights", "save_open_clip"]

_LAYER = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "self_attn.out_proj": "attn.out_proj",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}


def _tower(weights: dict[str, torch.Tensor], source: str, target: str, layers: int) -> dict[str, torch.Tensor]:
    """The transformer layers of one tower; open_clip keeps query, key and value in one matrix."""
    out = {}
    for layer in range(layers):
        old, new = f"{source}.encoder.layers.{layer}", f"{target}.resblocks.{layer}"
        for kind in ("weight", "bias"):
            parts = [weights[f"{old}.self_attn.{name}_proj.{kind}"] for name in "qkv"]
            out[f"{new}.attn.in_proj_{kind}"] = torch.cat(parts)
            out |= {f"{new}.{b}.{kind}": weights[f"{old}.{a}.{kind}"] for a, b in _LAYER.items()}
    return out


def open_clip_weights(model: CLIPModel) -> dict[str, torch.Tensor]:
    """The model's weights under open_clip's names."""
    w, text, vision = model.state_dict(), model.config.text_config, model.config.vision_config
    return {
        "logit_scale": w["logit_scale"],
        "token_embedding.weight": w["text_model.embeddings.token_embedding.weight"],
        "positional_embedding": w["text_model.embeddings.position_embedding.weight"],
        "ln_final.weight": w["text_model.final_layer_norm.weight"],
        "ln_final.bias": w["text_model.final_layer_norm.bias"],
        "text_projection": w["text_projection.weight"].T,
        "visual.conv1.weight": w["vision_model.embeddings.patch_embedding.weight"],
        "visual.class_embedding": w["vision_model.embeddings.class_embedding"],
        "visual.positional_embedding": w["vision_model.embeddings.position_embedding.weight"],
        "visual.ln_pre.weight": w["vision_model.pre_layrnorm.weight"],
        "visual.ln_pre.bias": w["vision_model.pre_layrnorm.bias"],
        "visual.ln_post.weight": w["vision_model.post_layernorm.weight"],
        "visual.ln_post.bias": w["vision_model.post_layernorm.bias"],
        "visual.proj": w["visual_projection.weight"].T,
        **_tower(w, "text_model", "transformer", text.num_hidden_layers),
        **_tower(w, "vision_model", "visual.transformer", vision.num_hidden_layers),
    }


def open_clip_config(model: CLIPModel) -> dict[str, object]:
    """`open_clip_config.json`: the model, and preprocessing as in preprocessor_config.json."""
    text, vision = model.config.text_config, model.config.vision_config
    return {
        "model_cfg": {
            "embed_dim": model.config.projection_dim,
            "vision_cfg": {
                "image_size": vision.image_size,
                "patch_size": vision.patch_size,
                "layers": vision.num_hidden_layers,
                "width": vision.hidden_size,
                "head_width": vision.hidden_size // vision.num_attention_heads,
            },
            "text_cfg": {
                "context_length": text.max_position_embeddings,
                "vocab_size": text.vocab_size,
                "width": text.hidden_size,
                "heads": text.num_attention_heads,
                "layers": text.num_hidden_layers,
                "pool_type": "eos",
                "eos_id": text.eos_token_id,
                "pad_id": text.pad_token_id,
                "hf_tokenizer_name": "in this folder",
            },
        },
        "preprocess_cfg": {
            "size": vision.image_size,
            "mean": [0.5, 0.5, 0.5],
            "std": [0.5, 0.5, 0.5],
            "interpolation": "bicubic",
            "resize_mode": "shortest",
        },
    }


def save_open_clip(model: CLIPModel, tokenizer: CLIPTokenizer, folder: Path) -> None:
    """Write open_clip's two files into a folder that holds the tokenizer; weights in half precision."""
    assert tokenizer.model_max_length == model.config.text_config.max_position_embeddings
    weights = {name: value.half().contiguous() for name, value in open_clip_weights(model).items()}
    save_file(weights, folder / "open_clip_model.safetensors")
    (folder / "open_clip_config.json").write_text(json.dumps(open_clip_config(model), indent=2) + "\n")
