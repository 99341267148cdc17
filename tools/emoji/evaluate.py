"""What the shipped model and scorer can do, in numbers: `python -m tools.emoji.evaluate`."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from diffusers import StableDiffusion3Pipeline
from jsonargparse import auto_cli
from transformers import CLIPModel, CLIPTokenizer

from tools.emoji.augment import shift_scale, to_unit
from tools.emoji.captions import caption
from tools.emoji.degrade import degrade
from tools.emoji.generate import generate
from tools.emoji.train import Build

__all__ = ["Judged", "evaluate", "judge"]


@dataclass(frozen=True)
class Judged:
    """Shares of pictures whose nearest text is the right one, and the mean similarity to the full caption."""

    count: int
    concept_rank_1: float
    style_rank_1: float
    similarity: float


@torch.inference_mode()
def judge(
    scorer: CLIPModel,
    tokenizer: CLIPTokenizer,
    pictures: torch.Tensor,
    labels: list[tuple[int, int]],
    styles: list[str],
    names: list[str],
) -> Judged:
    """Compare float pictures (N, 3, 64, 64) in [-1, 1] with all concept names, all style words and their captions."""

    def texts(captions: list[str]) -> torch.Tensor:
        encoded = tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt")
        return F.normalize(scorer.get_text_features(encoded.input_ids).pooler_output, dim=-1)

    features = F.normalize(scorer.get_image_features(pictures).pooler_output, dim=-1)
    style, name = torch.tensor(labels).T
    captions = texts([caption(styles[s], names[n]) for s, n in labels])
    return Judged(
        len(labels),
        float(((features @ texts(names).T).argmax(1) == name).float().mean()),
        float(((features @ texts(styles).T).argmax(1) == style).float().mean()),
        float((features * captions).sum(1).mean()),
    )


def evaluate(
    build: Build | None = None, count: int = 250, guidance: tuple[float, ...] = (1.0, 2.0, 3.0), seed: int = 9
) -> None:
    """Measure and print; also written to `results.json` in the build folder.

    Args:
        build: Folders and concepts, as in training.
        count: Generated pictures for each guidance scale and kind of pair.
        guidance: Classifier-free guidance scales; 1 is none.
        seed: Of the chosen pairs and of the noise.
    """
    build = build or Build()
    styles, names = build.chosen.styles, [name.replace("-", " ") for name in build.chosen.names]
    scorer = CLIPModel.from_pretrained(build.model / "scorer").eval()
    tokenizer = CLIPTokenizer.from_pretrained(build.model / "scorer")
    pipe = StableDiffusion3Pipeline.from_pretrained(build.model / "pipeline")
    pipe.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(seed)
    absent = set(build.held_out)
    seen = [(s, n) for s in range(len(styles)) for n in range(len(names)) if (s, n) not in absent]
    results: dict[str, dict[str, float]] = {}

    def report(title: str, pictures: torch.Tensor, labels: list[tuple[int, int]], **more: float) -> None:
        judged = judge(scorer, tokenizer, pictures, labels, styles, names)
        results[title] = {**asdict(judged), **more}
        print(title, {k: round(v, 3) for k, v in results[title].items()}, flush=True)

    for kind, pairs in (("seen", seen), ("held-out", build.held_out)):
        real = to_unit(torch.stack([build.chosen.images[s, n] for s, n in pairs]))
        moved = shift_scale(real, generator)
        report(f"artwork, {kind} pairs, moved", moved, pairs)
        report(f"artwork, {kind} pairs, degraded", degrade(moved, generator), pairs)
        order = torch.randperm(len(pairs), generator=generator)[:count].tolist()
        labels = [pairs[i] for i in order]
        prompts = [caption(styles[s], names[n]) for s, n in labels]
        for scale in guidance:
            start = time.perf_counter()
            drawn = generate(pipe, prompts, seeds=[seed * 10_000 + i for i in order], guidance=scale)
            seconds = (time.perf_counter() - start) / len(labels)
            report(f"generated, {kind} pairs, guidance {scale:g}", to_unit(drawn), labels, seconds=seconds)
    build.folder.mkdir(parents=True, exist_ok=True)
    (build.folder / "results.json").write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    auto_cli(evaluate, as_positional=False)
