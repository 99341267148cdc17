"""Do pagopt's own HPS, ImageReward and PickScore give their authors' numbers? On equal random weights at full size.

The packages run in environments of their own: first ``pagopt rewards install hpsv2 image-reward``. Then
``python -m benchmarks.reward_parity``; with ``--weights FOLDER`` the real checkpoints instead of random ones.

Two ways: "batch", the isolated reward that pagopt ships for the package, and "score", the authors' own call, image by
image, as their READMEs write it. PickScore has no package: the lines of its README run beside transformers 4, in the
environment of image-reward.
"""

from __future__ import annotations

import argparse
import gc
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFilter

from benchmarks.official_checkpoints import save_hps, save_imagereward
from benchmarks.reward_parity_checkpoints import save_hub, save_pickscore
from pagopt.isolated import Environment, Isolated, find_environment, read_record
from pagopt.isolated.client import Worker
from pagopt.reward import FunctionReward, Reward, load_reward

__all__ = ["HOW", "RECORDS", "TARGETS", "compare", "main", "pictures"]

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
TARGETS = {"hps 2.1": 1e-5, "hps 2.0": 1e-5, "imagereward": 1e-4, "pickscore": 1e-5}
RECORDS = {"hps 2.1": "hpsv2", "hps 2.0": "hpsv2", "imagereward": "image-reward", "pickscore": "image-reward"}
HOW = ("batch", "score")
SCORERS = Path(__file__).with_name("reward_parity_scorers.py")
BPE = "bpe_simple_vocab_16e6.txt.gz"
KEPT = ("torch", "torchvision", "transformers", "timm", "hpsv2", "image-reward", "openai-clip")


def main(argv: Sequence[str] | None = None) -> int:
    """Compare, print, and save; 1 if a difference is too large."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rewards", nargs="+", choices=list(TARGETS), default=list(TARGETS))
    parser.add_argument("--how", nargs="+", choices=HOW, default=HOW)
    parser.add_argument("--weights", type=Path, default=Path("build/parity"), help="checkpoints; random ones are made")
    parser.add_argument("--out", type=Path, default=Path("build/parity/parity.json"))
    options = parser.parse_args(argv)
    images = pictures()
    prompts = [PROMPTS[index % len(PROMPTS)] for index in range(len(images))]
    results: dict[str, Any] = json.loads(options.out.read_text(encoding="utf-8")) if options.out.is_file() else {}
    for name in options.rewards:
        results[name] = compare(name, options.weights, images, prompts, options.how)
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(results, indent=1), encoding="utf-8")
    print(f"{'reward':14}{'way':8}{'largest difference':>20}{'target':>10}{'spread of the scores':>23}")
    for name in options.rewards:
        found = results[name]
        for how, difference in found["differences"].items():
            print(f"{name:14}{how:8}{difference:20.2e}{found['target']:10.0e}{found['spread']:23.3f}")
    return int(any(results[name]["difference"] >= TARGETS[name] for name in options.rewards))


def compare(
    name: str, folder: Path, images: list[Image.Image], prompts: list[str], ways: Sequence[str] = HOW
) -> dict[str, Any]:
    """Scores of both, one after the other: only one model of 4 GB is in memory at a time.

    Args:
        name: One of ``TARGETS``.
        folder: Where the checkpoints are; random ones are made where they are missing.
        images: Of any mode and size.
        prompts: As many.
        ways: Of ``HOW``. PickScore knows "score" only.

    Returns:
        "differences" for each way and the largest, "difference"; what is aimed at; the scores; the packages' versions.
    """
    environment = find_environment(read_record(RECORDS[name]))
    make = {"imagereward": _imagereward, "pickscore": _pickscore}.get(name, _hps)
    official, own = make(name, folder, environment)
    expected: dict[str, Any] = {}
    for how in [way for way in official if way in ways]:
        began = time.perf_counter()
        reward, worker = official[how]()
        expected[how] = reward(images, prompts).double().numpy()
        worker.close()
        print(f"{name}: the package took {time.perf_counter() - began:.0f} s ({how})", flush=True)
    began = time.perf_counter()
    reward = load_reward(own.pop("name"), **own)
    scores = reward(images, prompts).double().numpy()
    print(f"{name}: pagopt took {time.perf_counter() - began:.0f} s", flush=True)
    del reward
    gc.collect()
    differences = {how: float(np.abs(scores - there).max()) for how, there in expected.items()}
    return {
        "differences": differences,
        "difference": max(differences.values()),
        "target": TARGETS[name],
        "spread": float(np.ptp(scores)),
        "images": [
            {
                "size": list(image.size),
                "mode": image.mode,
                "prompt": prompt,
                "pagopt": float(scores[at]),
                **{how: float(there[at]) for how, there in expected.items()},
            }
            for at, (image, prompt) in enumerate(zip(images, prompts, strict=True))
        ],
        "packages": {key: value for key, value in environment.packages.items() if key in KEPT},
    }


Official = dict[str, Callable[[], tuple[Reward, Worker]]]


def _hps(name: str, folder: Path, environment: Environment) -> tuple[Official, dict[str, Any]]:
    version = name.split()[1]
    weights = folder / {"2.1": "HPS_v2.1_compressed.pt", "2.0": "HPS_v2_compressed.pt"}[version]
    if not weights.is_file():
        save_hps(weights, seed=int(version == "2.0"))
    (words,) = environment.folder.rglob(f"hpsv2/src/open_clip/{BPE}")
    # The package first loads the CLIP that HPS was tuned from, and then the checkpoint over all of it.
    save_hub(folder, "laion/CLIP-ViT-H-14-laion2B-s32B-b79K", {"open_clip_pytorch_model.bin": weights})
    official: Official = {
        "batch": lambda: _shipped("hpsv2", version=version, weights=str(weights), device="cpu"),
        "score": lambda: _authors("HPSv2Score", environment, "hpsv2", folder, weights=str(weights)),
    }
    return official, {"name": "hps", "version": version, "weights": str(weights), "tokenizer": str(words)}


def _imagereward(name: str, folder: Path, environment: Environment) -> tuple[Official, dict[str, Any]]:
    weights = folder / name / "ImageReward.pt"
    if not weights.is_file():
        save_imagereward(weights)
    # What the package asks the hub for.
    words: dict[str, Path | str] = {
        "vocab.txt": weights.with_name("vocab.txt"),
        "tokenizer_config.json": '{"do_lower_case": true}',
        "config.json": '{"model_type": "bert"}',
    }
    save_hub(folder, "bert-base-uncased", words)
    config = str(weights.with_name("med_config.json"))
    official: Official = {
        "batch": lambda: _shipped("image-reward", weights=str(weights), device="cpu"),
        "score": lambda: _authors(
            "ImageRewardScore", environment, "image-reward", folder, weights=str(weights), config=config
        ),
    }
    return official, {"name": name, "weights": str(weights)}


def _pickscore(name: str, folder: Path, environment: Environment) -> tuple[Official, dict[str, Any]]:
    place = folder / name
    if not (place / "model.safetensors").is_file():
        (merges,) = environment.folder.rglob(f"clip/{BPE}")
        save_pickscore(place, merges)
    official: Official = {
        "score": lambda: _authors("PickScoreReadme", environment, "image-reward", folder, weights=str(place))
    }
    return official, {"name": name, "weights": str(place)}


def _shipped(name: str, **args: Any) -> tuple[Reward, Worker]:
    reward = load_reward(name, start_seconds=3600, batch_seconds=3600, **args)  # on a machine that does other work, too
    assert isinstance(reward, Isolated)
    return reward, reward.worker


def _authors(scorer: str, environment: Environment, record: str, folder: Path, **args: Any) -> tuple[Reward, Worker]:
    """The authors' own call, without a network."""
    start = read_record(record).start(args, "cpu") | {"scorer": f"{SCORERS}:{scorer}"}
    offline = {"HF_HOME": str(folder.resolve()), "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    worker = Worker(scorer, environment.python, start, offline, start_seconds=3600, batch_seconds=3600)
    return FunctionReward(worker.score, scorer), worker


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
