"""Do pagopt's own HPS and ImageReward give their authors' numbers? On equal random weights at full size.

The packages run in environments of their own: first ``pagopt rewards install hpsv2 image-reward``. Then
``python -m benchmarks.reward_parity``; with ``--weights FOLDER`` the real checkpoints instead of random ones.
"""

from __future__ import annotations

import argparse
import gc
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFilter

from benchmarks.official_checkpoints import save_hps, save_imagereward
from pagopt.isolated import Isolated, find_environment, read_record
from pagopt.reward import load_reward

__all__ = ["main", "pictures"]

# width, height, mode
SIZES = [(512, 512, "RGB"), (1024, 768, "RGB"), (768, 1024, "RGB"), (640, 200, "RGB"), (90, 700, "RGB")]
SIZES += [(224, 224, "RGB"), (225, 223, "RGB"), (16, 16, "RGB"), (1, 1, "RGB"), (5, 40, "RGB")]
SIZES += [(300, 400, "L"), (333, 250, "RGBA")]
PROMPTS = [
    "a red apple",
    "A Photo of an apple, reddish",
    "",
    "naïve café & 'quotes' [brackets] 3.14",
    "one two three four five six seven eight nine ten " * 9,
    "苹果 and 🍎",
]
TARGETS = {"hps 2.1": 1e-5, "hps 2.0": 1e-5, "imagereward": 1e-4}


def main(argv: Sequence[str] | None = None) -> int:
    """Compare, print, and save; 1 if a difference is too large."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rewards", nargs="+", choices=list(TARGETS), default=list(TARGETS))
    parser.add_argument("--weights", type=Path, default=Path("build/parity"), help="checkpoints; random ones are made")
    parser.add_argument("--out", type=Path, default=Path("build/parity/parity.json"))
    options = parser.parse_args(argv)
    images = pictures()
    prompts = [PROMPTS[index % len(PROMPTS)] for index in range(len(images))]
    results: dict[str, Any] = json.loads(options.out.read_text(encoding="utf-8")) if options.out.is_file() else {}
    for name in options.rewards:
        results[name] = compare(name, options.weights, images, prompts)
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(results, indent=1), encoding="utf-8")
    print(f"{'reward':14}{'largest difference':>20}{'target':>10}{'spread of the scores':>23}")
    for name in options.rewards:
        found = results[name]
        print(f"{name:14}{found['difference']:20.2e}{found['target']:10.0e}{found['spread']:23.3f}")
    return int(any(results[name]["difference"] >= TARGETS[name] for name in options.rewards))


def compare(name: str, folder: Path, images: list[Image.Image], prompts: list[str]) -> dict[str, Any]:
    """Scores of both, one after the other: only one model of 4 GB is in memory at a time."""
    if name.startswith("hps"):
        version = name.split()[1]
        weights = folder / {"2.1": "HPS_v2.1_compressed.pt", "2.0": "HPS_v2_compressed.pt"}[version]
        if not weights.is_file():
            save_hps(weights, seed=int(version == "2.0"))
        official = load_reward("hpsv2", version=version, weights=str(weights), device="cpu")
        environment = find_environment(read_record("hpsv2"))
        (words,) = environment.folder.rglob("hpsv2/src/open_clip/bpe_simple_vocab_16e6.txt.gz")
        own: dict[str, Any] = {"name": "hps", "version": version, "weights": str(weights), "tokenizer": str(words)}
    else:
        weights = folder / "imagereward" / "ImageReward.pt"
        if not weights.is_file():
            save_imagereward(weights)
        official = load_reward("image-reward", weights=str(weights), device="cpu")
        environment = find_environment(read_record("image-reward"))
        own = {"name": "imagereward", "weights": str(weights)}
    assert isinstance(official, Isolated)
    began = time.perf_counter()
    expected = official(images, prompts).double().numpy()
    print(f"{name}: the package took {time.perf_counter() - began:.0f} s", flush=True)
    official.worker.close()
    began = time.perf_counter()
    reward = load_reward(own.pop("name"), **own)
    scores = reward(images, prompts).double().numpy()
    print(f"{name}: pagopt took {time.perf_counter() - began:.0f} s", flush=True)
    del reward
    gc.collect()
    differences = np.abs(scores - expected)
    kept = ("torch", "torchvision", "transformers", "timm", "hpsv2", "image-reward", "openai-clip")
    return {
        "difference": float(differences.max()),
        "target": TARGETS[name],
        "spread": float(np.ptp(expected)),
        "images": [
            {"size": list(image.size), "mode": image.mode, "prompt": prompt, "package": a, "pagopt": b}
            for image, prompt, a, b in zip(images, prompts, expected.tolist(), scores.tolist(), strict=True)
        ],
        "packages": {key: value for key, value in environment.packages.items() if key in kept},
    }


def pictures() -> list[Image.Image]:
    """Twelve blurred random pictures: large and tiny, of many shapes, one grey, one with transparency."""
    noise, found = np.random.default_rng(0), []
    for index, (width, height, mode) in enumerate(SIZES):
        channels = {"RGB": (3,), "L": (), "RGBA": (4,)}[mode]
        image = Image.fromarray(noise.integers(0, 256, (height, width, *channels), dtype=np.uint8))
        found.append(image.filter(ImageFilter.GaussianBlur(index % 5)))
    return found


if __name__ == "__main__":
    raise SystemExit(main())
