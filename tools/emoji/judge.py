"""The heads of the independent judge, trained on artwork alone: `python -m tools.emoji.judge`.

It sees no picture that a model drew and nothing of the scorer. The towers are frozen, so what they make of each picture
is computed once; an interrupted run goes on with the version of the pictures that it was at.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from importlib.metadata import version

import torch
import torch.nn.functional as F
from jsonargparse import auto_cli
from PIL import Image
from safetensors.torch import load_file, save_file
from tqdm import tqdm

from pagopt_rewards.judge import FACTS_FILE, HEADS_FILE, Heads
from pagopt_rewards.towers import PACKAGES, Towers, digests, tower_files
from tools.emoji.augment import reduce_area, shift_scale, to_unit
from tools.emoji.captions import caption, name_of
from tools.emoji.degrade import degrade
from tools.emoji.train import Build
from tools.emoji.vocabulary import synonyms

__all__ = ["Texts", "Training", "features", "fit_heads", "rank_1", "train"]


@dataclass(frozen=True)
class Training:
    """How the heads are trained.

    Args:
        variants: Moved and degraded versions of each picture, beside the picture as drawn.
        steps: Steps of AdamW.
        batch: Pictures a step.
        hidden: Width of the layer between.
        width: Of the common space.
        lr: Learning rate; it falls to zero along a cosine.
        weight_decay: Of the matrices.
        dropout: Share of hidden units left out.
        smoothing: Label smoothing.
        seed: Of everything.
    """

    variants: int = 4
    steps: int = 500
    batch: int = 256
    hidden: int = 384
    width: int = 128
    lr: float = 2e-3
    weight_decay: float = 0.1
    dropout: float = 0.2
    smoothing: float = 0.05
    seed: int = 6


class Texts:
    """Embeddings of every text of the training, computed once.

    `contents` are those of every name, each followed by those of its synonyms: `counts[n]` of them from `first[n]` on;
    `styles` those of the style words; `captions[order, style, name]` those of "style, name" (order 1), "name, style".
    """

    def __init__(self, towers: Towers, styles: list[str], icons: list[str]) -> None:
        names, others = [name_of(icon) for icon in icons], synonyms(icons)

        def embed(texts: list[str]) -> torch.Tensor:
            parts = range(0, len(texts), 128)
            return torch.cat([towers.texts(texts[at : at + 128]) for at in tqdm(parts, "texts", leave=False)])

        groups = [[name, *others[icon]] for name, icon in zip(names, icons, strict=True)]
        self.contents = embed([text for group in groups for text in group])
        self.counts = torch.tensor([len(group) for group in groups])
        self.first = self.counts.cumsum(dim=0) - self.counts
        self.styles = embed(styles)
        self.captions = torch.stack(
            [
                embed([caption(style, name, style_first=first) for style in styles for name in names]).unflatten(
                    0, (len(styles), -1)
                )
                for first in (False, True)
            ]
        )

    def names(self, generator: torch.Generator | None = None) -> torch.Tensor:
        """One text for each name, (names, TEXT_WIDTH): the name, or with a generator in one of four cases a synonym."""
        if generator is None:
            return self.contents[self.first]
        chance, which = torch.rand(2, len(self.counts), generator=generator)
        synonym = (1 + (which * (self.counts - 1)).long()) * ((chance < 0.25) & (self.counts > 1))
        return self.contents[self.first + synonym]


def _losses(
    heads: Heads, seen: torch.Tensor, labels: torch.Tensor, texts: Texts, smoothing: float, generator: torch.Generator
) -> torch.Tensor:
    """Which content of all, which style, which of the captions in this batch: the sum of three cross-entropies."""
    pairs, which = torch.unique(labels, dim=0, return_inverse=True)
    order = (torch.rand(len(pairs), generator=generator) < 2 / 3).long()
    contents = texts.names(generator)
    read = torch.cat([contents, texts.styles, texts.captions[order, pairs[:, 0], pairs[:, 1]]])
    with torch.autocast("cpu", torch.bfloat16):
        image, text = heads.images(seen), heads.texts(read)
    scale = heads.logit_scale.exp().clamp(max=50)
    logits = scale * F.normalize(image.float(), dim=-1) @ F.normalize(text.float(), dim=-1).T
    parts = logits.split([len(contents), len(texts.styles), len(pairs)], dim=1)
    wanted = labels[:, 1], labels[:, 0], which
    return torch.stack(
        [F.cross_entropy(part, want, label_smoothing=smoothing) for part, want in zip(parts, wanted, strict=True)]
    ).sum()


def fit_heads(seen: torch.Tensor, labels: torch.Tensor, texts: Texts, training: Training) -> Heads:
    """Train the heads on what the image tower made of the pictures.

    Args:
        seen: (variants, pictures, IMAGE_WIDTH), of the pictures to train on.
        labels: (pictures, 2): style and name of each.
        texts: The embeddings.
        training: Sizes.
    """
    torch.manual_seed(training.seed)
    generator = torch.Generator().manual_seed(training.seed)
    heads = Heads(training.hidden, training.width, training.dropout)
    heads.mean.copy_(seen.float().mean(dim=(0, 1)))
    heads.deviation.copy_(seen.float().flatten(0, 1).std(dim=0).clamp_min(1e-3))
    matrices = [p for p in heads.parameters() if p.ndim > 1]
    vectors = [p for p in heads.parameters() if p.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": training.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=training.lr)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, training.lr, total_steps=training.steps, pct_start=0.1)
    with tqdm(range(training.steps), "heads", mininterval=2) as bar:
        for _ in bar:
            rows = torch.randint(seen.shape[1], (training.batch,), generator=generator)
            variant = torch.randint(seen.shape[0], (training.batch,), generator=generator)
            loss = _losses(heads, seen[variant, rows].float(), labels[rows], texts, training.smoothing, generator)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            bar.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
    return heads.eval()


@torch.no_grad()
def rank_1(heads: Heads, seen: torch.Tensor, labels: torch.Tensor, texts: Texts) -> tuple[float, float]:
    """Shares of pictures whose nearest name, of all, and nearest style word are their own."""
    image = heads.images(seen.float())
    names = F.normalize(heads.texts(texts.names()), dim=-1)
    styles = F.normalize(heads.texts(texts.styles), dim=-1)
    return (
        float(((image @ names.T).argmax(dim=1) == labels[:, 1]).float().mean()),
        float(((image @ styles.T).argmax(dim=1) == labels[:, 0]).float().mean()),
    )


def features(build: Build, variants: int, towers: Towers) -> dict[str, torch.Tensor]:
    """What the image tower makes of the artwork, float16 (styles * names, IMAGE_WIDTH) by version; kept in the folder.

    "clean" is as drawn, "train 1" and so on are moved and degraded to train on; "degraded" is for measuring, from a
    generator of its own and moved as little as the model's training pictures.
    """
    path = build.folder / "judge_features.safetensors"
    found = load_file(path) if path.exists() else {}
    seeds = {"clean": 0, "degraded": 9, **{f"train {i}": 100 + i for i in range(1, variants + 1)}}
    pictures = to_unit(build.chosen.images.flatten(0, 1))
    for name, seed in seeds.items():
        if name in found:
            continue
        generator = torch.Generator().manual_seed(seed)
        rows = []
        for part in tqdm(pictures.split(64), name, unit="batch", mininterval=2):
            if name == "clean":
                small = reduce_area(part)
            elif name == "degraded":
                small = degrade(shift_scale(part, generator), generator)
            else:
                small = degrade(shift_scale(part, generator, shift=3, scale=(0.8, 1.1)), generator)
            drawn = ((small + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).numpy()
            rows.append(towers.images([Image.fromarray(picture) for picture in drawn]).half())
        found[name] = torch.cat(rows)
        save_file(found, path.with_suffix(".part"))
        path.with_suffix(".part").replace(path)
    return {name: found[name] for name in seeds}


def train(build: Build | None = None, training: Training | None = None) -> None:
    """Train the heads, write `judge/` into the shipped folder, print and record what they can do.

    Args:
        build: Folders and concepts, as for the model.
        training: Sizes.
    """
    build, training = build or Build(), training or Training()
    if build.threads:
        torch.set_num_threads(build.threads)
    files = tower_files()
    towers = Towers(files)
    seen = features(build, training.variants, towers)
    art = build.chosen
    texts = Texts(towers, art.styles, art.names)
    labels = torch.tensor([(style, name) for style in range(len(art.styles)) for name in range(len(art.names))])
    absent = set(build.held_out.pairs)
    known = torch.tensor([(style, name) not in absent for style, name in labels.tolist()])
    shown = torch.stack([seen["clean"], *(seen[f"train {i}"] for i in range(1, training.variants + 1))])
    heads = fit_heads(shown[:, known], labels[known], texts, training)
    folder = build.model / "judge"
    folder.mkdir(parents=True, exist_ok=True)
    half = {name: tensor.half().contiguous() for name, tensor in heads.state_dict().items()}
    save_file(half, folder / HEADS_FILE)
    heads.load_state_dict({name: tensor.float() for name, tensor in half.items()})
    measured = {}
    for kind, rows in (("seen", known), ("held-out", ~known)):
        for kept in ("clean", "degraded"):
            content, style = rank_1(heads, seen[kept][rows], labels[rows], texts)
            measured[f"{kind} pairs, {kept}"] = {"concept": round(content, 4), "style": round(style, 4)}
            print(f"rank 1, {kind} pairs, {kept} ({int(rows.sum())}): concept {content:.1%}, style {style:.1%}")
    facts = {
        "hidden": training.hidden,
        "width": training.width,
        "packages": {package: version(package) for package in PACKAGES},
        "towers": digests(files),
        "training": asdict(training),
        "concepts": len(art.names),
        "rank_1": measured,
    }
    (folder / FACTS_FILE).write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    auto_cli(train, as_positional=False)
